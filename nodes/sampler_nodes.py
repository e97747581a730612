"""EtaSampler, and its parts for the host's SamplerCustomAdvanced."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..eta_core.ddim import vp_scale
from ..eta_core.edit import Steering, edit, source_steps, steer
from ..eta_core.eta import EtaSchedule
from . import host
from .types import CATEGORY, EtaSocket, Inversion, InversionSocket


class EtaSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EtaSampler",
            display_name="Eta Sampler",
            category=CATEGORY,
            description="Samples the target prompt from an inversion, with fresh noise by eta where the mask allows it.",
            inputs=[
                io.Model.Input("model", tooltip="The model the inversion was made with."),
                InversionSocket.Input("inversion", tooltip="The inverted picture and its source prompt."),
                EtaSocket.Input(
                    "eta",
                    tooltip="How much fresh noise over time. More = more edit (in RF-Inversion eta means the opposite).",
                ),
                io.Conditioning.Input(
                    "positive", tooltip="The target prompt: the source prompt with the words changed."
                ),
                io.Conditioning.Input("negative", tooltip="The negative prompt of both branches. Paper: empty."),
                io.Float.Input(
                    "cfg",
                    default=7.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance of both branches; 1 = none. Paper: 7.5.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip=("Seed of the fresh noise; the same on every device, and for every picture of a batch."),
                ),
                io.Int.Input(
                    "noise_candidates",
                    default=10,
                    min=1,
                    max=1000,
                    tooltip=(
                        "Noises drawn a step, of which the nearest to the source's own is taken. 1 = plain random noise, without the source branch. Paper: 10."
                    ),
                ),
                io.Float.Input(
                    "noise_blend",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip=(
                        "How much of the source's own noise is mixed in. 0 = none (paper), 1 = keeps the most of the source."
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
                        "On: the noise is chosen over the whole picture, as the paper's program does. Off: inside the mask, where it is used."
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
                        "Holds the picture outside the mask on the source's trajectory at every step. 0 = off (paper), 1 = exactly the source."
                    ),
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The edited picture."),
                io.Latent.Output(
                    display_name="reconstruction",
                    tooltip="The source latent: the source branch lands on it exactly. What is lost is the VAE's.",
                ),
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
    ) -> io.NodeOutput:
        trajectory, grid = inversion.trajectory, inversion.trajectory.grid
        host.check_same_model(model, trajectory.signature, cls.hidden.unique_id)
        if background_lock > 0 and mask is None:
            raise ValueError(
                f"background_lock is {background_lock:g} but no mask says what the background is: connect a mask, or set it to 0"
            )
        size, node_id = tuple(trajectory.x.shape[-2:]), cls.hidden.unique_id
        region = None if mask is None else host.latent_mask(mask, trajectory.batch, size, trajectory.scale, node_id)
        if region is not None and not bool(region.any()):
            host.warn("the mask is empty: no fresh noise comes in anywhere", node_id)
        steering = Steering(eta, seed, noise_candidates, noise_blend, region, choose_in_region=not parity)
        lock = 1 - background_lock * (1 - region) if background_lock > 0 else None
        reads = source_steps(steering, grid)
        tick = host.progress(model, reads + grid.steps)

        def source_branch(denoise, latent):
            return list(steer(host.ticking(denoise, tick), trajectory.x.to(latent), grid, steering.to(latent)))

        def target_branch(denoise, latent):
            lock_here = None if lock is None else lock.to(latent)
            x = edit(host.ticking(denoise, tick), trajectory.x.to(latent), grid, steering.to(latent), noises, lock_here)
            return x / vp_scale(grid.sigmas[0])

        def run(conditioning, loop):
            return host.sample(model, conditioning, negative, cfg, trajectory.source, grid.sigmas[::-1], seed, loop)

        noises = run(inversion.positive, source_branch) if reads else list(steer(None, trajectory.x, grid, steering))
        edited = run(positive, target_branch)
        return io.NodeOutput(host.to_latent(model, edited), host.to_latent(model, trajectory.source))


class EtaSamplerSelect(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EtaSamplerSelect",
            display_name="Eta Sampler Select",
            category=CATEGORY,
            description="eta-DDIM as a SAMPLER for SamplerCustomAdvanced, with eta over time and per pixel. Eta 0 is DDIM (Euler).",
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


class EtaSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EtaSigmas",
            display_name="Eta Inversion Sigmas",
            category=CATEGORY,
            description="The noise levels of an inversion, noise end first, for SamplerCustomAdvanced: plays it back from its latent.",
            inputs=[InversionSocket.Input("inversion", tooltip="The inversion to play back.")],
            outputs=[io.Sigmas.Output(display_name="sigmas", tooltip="Noise end first.")],
        )

    @classmethod
    def execute(cls, inversion: Inversion) -> io.NodeOutput:
        return io.NodeOutput(torch.tensor(inversion.trajectory.grid.sigmas[::-1], dtype=torch.float32))


NODES = [EtaSampler, EtaSamplerSelect, EtaSigmas]
