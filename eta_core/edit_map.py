"""Where an edit acts: the target's predictions against the source's, along a stored trajectory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from .ddim import Denoise, stored_answer
from .trajectory import Trajectory

BothPrompts = Callable[[Tensor, float], Sequence[Tensor]]


def spread_steps(steps: int, count: int) -> list[int]:
    """`count` of the grid points 1 .. `steps`, evenly spread."""
    return [1 + (2 * i + 1) * steps // (2 * count) for i in range(count)]


def keeps_answers(trajectory: Trajectory) -> bool:
    """Whether the source's unguided predictions follow from the trajectory itself."""
    return trajectory.inverter in ("ddim", "negative_prompt") and trajectory.cfg == 1.0


def by_trajectory(trajectory: Trajectory, chosen: Iterable[int], target: Denoise) -> Tensor:
    """`difference_map` for the price of the target's calls: what the source predicted is known."""
    return difference_map(_pairs_of_trajectory(trajectory, chosen, target))


def by_both(trajectory: Trajectory, chosen: Iterable[int], predict: BothPrompts) -> Tensor:
    """`difference_map` where the source must be asked as well. predict(x, sigma): source's and target's."""
    grid = trajectory.grid
    return difference_map(predict(trajectory.x[i], grid.sigmas[i]) for i in chosen)


def _pairs_of_trajectory(
    trajectory: Trajectory, chosen: Iterable[int], target: Denoise
) -> Iterable[tuple[Tensor, Tensor]]:
    x, sigmas, frame = trajectory.x, trajectory.grid.sigmas, trajectory.grid.frame
    for i in chosen:
        seen, source = stored_answer(x[i - 1], x[i], sigmas[i - 1], sigmas[i], frame)
        yield source, target(seen, sigmas[i])


def difference_map(pairs: Iterable[Sequence[Tensor]]) -> Tensor:
    """[B, H, W] in 0..1 from pairs of denoised latents [B, C, H, W], one pair a noise level.

    The length of the difference over the channels (DiffEdit, arXiv 2210.11427; here without its random
    noises), each level's divided by its largest value; their mean, likewise divided.
    """
    levels = [_of_largest((target.to(source) - source).square().sum(1).sqrt()) for source, target in pairs]
    return _of_largest(torch.stack(levels).mean(0))


def _of_largest(values: Tensor) -> Tensor:
    return values / values.amax((-2, -1), keepdim=True).clamp(min=1e-12)
