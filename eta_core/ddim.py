"""One step of DDIM inversion and one of eta-DDIM sampling, in the space of x and sigma (see frame.py).

| here | paper (DDIM form) |
|---|---|
| x | z / sqrt(abar) |
| sigma | sqrt((1 - abar) / abar) |
| sigma_up | eta sqrt((1 - abar') / (1 - abar) (1 - abar / abar')) / sqrt(abar') |
| sigma_down | sqrt(1 - abar' - s^2) / sqrt(abar') |

A flow model's Euler step is DDIM's step on x. An ancestral flow step goes down to tau_down and adds noise
again; it is eta-DDIM's step with the same sigma_down. So everything below holds for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .frame import DIFFUSION, Frame

Denoise = Callable[[Tensor, float], Tensor]


def invert_step(
    denoise: Denoise, x: Tensor, sigma: float, sigma_next: float, frame: Frame = DIFFUSION
) -> Tensor:
    """DDIM inversion of one step, from sigma up to sigma_next (DDIM, eq. 12 reversed; Direct Inversion).

    The network sees the origin's latent at the destination's noise level, as in the paper's program.
    """
    seen = x * (frame.scale(sigma_next) / frame.scale(sigma))
    return frame.invert(x, seen, denoise(seen, sigma_next), sigma, sigma_next)


def stored_answer(
    x: Tensor, x_next: Tensor, sigma: float, sigma_next: float, frame: Frame = DIFFUSION
) -> tuple[Tensor, Tensor]:
    """What `invert_step` asked the network on the way from x to x_next, and the denoised latent it got.

    The step is linear in that latent, so the latent follows from both ends. Nothing is asked again.
    """
    seen, nothing = x * (frame.scale(sigma_next) / frame.scale(sigma)), torch.zeros_like(x)
    without = frame.invert(x, seen, nothing, sigma, sigma_next)
    share = frame.invert(nothing, nothing, torch.ones_like(x), sigma, sigma_next)
    return seen, (x_next - without) / share


def ancestral_step(
    eta: float, sigma: float, sigma_next: float, region: Tensor | None = None
) -> tuple[Tensor | float, Tensor | float]:
    """(sigma_down, sigma_up): how much predicted noise a step keeps, and how much fresh noise it adds.

    sigma_down^2 + sigma_up^2 = sigma_next^2. `region` in 0..1 scales eta per pixel (paper, eq. 13: eta times
    mask) and is broadcast against x; both results are then tensors of its shape.
    """
    up = eta * sigma_next * math.sqrt(sigma * sigma - sigma_next * sigma_next) / sigma
    # kept = 1 - (up / sigma_next)^2, written so that float32 keeps its digits where it comes near 0
    kept = 1.0 - eta * eta + (eta * sigma_next / sigma) ** 2
    if region is None:
        return sigma_next * math.sqrt(kept), up
    square = region * region
    # A region a rounding error above 1 would take a root of less than 0.
    return sigma_next * torch.sqrt((1.0 - square + square * kept).clamp(min=0)), region * up


def eta_step(
    x: Tensor,
    denoised: Tensor,
    sigma: float,
    sigma_down: Tensor | float,
    sigma_up: Tensor | float,
    noise: Tensor | None,
) -> Tensor:
    """One sampling step of eta-DDIM (DDIM, eq. 12; paper, eq. 9): x0 + sigma_down eps + sigma_up noise."""
    moved = denoised + sigma_down * ((x - denoised) / sigma)
    return moved if noise is None else moved + sigma_up * noise


def optimal_noise(
    x_next: Tensor,
    x: Tensor,
    denoised: Tensor,
    sigma: float,
    sigma_down: Tensor | float,
    sigma_up: Tensor | float,
) -> Tensor:
    """The noise with which the step from x would land exactly on x_next (paper, eq. 11)."""
    return (x_next - eta_step(x, denoised, sigma, sigma_down, 0.0, None)) / sigma_up
