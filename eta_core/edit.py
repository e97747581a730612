"""The backward pass: the noise that the source branch chooses, and the target branch that it steers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from .ddim import Denoise, eta_step, optimal_noise, split_noise
from .eta import EtaSchedule
from .noise import NoiseCandidates, blend, closest
from .schedule import Grid, Step


@dataclass(frozen=True)
class Steering:
    """How the fresh noise of each step is made.

    region: [B or 1, 1, H, W] in 0..1, multiplies eta per pixel; None is everywhere.
    choose_in_region: weigh the choice of the candidate by the region (False: the reference's choice, all pixels).
    """

    eta: EtaSchedule
    seed: int
    candidates: int = 10
    blend: float = 0.0
    region: Tensor | None = None
    choose_in_region: bool = True

    @property
    def reads_source(self) -> bool:
        return self.candidates > 1 or self.blend > 0.0

    def to(self, like: Tensor) -> Steering:
        """The same steering with its region on the device of `like`."""
        return self if self.region is None else replace(self, region=self.region.to(like))

    def acts(self, step: Step) -> bool:
        """Whether any pixel gets fresh noise at this step."""
        reaches = self.region is None or bool((self.region > 0).any())
        return reaches and step.sigma_next > 0 and self.eta(step.time) > 0


def source_steps(steering: Steering, grid: Grid) -> int:
    """At how many steps the source branch is evaluated: only where the choice of noise reads it."""
    return sum(steering.reads_source and steering.acts(step) for step in grid.downward())


def steer(
    denoise_source: Denoise | None, trajectory: Tensor, grid: Grid, steering: Steering
) -> Iterator[Tensor | None]:
    """The fresh noise of each sampling step [B, C, H, W], None where eta does not act (paper, algorithm 1).

    `denoise_source` may be None where source_steps is 0. The source branch stands on `trajectory` [N + 1, B, C, H, W] at every step, so it never drifts.
    """
    draws = NoiseCandidates(steering.seed, steering.candidates, tuple(trajectory.shape[2:]))
    for step in grid.downward():
        candidates = draws.draw()
        if not steering.acts(step):
            yield None
        elif not steering.reads_source:
            yield candidates[0].to(trajectory)
        else:
            yield _chosen(denoise_source, candidates, trajectory, step, steering)


def _chosen(denoise_source: Denoise, candidates: Tensor, trajectory: Tensor, step: Step, steering: Steering) -> Tensor:
    x, x_next = trajectory[step.index], trajectory[step.index - 1]
    down, up = split_noise(steering.eta(step.time), step.sigma, step.sigma_next)
    denoised = denoise_source(x, step.sigma).to(x)
    optimal = optimal_noise(x_next, x, denoised, step.sigma, down, up)
    noise = closest(candidates.to(x), optimal, steering.region if steering.choose_in_region else None)
    return blend(noise, optimal, steering.blend) if steering.blend else noise


def edit(
    denoise: Denoise,
    trajectory: Tensor,
    grid: Grid,
    steering: Steering,
    noises: Iterable[Tensor | None],
    lock: Tensor | None = None,
) -> Tensor:
    """The target branch, from the trajectory's noise end to x at the image end (paper, eq. 13).

    lock [B or 1, 1, H, W]: 1 = free, 0 = held on the source's trajectory at every step; None is free everywhere.
    """
    x = trajectory[-1]
    for step, noise in zip(grid.downward(), noises):
        denoised = denoise(x, step.sigma).to(x)
        eta, region = (0.0, None) if noise is None else (steering.eta(step.time), steering.region)
        down, up = split_noise(eta, step.sigma, step.sigma_next, region)
        x = eta_step(x, denoised, step.sigma, down, up, None if noise is None else noise.to(x))
        if lock is not None:
            x = trajectory[step.index - 1].lerp(x, lock.to(x).expand_as(x))
    return x
