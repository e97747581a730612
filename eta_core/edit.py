"""The backward pass: a source branch that chooses the fresh noise, and target branches that it steers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .ddim import eta_step, optimal_noise, split_noise
from .eta import EtaSchedule
from .masks import for_rows
from .noise import NoiseCandidates, blend, closest
from .schedule import Grid, Step

Predict = Callable[[Step, Tensor | None, Tensor], tuple[Tensor | None, Tensor]]


@dataclass(frozen=True)
class Steering:
    """How the fresh noise of each step is made.

    seeds: one variant of the result each. region: [B or 1, 1, H, W] in 0..1, multiplies eta per pixel; None is everywhere.
    choose_in_region: weigh the choice of the candidate by the region (False: the reference's choice, all pixels).
    recorded: the trajectory was drawn, not followed (edit-friendly inversion): each step's own noise is put back, and eta
    is how much of it is renewed.
    """

    eta: EtaSchedule
    seeds: tuple[int, ...]
    candidates: int = 10
    blend: float = 0.0
    region: Tensor | None = None
    choose_in_region: bool = True
    recorded: bool = False

    def __post_init__(self):
        most = 1.0 if self.region is None else float(self.region.max())
        if (
            most * max(eta for _, eta in self.eta.points) > 1 + 1e-5
        ):  # shares of regions add up to 1 only nearly
            raise ValueError(
                f"eta reaches {max(eta for _, eta in self.eta.points):g} and a region scales it by {most:g}: the product must stay "
                "within 1; lower eta_scale or the schedule"
            )

    def to(self, like: Tensor) -> Steering:
        """The same steering with its region on the device of `like`."""
        return self if self.region is None else replace(self, region=self.region.to(like))

    def acts(self, step: Step) -> bool:
        """Whether any pixel gets fresh noise at this step."""
        reaches = self.region is None or bool((self.region > 0).any())
        return reaches and step.sigma_next > 0 and self.eta(step.time) > 0

    def reads_source(self, step: Step) -> bool:
        """Whether the noise of this step depends on the source branch."""
        return self.recorded or self.acts(step) and (self.candidates > 1 or self.blend > 0.0)


def edit(
    predict: Predict,
    trajectory: Tensor,
    grid: Grid,
    steering: Steering,
    reads: Callable[[Step], bool] = lambda step: False,
    free: Callable[[Step], Iterable[Tensor]] = lambda step: (),
) -> Tensor:
    """The target branch, from the trajectory's noise end to x at the image end (paper, algorithm 1 and eq. 13).

    predict(step, source, x): the denoised source [B, C, H, W], or None where it was not asked for, and the denoised target
    [V * B, C, H, W], one variant of the batch after the other. The source branch stands on `trajectory` [N + 1, B, C, H, W]
    at every step, so it never drifts; it is evaluated where the noise or `reads` wants it. free(step): masks [B or 1, 1, H, W]
    to follow the step, 1 = free, 0 = held on the trajectory. Returns [V * B, C, H, W].
    """
    draws = [
        NoiseCandidates(seed, steering.candidates, tuple(trajectory.shape[2:])) for seed in steering.seeds
    ]
    rows = len(draws) * trajectory.shape[1]
    x = for_rows(trajectory[-1], rows)
    for step in grid.downward():
        wanted = steering.reads_source(step) or reads(step)
        source, denoised = predict(step, trajectory[step.index] if wanted else None, x)
        down, up, noise = _renewal([draw.draw() for draw in draws], source, trajectory, step, steering)
        x = eta_step(x, denoised.to(x), step.sigma, down, up, noise)
        for mask in free(step):
            held = for_rows(trajectory[step.index - 1], rows)
            x = held.lerp(x, for_rows(mask.to(x), rows).expand_as(x))
    return x


def _renewal(draws: list[Tensor], source: Tensor | None, trajectory: Tensor, step: Step, steering: Steering):
    """(sigma_down, sigma_up, noise) of a step; noise [V * B, C, H, W], None where none comes in."""
    acts, rows = steering.acts(step), len(draws) * trajectory.shape[1]
    if steering.recorded and step.sigma_next == 0:  # no noise can bring the source back: its remainder does
        return 0.0, 1.0, for_rows(trajectory[step.index - 1] - source.to(trajectory), rows)
    if not acts and not steering.recorded:
        return step.sigma_next, 0.0, None
    eta, optimal = steering.eta(step.time), None
    region = None if steering.region is None else for_rows(steering.region, rows)
    down, up = split_noise(1.0 if steering.recorded else eta, step.sigma, step.sigma_next)
    if steering.reads_source(step):
        x, x_next = trajectory[step.index], trajectory[step.index - 1]
        optimal = optimal_noise(x_next, x, source.to(x), step.sigma, down, up)
    if steering.recorded and not acts:
        return down, up, for_rows(optimal, rows)
    noise = torch.cat(
        [_chosen(candidates.to(trajectory), optimal, trajectory, steering) for candidates in draws]
    )
    if steering.recorded:
        renewed = torch.full_like(noise[:, :1], eta) if region is None else eta * region
        return (
            down,
            up,
            torch.sqrt((1 - renewed * renewed).clamp(min=0)) * for_rows(optimal, rows) + renewed * noise,
        )
    return *split_noise(eta, step.sigma, step.sigma_next, region), noise


def _chosen(candidates: Tensor, optimal: Tensor | None, trajectory: Tensor, steering: Steering) -> Tensor:
    """The noise of one variant [B, C, H, W] (paper, eq. 11 and 12)."""
    if optimal is None:
        return candidates[0].expand(trajectory.shape[1:])
    noise = closest(candidates, optimal, steering.region if steering.choose_in_region else None)
    return blend(noise, optimal, steering.blend) if steering.blend else noise
