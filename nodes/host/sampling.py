"""Loops inside the host's own sampling: guider, model options, previews, progress, Cancel."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import comfy.model_patcher
import comfy.samplers
import latent_preview
import torch
from comfy.patcher_extension import WrappersMP, add_wrapper
from torch import Tensor

from ...eta_core.ddim import Denoise, eta_step, split_noise
from ...eta_core.eta import EtaSchedule
from ...eta_core.schedule import time_of
from .latents import latent_mask
from .messages import log
from .models import noise_levels

Result = TypeVar("Result")


class LoopSampler(comfy.samplers.Sampler, Generic[Result]):
    """A SAMPLER that hands `loop(denoise, latent)` the guider's prediction; noise and inpaint blending stay out."""

    def __init__(self, loop: Callable[[Denoise, Tensor], Result], patch: Callable[[dict], dict]):
        self._loop = loop
        self._patch = patch
        self.result: Result | None = None
        self.rows = 0

    def sample(
        self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
    ):
        options = self._patch(comfy.model_patcher.create_model_options_clone(extra_args["model_options"]))
        add_wrapper(WrappersMP.APPLY_MODEL, self._count, options, is_model_options=True)
        seed = extra_args.get("seed")

        def denoise(x: Tensor, sigma: float) -> Tensor:
            denoised = model_wrap(x, x.new_full((len(x),), sigma), model_options=options, seed=seed)
            if not bool(torch.isfinite(denoised).all()):
                raise ValueError(
                    f"the model predicted NaN or infinite values at sigma {sigma:.4f}: its weights overflow in half precision; start the host "
                    "with --force-fp32 (or --fp32-unet), or check the checkpoint and LoRAs"
                )
            return denoised.float()

        self.result = self._loop(denoise, latent_image.float())
        return latent_image

    def _count(self, apply_model, x, *args, **kwargs):
        self.rows += len(x)
        return apply_model(x, *args, **kwargs)


def sample(
    model,
    positive: list,
    negative: list | None,
    cfg: float,
    z: Tensor,
    sigmas: Sequence[float],
    seed: int,
    loop: Callable[[Denoise, Tensor], Result],
    patch: Callable[[dict], dict] = lambda options: options,
) -> Result:
    """Run `loop` inside the host's sampling of `z` (model's scaled space) and return its result.

    `patch` may add to the model options it is given, a copy that lives as long as this run.
    """
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": positive} if negative is None else {"positive": positive, "negative": negative})
    guider.set_cfg(cfg)
    latent = model.model.process_latent_out(z)
    sampler = LoopSampler(loop, patch)
    started = time.perf_counter()
    levels = torch.tensor(sigmas, dtype=torch.float32)
    guider.sample(torch.zeros_like(latent), latent, sampler, levels, disable_pbar=True, seed=seed)
    log.info("Eta Inversion: %d rows through the network in %.2f s", sampler.rows, time.perf_counter() - started)
    return sampler.result


def progress(model, total: int) -> Callable[[Tensor, Tensor], None]:
    """A progress bar with previews over `total` network steps: call it with (x, denoised) after each."""
    callback = latent_preview.prepare_callback(model, total)
    done = 0

    def tick(x: Tensor, denoised: Tensor) -> None:
        nonlocal done
        callback(done, denoised, x, total)
        done += 1

    return tick


def ticking(denoise: Denoise, tick: Callable[[Tensor, Tensor], None]) -> Denoise:
    """`denoise` that tells the progress bar of every call."""

    def call(x, sigma):
        denoised = denoise(x, sigma)
        tick(x, denoised)
        return denoised

    return call


def eta_sampler(eta: EtaSchedule, mask: Tensor | None) -> comfy.samplers.KSAMPLER:
    """eta-DDIM as a SAMPLER of the host; its noise comes from the CPU, seeded by the run's seed."""

    def sample_eta_ddim(model, x, sigmas, extra_args=None, callback=None, disable=None):
        extra_args = extra_args or {}
        table = noise_levels(model.inner_model.inner_model.model_sampling)
        region = None if mask is None else latent_mask(mask, len(x), x.shape[-2:]).to(x)
        if not bool((sigmas[1:] < sigmas[:-1]).all()):
            raise ValueError(f"the sigmas {sigmas.tolist()} do not fall: eta-DDIM samples from noise to image")
        # the host drew the noise x starts from with `seed` itself: the fresh noise must be another
        generator = torch.Generator("cpu").manual_seed(((extra_args.get("seed") or 0) + 1) % 2**64)
        for i, (sigma, sigma_next) in enumerate(zip(sigmas[:-1].tolist(), sigmas[1:].tolist())):
            denoised = model(x, x.new_full((len(x),), sigma), **extra_args)
            if callback is not None:
                callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
            down, up = split_noise(eta(time_of(sigma, table)), sigma, sigma_next, region)
            x = eta_step(x, denoised, sigma, down, up, torch.randn(x.shape, generator=generator).to(x))
        return x

    return comfy.samplers.KSAMPLER(sample_eta_ddim)
