"""The forward pass: from the picture's latent to the noise end, every point kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .ddim import Denoise, invert_step, vp_scale
from .schedule import Grid


def invert(denoise: Denoise, latent: Tensor, grid: Grid, close_step: Callable[[], None] = lambda: None) -> Tensor:
    """DDIM inversion of `latent` [B, C, H, W] (the model's scaled space) along `grid`.

    `close_step()` follows every step. Returns x at every grid point, [N + 1, B, C, H, W] on the CPU.
    """
    x = latent * vp_scale(grid.sigmas[0])
    points = [x.cpu()]
    for i in range(grid.steps):
        x = invert_step(denoise, x, grid.sigmas[i], grid.sigmas[i + 1])
        points.append(x.cpu())
        close_step()
    return torch.stack(points)
