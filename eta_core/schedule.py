"""The time grid of an inversion: noise levels sigma and times t, from the image end to the noise end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np


class Step(NamedTuple):
    """One step from the noise towards the image: from grid point `index` to `index - 1`."""

    index: int
    sigma: float
    sigma_next: float
    time: float


@dataclass(frozen=True)
class Grid:
    """N + 1 noise levels, ascending from the image end, and their times t / (T - 1) in 0..1.

    Raises ValueError unless there are two levels or more, finite, not negative and strictly ascending.
    """

    sigmas: tuple[float, ...]
    times: tuple[float, ...]

    def __post_init__(self):
        if len(self.sigmas) < 2 or len(self.sigmas) != len(self.times):
            raise ValueError(
                f"a grid needs at least 2 noise levels with one time each, got {len(self.sigmas)} levels and {len(self.times)} times"
            )
        if not all(map(math.isfinite, self.sigmas + self.times)) or self.sigmas[0] < 0:
            raise ValueError(f"noise levels must be finite and not negative, got {self.sigmas}")
        if any(high <= low for low, high in pairwise(self.sigmas)):
            raise ValueError(
                f"noise levels must ascend strictly from the image end, got {self.sigmas}; use fewer steps"
            )

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    def downward(self) -> Iterator[Step]:
        """The N steps of sampling, from the noise end to the image end."""
        for i in range(self.steps, 0, -1):
            yield Step(i, self.sigmas[i], self.sigmas[i - 1], self.times[i])


def time_of(sigma: float, table: Sequence[float]) -> float:
    """Time t / (T - 1) of a noise level, interpolated in log sigma between the T training levels of `table`."""
    if sigma <= 0:
        return 0.0
    t = np.interp(math.log(sigma), np.log(np.asarray(table, dtype=np.float64)), np.arange(len(table)))
    return float(t) / (len(table) - 1)


def grid_from_sigmas(descending: Sequence[float], table: Sequence[float]) -> Grid:
    """The grid of a sampler's own schedule (noise end first, as samplers take it)."""
    sigmas = tuple(float(s) for s in reversed(descending))
    return Grid(sigmas, tuple(time_of(s, table) for s in sigmas))


def ddim_grid(steps: int, table: Sequence[float]) -> Grid:
    """The DDIM grid of the paper's program: t = 1, 1 + T // N, ..., its image end the first training level, not 0.

    `table` holds the T training noise levels, ascending. Raises ValueError when T has no room for `steps` steps.
    """
    last = len(table) - 1
    if not 1 <= steps <= last:
        raise ValueError(f"steps = {steps}: the model has {len(table)} noise levels, use 1 to {last} steps")
    timesteps = [1 + i * (len(table) // steps) for i in range(steps)]
    return Grid((float(table[0]), *(float(table[t]) for t in timesteps)), (0.0, *(t / last for t in timesteps)))
