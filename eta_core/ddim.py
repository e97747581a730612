"""One step of DDIM inversion and one of eta-DDIM sampling, in sigma space.

| here | paper (DDIM form) |
|---|---|
| x | z / sqrt(abar) |
| sigma | sqrt((1 - abar) / abar) |
| sigma_up | eta sqrt((1 - abar') / (1 - abar) (1 - abar / abar')) / sqrt(abar') |
| sigma_down | sqrt(1 - abar' - s^2) / sqrt(abar') |

Flow models mix z = (1 - tau) x0 + tau noise. With x = z / (1 - tau) and sigma = tau / (1 - tau) their Euler step is DDIM's, and
an ancestral step that goes down to tau_down and renoises is eta-DDIM's with the same sigma_down: everything below holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]
Frame = Literal["diffusion", "flow"]


def vp_scale(sigma: float) -> float:
    """sqrt(1 + sigma^2): from the model's own latents z to x."""
    return math.sqrt(1.0 + sigma * sigma)


def flow_scale(sigma: float) -> float:
    """1 / (1 - tau) = 1 + sigma: from a flow model's own latents z to x."""
    return 1.0 + sigma


def flow_time(sigma: float) -> float:
    """tau of a flow model, 0 at the image and 1 at the noise."""
    return sigma / (1.0 + sigma)


def flow_sigma(tau: float) -> float:
    """sigma of a flow model's time, large but finite at the noise itself."""
    return tau / max(1.0 - tau, 1e-6)


SCALE: dict[Frame, Callable[[float], float]] = {"diffusion": vp_scale, "flow": flow_scale}


def invert_step(
    denoise: Denoise, x: Tensor, sigma: float, sigma_next: float, frame: Frame = "diffusion"
) -> Tensor:
    """DDIM inversion of one step, sigma < sigma_next (Direct Inversion's forward pass; DDIM, eq. 12 reversed).

    The network sees the latent of the origin at the noise level of the destination, as the paper's program does. A flow
    model's latent then moves along its velocity (z - x0) / tau', as Euler's method has it.
    """
    x_in = x * (SCALE[frame](sigma_next) / SCALE[frame](sigma))
    denoised = denoise(x_in, sigma_next)
    if frame == "flow":
        share = 1.0 - flow_time(sigma) / flow_time(sigma_next)
        return x_in + share * (x_in - flow_scale(sigma_next) * denoised)
    return x + (sigma_next - sigma) * ((x_in - denoised) / sigma_next)


def split_noise(
    eta: float, sigma: float, sigma_next: float, region: Tensor | None = None
) -> tuple[Tensor | float, Tensor | float]:
    """(sigma_down, sigma_up) of a step: what is kept of the predicted noise, what is replaced by fresh noise.

    `region` in 0..1, broadcast against x, scales eta per pixel (paper, eq. 13: eta times mask).
    """
    up = eta * sigma_next * math.sqrt(sigma * sigma - sigma_next * sigma_next) / sigma
    kept = (
        1.0 - eta * eta + (eta * sigma_next / sigma) ** 2
    )  # 1 - (up / sigma_next)^2, whose digits float32 would lose near 0
    if region is None:
        return sigma_next * math.sqrt(kept), up
    square = region * region
    return sigma_next * torch.sqrt(1.0 - square + square * kept), region * up


def eta_step(x: Tensor, denoised: Tensor, sigma: float, sigma_down, sigma_up, noise: Tensor | None) -> Tensor:
    """One sampling step of eta-DDIM (DDIM, eq. 12; paper, eq. 9): x0 + sigma_down eps + sigma_up noise."""
    moved = denoised + sigma_down * ((x - denoised) / sigma)
    return moved if noise is None else moved + sigma_up * noise


def optimal_noise(
    x_next: Tensor, x: Tensor, denoised: Tensor, sigma: float, sigma_down: float, sigma_up: float
) -> Tensor:
    """The noise with which the step from x would land exactly on x_next (paper, eq. 11)."""
    return (x_next - eta_step(x, denoised, sigma, sigma_down, 0.0, None)) / sigma_up
