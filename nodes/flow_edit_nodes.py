"""EtaFlowEdit: an edit without an inversion, for models that few steps take from noise to picture."""

from __future__ import annotations

from comfy_api.latest import io

from ..eta_core.eta import EtaSchedule
from ..eta_core.flow_edit import noised_path
from ..eta_core.trajectory import Trajectory
from . import host
from .edit_run import prepare_run
from .inputs import guidance_input, seed_input, used_mask_output
from .types import CATEGORY, EditPlan, EditSocket, EtaNode, EtaSocket, Inversion, schema

FRESH = EtaSchedule(((0.0, 1.0),))


class EtaFlowEdit(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaFlowEdit",
            display_name="Eta Flow Edit",
            category=CATEGORY,
            search=(
                "flowedit",
                "flow edit",
                "flowalign",
                "edit without inversion",
                "turbo edit",
                "schnell edit",
                "delta denoising",
            ),
            description=(
                "Edits a picture without inverting it (FlowEdit): at every noise level the picture moves by "
                "what the network finds different between the two prompts. For few-step models, whose "
                "inversion fails, and for every other."
            ),
            inputs=[
                io.Model.Input("model", tooltip="A flow or a diffusion model, distilled or not."),
                io.Latent.Input("latent_image", tooltip="The picture to edit, from VAE Encode."),
                io.Conditioning.Input("source", tooltip="The prompt that describes the picture."),
                io.Conditioning.Input(
                    "positive", tooltip="The target prompt: the source prompt with the words changed."
                ),
                io.Conditioning.Input(
                    "negative",
                    tooltip=(
                        "The negative prompt of both. Not read where both guidances are 1. The source "
                        "prompt here and source_cfg 1 is FlowAlign's guidance, for three evaluations "
                        "a step instead of four."
                    ),
                ),
                io.Int.Input(
                    "steps",
                    default=28,
                    min=1,
                    max=999,
                    tooltip=(
                        "Steps from noise to picture. Paper: 28 on Flux, 50 on SD3; distilled models take "
                        "their own few."
                    ),
                ),
                io.Combo.Input("scheduler", options=host.SCHEDULERS, tooltip="Noise levels."),
                io.Float.Input(
                    "source_cfg",
                    default=1.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance of the source prompt. Paper: 1.5 on Flux, 3.5 on SD3; distilled: 1.",
                ),
                guidance_input(
                    "Guidance of the target prompt. Paper: 5.5 on Flux, 13.5 on SD3; distilled: 1.", 5.5
                ),
                seed_input("Seed of the noise; the same on every device, and for every picture of a batch."),
                io.Float.Input(
                    "start",
                    default=0.85,
                    min=0.02,
                    max=1.0,
                    step=0.01,
                    tooltip=(
                        "Where on the way from noise to picture the edit begins. 1 = at the noise, changes "
                        "the most; less keeps more. Paper: 0.86 on Flux, 0.66 on SD3."
                    ),
                ),
                EtaSocket.Input(
                    "eta",
                    optional=True,
                    tooltip=(
                        "How much of the noise each step renews. 1 = all of it (paper, and without this "
                        "input), 0 = one noise for all steps."
                    ),
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the picture may change, as far as background_lock says.",
                ),
                io.Float.Input(
                    "background_lock",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip=(
                        "Holds the picture outside the mask and the regions. 0 = off, 1 = exactly the "
                        "source. Without a mask and regions it is not read."
                    ),
                ),
                EditSocket.Input(
                    "edit",
                    optional=True,
                    tooltip=(
                        "Editing methods, and further prompts in regions of their own, as in Eta Sampler."
                    ),
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The edited picture."),
                used_mask_output(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model,
        latent_image,
        source,
        positive,
        negative,
        steps,
        scheduler,
        source_cfg,
        cfg,
        seed,
        start,
        eta: EtaSchedule | None = None,
        mask=None,
        background_lock=1.0,
        edit: EditPlan | None = None,
    ) -> io.NodeOutput:
        node_id = cls.hidden.unique_id
        if not source:
            raise ValueError("source is empty: connect the prompt that describes the picture")
        host.check_no_keyframes(source)
        host.check_covered(source, "the source prompt", node_id)
        z = host.in_model_space(model, host.latent_tensor(model, latent_image, node_id))
        grid = host.make_grid(model, scheduler, steps, (z.shape[-2], z.shape[-1]))
        path = Trajectory(
            x=noised_path(z, grid, eta or FRESH, seed),
            grid=grid,
            signature=host.signature(model),
            fingerprint=host.fingerprint(source),
            scale=host.downscale(model),
            inverter="edit_friendly",  # as there, every level has noise of its own
        )
        has_place = mask is not None or (edit is not None and bool(edit.regions))
        run = prepare_run(
            model,
            Inversion(path, source),
            FRESH,
            positive,
            negative,
            cfg,
            seed,
            mask=mask,
            background_lock=background_lock if has_place else 0.0,
            edit=edit,
            start=start,
            source_cfg=source_cfg,
            node_id=node_id,
        )
        edited = run.sample_delta()
        return io.NodeOutput(host.to_latent(model, edited.latent), edited.mask)


NODES = [EtaFlowEdit]
