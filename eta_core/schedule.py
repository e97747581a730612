"""The time grid of an inversion: noise levels sigma and times t, from the image end to the noise end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .frame import DIFFUSION, Flow, Frame

NEAR_NOISE = 1 - 2**-10  # float32 holds it and 1 minus it exactly; the host divides by the latter


@dataclass(frozen=True)
class Step:
    """One step from the noise towards the image: from grid point `index` to `index - 1`."""

    index: int
    sigma: float
    sigma_next: float
    time: float


@dataclass(frozen=True)
class Grid:
    """N + 1 noise levels sigma, ascending from the image end, and their times in 0..1 (Frame.time).

    Raises ValueError unless there are two levels or more, finite, not negative and strictly ascending.
    """

    sigmas: tuple[float, ...]
    times: tuple[float, ...]
    frame: Frame = DIFFUSION

    def __post_init__(self):
        if len(self.sigmas) < 2 or len(self.sigmas) != len(self.times):
            raise ValueError(
                f"a grid needs at least 2 noise levels with one time each, got {len(self.sigmas)} levels and "
                f"{len(self.times)} times"
            )
        if not all(map(math.isfinite, self.sigmas + self.times)) or self.sigmas[0] < 0:
            raise ValueError(f"noise levels must be finite and not negative, got {self.sigmas}")
        if not all(0 <= time <= 1 for time in self.times):
            raise ValueError(
                f"times run from 0 (image) to 1 (noise), got {min(self.times)} to {max(self.times)}"
            )
        for i, (low, high) in enumerate(pairwise(self.sigmas)):
            if high <= low:
                raise ValueError(
                    f"noise levels must ascend strictly from the image end: level {i} of {self.steps} is "
                    f"{low:g}, the next {high:g}; "
                    "use fewer steps, or another scheduler"
                )

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def scales(self) -> tuple[float, ...]:
        """x / z at every level: from the model's own latents z to x."""
        return tuple(self.frame.scale(sigma) for sigma in self.sigmas)

    @property
    def levels(self) -> tuple[float, ...]:
        """The noise levels as the model counts them: tau for a flow model."""
        return tuple(self.frame.level(sigma) for sigma in self.sigmas)

    def first_step(self, start: float) -> int:
        """The index of the point where an edit begins that starts at `start` of the way (1 = the noise end).

        N - int((1 - start) N), as edit-friendly inversion skips its first steps. Raises ValueError unless
        0 < start <= 1.
        """
        if not 0 < start <= 1:
            raise ValueError(f"start is {start:g}: it runs from above 0 to 1 (1 = from the noise end)")
        return self.steps - int(round((1 - start) * self.steps, 6))  # rounded, as 0.36 of 50 must be 18

    def downward(self, first: int | None = None) -> Iterator[Step]:
        """The steps of sampling, from the noise end, or from the grid point `first`, to the image end."""
        for i in range(self.steps if first is None else first, 0, -1):
            yield Step(i, self.sigmas[i], self.sigmas[i - 1], self.times[i])


def grid_from_levels(descending: Sequence[float], frame: Frame, table: Sequence[float]) -> Grid:
    """The grid of a sampler's own schedule: levels as the model counts them, noise end first.

    `table`: the model's training levels, ascending. At the noise itself (tau = 1) no picture is left to play
    back from, so the noise end of a flow model's grid stops just short of it.
    """
    levels = [float(level) for level in reversed(descending)]
    if isinstance(frame, Flow) and len(levels) > 1 and levels[-1] >= 1.0:
        levels[-1] = max(NEAR_NOISE, (1 + levels[-2]) / 2)
    sigmas = tuple(frame.sigma(level) for level in levels)
    return Grid(sigmas, tuple(frame.time(level, table) for level in levels), frame)


def ddim_grid(steps: int, table: Sequence[float]) -> Grid:
    """The DDIM grid of the paper's program: t = 1, 1 + T // N, ... Its image end is the first level, not 0.

    `table`: the T training noise levels, ascending. Raises ValueError when T has no room for `steps` steps.
    """
    last = len(table) - 1
    if not 1 <= steps <= last:
        raise ValueError(f"steps = {steps}: the model has {len(table)} noise levels, use 1 to {last} steps")
    timesteps = [1 + i * (len(table) // steps) for i in range(steps)]
    return Grid(
        (float(table[0]), *(float(table[t]) for t in timesteps)), (0.0, *(t / last for t in timesteps))
    )
