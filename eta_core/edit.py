"""The backward pass: the target is sampled beside a source branch that stays on its trajectory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from .area import Limits
from .hold import NO_HOLD, Hold, step_share
from .masks import tile_batch
from .noise import FreshNoise
from .schedule import Grid, Step


class Prediction(NamedTuple):
    """What the network found at one step.

    source: the denoised source [B, C, H, W], or None where it was not needed. target: the denoised target
    [V * B, C, H, W], one variant of the batch after the other. blends: the local blends' hold masks, read
    from this step's attention. limits: the edit's from this step on, None where they stay.
    """

    source: Tensor | None
    target: Tensor
    blends: tuple[Tensor, ...] = ()
    limits: Limits | None = None


Predict = Callable[[Step, Tensor, Tensor, bool], Prediction]


def sample_target(
    predict: Predict, grid: Grid, noise: FreshNoise, hold: Hold = NO_HOLD, first: int | None = None
) -> Tensor:
    """Sample the target from the trajectory's noise end to its image end (paper, algorithm 1 and eq. 13).

    predict(step, source, x, needs_source): the network's answer at a step. `source` is the trajectory's own
    point of that step [B, C, H, W], so the source branch never drifts. It need be evaluated only where
    `needs_source` says so. first: the grid point where sampling begins, None for the noise end. Returns x at
    the image end [V * B, C, H, W], one variant for each seed of `noise`.
    """
    trajectory, steps = noise.trajectory, grid.steps if first is None else first
    x = tile_batch(trajectory[steps], noise.rows)
    for step in grid.downward(steps):
        found = predict(step, trajectory[step.index], x, noise.reads_source(step))
        if found.limits is not None:
            noise.act_in(found.limits.region)
            hold = found.limits.hold
        x = noise.take(step, x, found.target.to(x), found.source)
        x = hold.apply(x, trajectory[step.index - 1], step_share(step.index - 1, steps), found.blends)
    return x
