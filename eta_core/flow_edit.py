"""Editing without an inversion: FlowEdit (Kulikov et al. 2024, arXiv 2412.08629).

The source is noised at every level, and the target is kept apart from it by what has been edited so far, the
delta. Where the network finds another picture in the one than in the other, the delta grows:

    delta' = s delta + (1 - s) (denoised target - denoised source),  s = level' / level

This is FlowEdit's step of z_edit = source + delta, with v = (z - denoised) / tau. On a diffusion model it is
the same step of x along the difference of the predicted noises.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .edit import Predict
from .eta import EtaSchedule
from .hold import NO_HOLD, Hold, step_share
from .schedule import Grid


def noised_path(latent: Tensor, grid: Grid, eta: EtaSchedule, seed: int) -> Tensor:
    """The source at every level of the grid, [N + 1, B, C, H, W] on the CPU.

    eta: how much of the noise each step renews, by its time; 1 everywhere is FlowEdit's fresh noise, 0 one
    noise for all steps. All pictures of a batch get the same.
    """
    generator = torch.Generator("cpu").manual_seed(seed)

    def drawn() -> Tensor:
        return torch.randn((1, *latent.shape[1:]), generator=generator)

    latent, noise = latent.cpu(), drawn()
    points = []
    for sigma, time in zip(reversed(grid.sigmas), reversed(grid.times)):
        points.append(latent + sigma * noise)
        renewed = eta(time)
        noise = math.sqrt(1 - renewed * renewed) * noise + renewed * drawn()
    points[-1] = latent * grid.scales[0]  # the image end is the picture itself
    return torch.stack(points[::-1])


def sample_delta(
    predict: Predict, path: Tensor, grid: Grid, hold: Hold = NO_HOLD, first: int | None = None
) -> Tensor:
    """The edited latent [B, C, H, W] in the model's own space.

    predict: as sample_target's; it is given points of `path`, see `noised_path`, for the source. first: the
    grid point where the edit begins, None for the noise end.
    """
    frame, levels, steps = grid.frame, grid.levels, grid.steps if first is None else first
    source = path[0] / grid.scales[0]
    edited = source
    for step in grid.downward(steps):
        noised = path[step.index]
        found = predict(step, noised, frame.shifted(noised, edited - source, step.sigma), True)
        if found.source is None:
            raise RuntimeError("the source was not predicted, though every step asks for it")
        hold = hold if found.limits is None else found.limits.hold
        left = levels[step.index - 1] / levels[step.index] if step.index > 1 else 0.0
        edited = source + left * (edited - source) + (1 - left) * (found.target - found.source).to(source)
        edited = hold.apply(edited, source, step_share(step.index - 1, steps), found.blends)
    return edited
