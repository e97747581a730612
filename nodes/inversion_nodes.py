"""EtaInversion and the files of its result."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from comfy_api.latest import io, ui

from ..eta_core.evidence.metrics import psnr
from ..eta_core.invert import evaluations, invert, invert_by_midpoints, play_back, record
from ..eta_core.trajectory import INVERTERS, Trajectory
from . import host
from .inputs import guidance_input
from .plot import line_plot
from .types import CATEGORY, EtaNode, Inversion, InversionSocket, schema


class EtaInversion(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaInversion",
            display_name="Eta Inversion",
            category=CATEGORY,
            search=(
                "inversion",
                "ddim inversion",
                "invert image",
                "unsampling",
                "image to noise",
                "real image editing",
            ),
            description=(
                "DDIM inversion of a picture under the prompt that describes it: the start of every edit."
            ),
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip=(
                        "The model that will also make the edit: SD1, SD2, SDXL, or a flow model such as "
                        "SD3, Flux, Qwen-Image, Z-Image, Krea 2, Chroma, Anima."
                    ),
                ),
                io.Conditioning.Input(
                    "positive",
                    tooltip=(
                        "The source prompt: describe the picture as it is, with the word you mean to change."
                    ),
                ),
                io.Latent.Input(
                    "latent_image",
                    tooltip="The picture, from VAE Encode. A batch is inverted picture by picture, at once.",
                ),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=1,
                    max=999,
                    tooltip="Steps of the inversion and of the edit. Paper: 50; 20 to 100 are sensible.",
                ),
                guidance_input(
                    "Guidance of the inversion. 1 = none (paper, most exact); higher needs `negative` "
                    "and costs twice.",
                    1.0,
                    30.0,
                ),
                io.Combo.Input(
                    "scheduler",
                    options=host.SCHEDULERS,
                    tooltip=(
                        "Noise levels. ddim_uniform is the paper's grid for any number of steps; the others "
                        "are the host's own."
                    ),
                ),
                io.Conditioning.Input("negative", optional=True, tooltip="Read only when cfg is not 1."),
                io.Combo.Input(
                    "inverter",
                    options=list(INVERTERS),
                    default="ddim",
                    optional=True,
                    tooltip=(
                        "ddim: the paper's forward pass (neutral). warm: plays back closer for one "
                        "evaluation more in all. fixed_point: closer still, by `iterations` evaluations a "
                        "step. midpoint and fireflow: second order (RF-Solver, FireFlow), for twice and for "
                        "one evaluation more. negative_prompt: as ddim, and EtaSampler takes the source "
                        "prompt for its negative. edit_friendly: DDPM noise of its own at every step; eta "
                        "is then how much of it is renewed, and eta 0 still edits."
                    ),
                ),
                io.Int.Input(
                    "iterations",
                    default=3,
                    min=1,
                    max=5,
                    optional=True,
                    tooltip="Network evaluations a step of fixed_point; 1 = ddim. The others do not read it.",
                ),
                io.Int.Input(
                    "inversion_seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    optional=True,
                    tooltip=(
                        "Seed of the noise of edit_friendly, and of what patches such as HyperTile or ToMe "
                        "draw. "
                        "Otherwise not read."
                    ),
                ),
                io.Boolean.Input(
                    "self_check",
                    default=False,
                    optional=True,
                    tooltip=(
                        "On: plays the inversion back (as many network calls again), draws how far it drifts "
                        "at each step, and warns where these "
                        "settings make it meaningless. Off: neutral. It changes nothing in the result."
                    ),
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip=(
                        "Read only by self_check, which then gives the PSNR in dB against the VAE's own "
                        "round trip."
                    ),
                ),
            ],
            outputs=[
                InversionSocket.Output(
                    display_name="inversion",
                    tooltip="The whole trajectory, the source prompt and its attention maps.",
                ),
                io.Latent.Output(
                    display_name="latent",
                    tooltip=(
                        "The noise end in the host's sigma space: KSampler (Advanced) with add_noise off "
                        "continues from it."
                    ),
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def execute(
        cls,
        model,
        positive,
        latent_image,
        steps,
        cfg,
        scheduler,
        negative=None,
        inverter="ddim",
        iterations=3,
        inversion_seed=0,
        self_check=False,
        vae=None,
    ) -> io.NodeOutput:
        if negative is None and not math.isclose(cfg, 1.0):
            raise ValueError(
                f"cfg is {cfg:g} but `negative` is not connected: connect a negative prompt (an empty one "
                "will do), or set cfg to 1"
            )
        if negative is None and host.needs_negative(model):
            raise ValueError(
                "`negative` is not connected, and what is patched into this model (such as Self-Attention "
                "Guidance) asks for it at any cfg: connect a "
                "negative prompt (an empty one will do), or the model from before the patch"
            )
        if not positive:
            raise ValueError("positive is empty: connect the prompt that describes the picture")
        z = host.in_model_space(model, host.latent_tensor(model, latent_image, cls.hidden.unique_id))
        size = z.shape[-2], z.shape[-1]
        grid = host.make_grid(model, scheduler, steps, size)
        if grid.times[-1] < 0.9:
            host.warn(
                f"{steps} steps of {scheduler} end at t = {grid.times[-1]:.2f}, far from the noise (1.00), "
                "and leave little to edit: use the "
                "scheduler normal, which reaches it with any number of steps, or another number of steps",
                cls.hidden.unique_id,
            )
        if grid.steps != steps:
            host.say(
                f"the scheduler {scheduler} makes {grid.steps} steps where {steps} were asked for",
                cls.hidden.unique_id,
            )
        host.check_no_keyframes(positive)
        host.check_covered(positive, "the source prompt", cls.hidden.unique_id)
        if self_check and vae is not None and vae.latent_channels != host.latent_channels(model):
            raise ValueError(
                f"vae makes latents of {vae.latent_channels} channels, the model takes "
                f"{host.latent_channels(model)}: connect the VAE of this checkpoint, "
                "or none"
            )
        recorder = host.MapRecorder(model, positive, size, len(z))
        tick = host.progress(model, evaluations(inverter, grid.steps, iterations))

        def loop(network, latent):
            def denoise(x, sigma):
                denoised = network({"source": x}, sigma, recorder.install)["source"]
                tick(x, denoised)
                return denoised

            if inverter == "edit_friendly":
                return record(denoise, latent, grid, inversion_seed, recorder.close_step), math.nan
            if inverter in ("midpoint", "fireflow"):
                carried = inverter == "fireflow"
                return invert_by_midpoints(denoise, latent, grid, recorder.close_step, carried), math.nan
            warm = inverter == "warm"
            asked = 2 if warm else iterations if inverter == "fixed_point" else 1
            return invert(denoise, latent, grid, recorder.close_step, asked, warm)

        branch = host.Branch("source", positive, negative, cfg)
        x, residual = host.sample(model, [branch], z, grid.levels, inversion_seed, loop)
        if not math.isnan(residual):
            host.say(f"residual: {residual:.1e} of x at the worst step", cls.hidden.unique_id)
        above = cls.hidden.dynprompt, cls.hidden.unique_id, "positive"
        typed = host.typed_text(*above)
        trajectory = Trajectory(
            x=x,
            grid=grid,
            signature=host.signature(model),
            fingerprint=host.fingerprint(positive),
            scale=host.downscale(model),
            maps=recorder.maps(),
            no_maps=recorder.problem,
            prompts=() if typed is None else (typed,),
            inverter=inverter,
            cfg=cfg,
        )
        drawn = None
        if self_check:
            drawn = _check(model, branch, trajectory, vae, inversion_seed, cls.hidden.unique_id)
        shown: dict[str, Any] = {} if drawn is None else {"ui": ui.PreviewImage(drawn, cls=cls)}
        return io.NodeOutput(
            Inversion(trajectory, positive, host.upstream_texts(*above)),
            host.to_latent(model, trajectory.x[-1]),
            **shown,
        )


MEANINGLESS = 0.5  # of the picture's own deviation lost in the latent
FLAT = 1e-3  # deviation of a latent without a picture in it; a photograph's is about 1


def _check(model, branch: host.Branch, trajectory: Trajectory, vae, seed, node_id) -> torch.Tensor | None:
    """A plot [1, H, W, 3] of the drift when the trajectory is played back. Bad figures are warned of."""
    if trajectory.inverter == "edit_friendly":
        host.say(
            "edit_friendly plays back exactly, whatever the settings: every step keeps its own noise", node_id
        )
        return None
    if float(trajectory.x[0].std()) < FLAT:
        host.say("the latent is flat, there is no picture whose drift could be measured", node_id)
        return None
    grid, tick = trajectory.grid, host.progress(model, trajectory.grid.steps)

    def loop(network, latent):
        def denoise(x, sigma):
            denoised = network({branch.name: x}, sigma)[branch.name]
            tick(x, denoised)
            return denoised

        return play_back(denoise, trajectory.x.to(latent), grid)

    drift, end = host.sample(model, [branch], trajectory.source, grid.levels[::-1], seed, loop)
    found = (
        f"played back, the inversion drifts by {float(drift[0]):.2f} of the picture's deviation (0 = exact)"
    )
    if vae is not None:
        pictures = [vae.decode(host.to_latent(model, z)["samples"]).cpu() for z in (trajectory.source, end)]
        found += f", {float(psnr(*pictures).min()):.1f} dB against the VAE's round trip"
    if float(drift[0]) > MEANINGLESS:
        host.warn(
            f"{found}: its noise is hardly this picture's. Set cfg to 1, use more steps ({grid.steps} now), "
            "the scheduler ddim_uniform, or the "
            "inverter fixed_point or edit_friendly; or edit without an inversion, by Eta Flow Edit",
            node_id,
        )
    else:
        host.say(found, node_id)
    return line_plot(grid.times, drift.tolist(), "time (0 image, 1 noise)", "drift")


class EtaSaveInversion(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaSaveInversion",
            display_name="Save Eta Inversion",
            category=CATEGORY,
            search=(
                "save inversion",
                "store inversion",
                "export inversion",
            ),
            description=(
                "Write an inversion to the output folder, to edit the same picture later without inverting "
                "it again."
            ),
            inputs=[
                InversionSocket.Input("inversion", tooltip="The inversion to write."),
                io.String.Input(
                    "filename_prefix",
                    default="eta/inversion",
                    tooltip="File name below the output folder; a number is added.",
                ),
            ],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, inversion: Inversion, filename_prefix: str) -> io.NodeOutput:
        name = host.save_inversion(filename_prefix, inversion.trajectory, inversion.positive)
        return io.NodeOutput(ui=ui.PreviewText(name))


class EtaLoadInversion(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaLoadInversion",
            display_name="Load Eta Inversion",
            category=CATEGORY,
            search=(
                "load inversion",
                "open inversion",
                "import inversion",
            ),
            description="Read an inversion that Save Eta Inversion wrote.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=host.saved_files(),
                    tooltip="A saved inversion in the output or input folder.",
                )
            ],
            outputs=[InversionSocket.Output(display_name="inversion", tooltip="As it was saved.")],
        )

    @classmethod
    def validate_inputs(cls, file) -> bool | str:
        if file is None:  # linked: known when it runs
            return True
        try:
            host.saved_path(file)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file) -> str:
        status = host.saved_path(file).stat()
        return f"{status.st_mtime_ns}-{status.st_size}"

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        trajectory, positive = host.load_inversion(host.saved_path(file))
        texts = trajectory.prompts
        if len(texts) > 1:  # of an earlier version, which kept every text above the node: do not pass them on
            trajectory = replace(trajectory, prompts=())
        return io.NodeOutput(Inversion(trajectory, positive, texts))


NODES = [EtaInversion, EtaSaveInversion, EtaLoadInversion]
