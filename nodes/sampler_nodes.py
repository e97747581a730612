"""EtaSampler, and its parts for the host's SamplerCustomAdvanced."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..eta_core.eta import EtaSchedule
from . import host
from .edit_run import prepare_run
from .inputs import guidance_input, seed_input, used_mask_output
from .types import CATEGORY, EditSocket, EtaNode, EtaSocket, Inversion, InversionSocket, schema


class EtaSampler(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaSampler",
            display_name="Eta Sampler",
            category=CATEGORY,
            search=(
                "edit photo",
                "edit image",
                "image editing",
                "replace object",
                "swap object",
                "keep background",
                "inpaint",
                "prompt edit",
                "eta-ddim",
            ),
            description=(
                "Samples the target prompt from an inversion, with fresh noise by eta where the mask allows "
                "it."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model the inversion was made with."),
                InversionSocket.Input("inversion", tooltip="The inverted picture and its source prompt."),
                EtaSocket.Input(
                    "eta",
                    tooltip=(
                        "How much fresh noise over time. More = more edit (in RF-Inversion eta means the "
                        "opposite)."
                    ),
                ),
                io.Conditioning.Input(
                    "positive", tooltip="The target prompt: the source prompt with the words changed."
                ),
                io.Conditioning.Input(
                    "negative",
                    tooltip=(
                        "The negative prompt of both branches. Paper: empty. Not read after an inversion "
                        "with negative_prompt: the source prompt takes its place."
                    ),
                ),
                guidance_input(
                    "Guidance of both branches; 1 = none. Paper: 7.5. Try 2 to 7.5; the lowest value that "
                    "makes the edit keeps the most of the picture."
                ),
                seed_input(
                    "Seed of the fresh noise; the same on every device, and for every picture of a batch."
                ),
                io.Int.Input(
                    "noise_candidates",
                    default=10,
                    min=1,
                    max=1000,
                    tooltip=(
                        "Noises drawn a step, of which the nearest to the source's own is taken. 1 = plain "
                        "random noise. Paper: 10."
                    ),
                ),
                io.Float.Input(
                    "noise_blend",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip=(
                        "How much of the source's own noise is mixed in. 0 = none (paper), 1 = keeps the "
                        "most of the source. Above 0 the network is asked for the source, too."
                    ),
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="Multiplies eta per pixel. Without it eta acts everywhere."
                ),
                io.Boolean.Input(
                    "parity",
                    default=False,
                    optional=True,
                    tooltip=(
                        "On: as the paper's program does. The noise is chosen over the whole picture, by "
                        "asking the network for the source. "
                        "Plug-and-Play takes the source under the empty prompt. Steps that start leaves "
                        "out are counted, and an edit_friendly inversion plays back, as there. "
                        "Off: what measured better."
                    ),
                ),
                io.Float.Input(
                    "background_lock",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip=(
                        "Holds the picture outside the mask on the source's trajectory at every step. 0 = "
                        "off (paper), 1 = exactly the source."
                    ),
                ),
                EditSocket.Input(
                    "edit",
                    optional=True,
                    tooltip=(
                        "Editing methods (Prompt-to-Prompt, MasaCtrl, Plug-and-Play), further prompts in "
                        "regions of their own, and Eta Target Words. Without it: the target prompt alone."
                    ),
                ),
                io.Int.Input(
                    "variants",
                    default=1,
                    min=1,
                    max=64,
                    optional=True,
                    tooltip=(
                        "Edits with seed, seed + 1, ... beside one shared source branch; the latent is then "
                        "a batch. 1 = neutral."
                    ),
                ),
                io.Float.Input(
                    "start",
                    default=1.0,
                    min=0.02,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip=(
                        "Where on the way from noise to picture the edit begins. 1 = at the noise (neutral). "
                        "Less "
                        "keeps more of the picture and saves the skipped steps. Try 0.5 to 1; on the toy "
                        "model "
                        "0.6 came nearest to the right answer. 0.64 skips as edit-friendly inversion does."
                    ),
                ),
                io.Float.Input(
                    "source_cfg",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    optional=True,
                    tooltip=(
                        "Guidance of the source branch after an edit_friendly inversion. 0 = as cfg "
                        "(neutral). "
                        "Reference: 3.5 with cfg 9. Other inversions do not read it."
                    ),
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The edited picture."),
                io.Latent.Output(
                    display_name="reconstruction",
                    tooltip=(
                        "The inversion's source latent, unchanged: the source branch ends on it by "
                        "construction. Decode it to see what the VAE alone loses."
                    ),
                ),
                used_mask_output(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model,
        inversion: Inversion,
        eta: EtaSchedule,
        positive,
        negative,
        cfg,
        seed,
        noise_candidates,
        noise_blend,
        mask=None,
        parity=False,
        background_lock=0.0,
        edit=None,
        variants=1,
        start=1.0,
        source_cfg=0.0,
    ) -> io.NodeOutput:
        run = prepare_run(
            model,
            inversion,
            eta,
            positive,
            negative,
            cfg,
            seed,
            noise_candidates,
            noise_blend,
            mask,
            parity,
            background_lock,
            edit,
            variants,
            start,
            source_cfg,
            node_id=cls.hidden.unique_id,
        )
        edited, source = run.sample(), inversion.trajectory.source
        if parity and inversion.trajectory.inverter == "edit_friendly":
            source = run.of_source(inversion.positive, source_cfg or cfg).sample().latent
        return io.NodeOutput(
            host.to_latent(model, edited.latent),
            host.to_latent(model, source),
            edited.mask,
            ui={"eta_taken": run.eta_taken},
        )


class EtaSamplerSelect(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaSamplerSelect",
            display_name="Eta Sampler Select",
            category=CATEGORY,
            search=(
                "eta-ddim sampler",
                "ddim eta",
                "stochastic ddim",
            ),
            description=(
                "eta-DDIM as a SAMPLER for SamplerCustomAdvanced, with eta over time and per pixel. Eta 0 is "
                "DDIM (Euler)."
            ),
            inputs=[
                EtaSocket.Input("eta", tooltip="How much fresh noise over time. 0 everywhere = DDIM."),
                io.Mask.Input(
                    "mask", optional=True, tooltip="Multiplies eta per pixel. Without it eta acts everywhere."
                ),
            ],
            outputs=[io.Sampler.Output(display_name="sampler", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, eta: EtaSchedule, mask=None) -> io.NodeOutput:
        return io.NodeOutput(host.eta_sampler(eta, mask))


class EtaSigmas(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaSigmas",
            display_name="Eta Inversion Sigmas",
            category=CATEGORY,
            search=(
                "inversion sigmas",
                "noise levels",
            ),
            description=(
                "The noise levels of an inversion, noise end first, for SamplerCustomAdvanced: plays it back "
                "from its latent."
            ),
            inputs=[InversionSocket.Input("inversion", tooltip="The inversion to play back.")],
            outputs=[io.Sigmas.Output(display_name="sigmas", tooltip="Noise end first.")],
        )

    @classmethod
    def execute(cls, inversion: Inversion) -> io.NodeOutput:
        return io.NodeOutput(torch.tensor(inversion.trajectory.grid.levels[::-1], dtype=torch.float32))


NODES = [EtaSampler, EtaSamplerSelect, EtaSigmas]
