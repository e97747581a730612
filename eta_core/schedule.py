"""The time grid of an inversion: noise levels sigma and times t, from the image end to the noise end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from .ddim import SCALE, Frame, flow_sigma, flow_time


class Step(NamedTuple):
    """One step from the noise towards the image: from grid point `index` to `index - 1`."""

    index: int
    sigma: float
    sigma_next: float
    time: float


@dataclass(frozen=True)
class Grid:
    """N + 1 noise levels, ascending from the image end, and their times in 0..1: t / (T - 1), of a flow model tau.

    Raises ValueError unless there are two levels or more, finite, not negative and strictly ascending.
    """

    sigmas: tuple[float, ...]
    times: tuple[float, ...]
    frame: Frame = "diffusion"

    def __post_init__(self):
        if len(self.sigmas) < 2 or len(self.sigmas) != len(self.times):
            raise ValueError(
                f"a grid needs at least 2 noise levels with one time each, got {len(self.sigmas)} levels and {len(self.times)} times"
            )
        if not all(map(math.isfinite, self.sigmas + self.times)) or self.sigmas[0] < 0:
            raise ValueError(f"noise levels must be finite and not negative, got {self.sigmas}")
        for i, (low, high) in enumerate(pairwise(self.sigmas)):
            if high <= low:
                raise ValueError(
                    f"noise levels must ascend strictly from the image end: level {i} of {self.steps} is {low:g}, the next {high:g}; "
                    "use fewer steps, or another scheduler"
                )

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def scales(self) -> tuple[float, ...]:
        """x / z at every level: from the model's own latents z to x."""
        return tuple(map(SCALE[self.frame], self.sigmas))

    @property
    def model_sigmas(self) -> tuple[float, ...]:
        """The levels as the model counts them: a flow model's are its times tau."""
        return tuple(map(flow_time, self.sigmas)) if self.frame == "flow" else self.sigmas

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


NEAR_NOISE = 1 - 2**-10  # exact in float32, as is 1 minus it, by which the host scales


def flow_grid(descending: Sequence[float]) -> Grid:
    """The grid of a flow model's own schedule of times tau, noise end first.

    At tau = 1 no picture is left to play back from: the noise end stops just short of it.
    """
    taus = [float(tau) for tau in reversed(descending)]
    if len(taus) > 1 and taus[-1] >= 1.0:
        taus[-1] = max(NEAR_NOISE, (1 + taus[-2]) / 2)
    return Grid(tuple(map(flow_sigma, taus)), tuple(taus), "flow")


def ddim_grid(steps: int, table: Sequence[float]) -> Grid:
    """The DDIM grid of the paper's program: t = 1, 1 + T // N, ..., its image end the first training level, not 0.

    `table` holds the T training noise levels, ascending. Raises ValueError when T has no room for `steps` steps.
    """
    last = len(table) - 1
    if not 1 <= steps <= last:
        raise ValueError(f"steps = {steps}: the model has {len(table)} noise levels, use 1 to {last} steps")
    timesteps = [1 + i * (len(table) // steps) for i in range(steps)]
    return Grid(
        (float(table[0]), *(float(table[t]) for t in timesteps)), (0.0, *(t / last for t in timesteps))
    )
