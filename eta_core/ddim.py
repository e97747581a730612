"""One step of DDIM inversion and one of eta-DDIM sampling, in sigma space.

| here | paper (DDIM form) |
|---|---|
| x | z / sqrt(abar) |
| sigma | sqrt((1 - abar) / abar) |
| sigma_up | eta sqrt((1 - abar') / (1 - abar) (1 - abar / abar')) / sqrt(abar') |
| sigma_down | sqrt(1 - abar' - s^2) / sqrt(abar') |
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]


def vp_scale(sigma: float) -> float:
    """sqrt(1 + sigma^2): from the model's own latents z to x."""
    return math.sqrt(1.0 + sigma * sigma)


def invert_step(denoise: Denoise, x: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """DDIM inversion of one step, sigma < sigma_next (Direct Inversion's forward pass; DDIM, eq. 12 reversed).

    The network sees the latent of the origin at the noise level of the destination, as the paper's program does.
    """
    x_in = x * (vp_scale(sigma_next) / vp_scale(sigma))
    return x + (sigma_next - sigma) * ((x_in - denoise(x_in, sigma_next)) / sigma_next)


def split_noise(
    eta: float, sigma: float, sigma_next: float, region: Tensor | None = None
) -> tuple[Tensor | float, Tensor | float]:
    """(sigma_down, sigma_up) of a step: what is kept of the predicted noise, what is replaced by fresh noise.

    `region` in 0..1, broadcast against x, scales eta per pixel (paper, eq. 13: eta times mask).
    """
    up = eta * sigma_next * math.sqrt(sigma * sigma - sigma_next * sigma_next) / sigma
    if region is None:
        return math.sqrt(sigma_next * sigma_next - up * up), up
    up = region * up
    return torch.sqrt(torch.clamp(sigma_next * sigma_next - up * up, min=0.0)), up


def eta_step(x: Tensor, denoised: Tensor, sigma: float, sigma_down, sigma_up, noise: Tensor | None) -> Tensor:
    """One sampling step of eta-DDIM (DDIM, eq. 12; paper, eq. 9): x0 + sigma_down eps + sigma_up noise."""
    moved = denoised + sigma_down * ((x - denoised) / sigma)
    return moved if noise is None else moved + sigma_up * noise


def optimal_noise(
    x_next: Tensor, x: Tensor, denoised: Tensor, sigma: float, sigma_down: float, sigma_up: float
) -> Tensor:
    """The noise with which the step from x would land exactly on x_next (paper, eq. 11)."""
    return (x_next - eta_step(x, denoised, sigma, sigma_down, 0.0, None)) / sigma_up
