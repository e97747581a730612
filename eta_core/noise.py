"""The fresh noise of each sampling step: where it comes from, and how a candidate is chosen."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .ddim import ancestral_step, eta_step, optimal_noise
from .eta import EtaSchedule
from .masks import tile_batch
from .schedule import Step


@dataclass(frozen=True)
class NoiseSettings:
    """What a user sets about the fresh noise.

    eta: the noise's strength over time. seeds: one variant of the result for each. candidates: noises drawn a
    step, of which the nearest to the optimal one is taken (paper: 10). blend: share of the optimal noise
    mixed in, 0..1. region: [B or 1, 1, H, W], multiplies eta per pixel; None is everywhere. choose_in_region:
    weigh the choice of the candidate by the region (False: by all pixels, as the paper's program does).
    Raises ValueError where eta times region exceeds 1.
    """

    eta: EtaSchedule
    seeds: tuple[int, ...]
    candidates: int = 10
    blend: float = 0.0
    region: Tensor | None = None
    choose_in_region: bool = True

    def __post_init__(self):
        most = 1.0 if self.region is None else float(self.region.max())
        peak = max(eta for _, eta in self.eta.points)
        if most * peak > 1 + 1e-5:  # shares of regions add up to 1 only up to rounding
            raise ValueError(
                f"eta reaches {peak:g} and a region scales it by {most:g}: the product must stay within 1; "
                "lower "
                "eta_scale or the schedule"
            )

    def to(self, like: Tensor) -> NoiseSettings:
        """The same settings with the region on the device of `like`."""
        return self if self.region is None else replace(self, region=self.region.to(like))

    def acts(self, step: Step) -> bool:
        """Whether any pixel gets fresh noise at this step."""
        reaches = self.region is None or bool((self.region > 0).any())
        return reaches and step.sigma_next > 0 and self.eta(step.time) > 0


class Renewal(NamedTuple):
    """A step's sigma_down and sigma_up (see ddim.ancestral_step), and its noise [V * B, C, H, W] or None."""

    sigma_down: Tensor | float
    sigma_up: Tensor | float
    noise: Tensor | None


class FreshNoise(ABC):
    """A source of fresh noise for one sampling of a trajectory [N + 1, B, C, H, W].

    A seed's noise does not depend on where eta acts: what is not used is passed over. One variant's
    candidates are in memory at a time.
    """

    def __init__(self, settings: NoiseSettings, trajectory: Tensor):
        self.settings, self.trajectory = settings.to(trajectory), trajectory
        shape = tuple(trajectory.shape[2:])
        self._draws = [NoiseCandidates(seed, settings.candidates, shape) for seed in settings.seeds]
        self.rows = len(settings.seeds) * trajectory.shape[1]

    def act_in(self, region: Tensor | None) -> None:
        """From here on eta is multiplied by another region; see NoiseSettings."""
        self.settings = replace(self.settings, region=region).to(self.trajectory)

    @abstractmethod
    def reads_source(self, step: Step) -> bool:
        """Whether `renewal` needs the denoised source at this step."""

    @abstractmethod
    def renewal(self, step: Step, source: Tensor | None) -> Renewal:
        """The noise of the next step. source: the denoised source [B, C, H, W], where it is needed."""

    def take(self, step: Step, x: Tensor, target: Tensor, source: Tensor | None) -> Tensor:
        """x [V * B, C, H, W] after the step. target: the denoised x; source: as for `renewal`."""
        return eta_step(x, target, step.sigma, *self.renewal(step, source))

    def _pass_over(self) -> None:
        """The noise of a step in which eta does not act."""
        for draws in self._draws:
            draws.pass_over()

    def _chosen(self, optimal: Tensor | None) -> Tensor:
        """The noise of every variant, one after the other [V * B, C, H, W] (paper, eq. 11 and 12)."""
        return torch.cat([self._choose(draws.draw().to(self.trajectory), optimal) for draws in self._draws])

    def _choose(self, candidates: Tensor, optimal: Tensor | None) -> Tensor:
        if optimal is None:
            return candidates[0].expand(self.trajectory.shape[1:])
        settings = self.settings
        noise = closest(candidates, optimal, settings.region if settings.choose_in_region else None)
        return blend(noise, optimal, settings.blend) if settings.blend else noise

    def _optimal(self, step: Step, source: Tensor | None, down: Tensor | float, up: Tensor | float) -> Tensor:
        """The noise that takes the source branch to its next point (paper, eq. 11), [B, C, H, W]."""
        if source is None:
            raise ValueError(f"step {step.index} needs the denoised source")
        x, x_next = self.trajectory[step.index], self.trajectory[step.index - 1]
        return optimal_noise(x_next, x, source.to(x), step.sigma, down, up)


class EtaNoise(FreshNoise):
    """The paper's noise: eta says how much of the predicted noise is replaced (eq. 9 to 13).

    A candidate is chosen by the source's prediction that follows from the trajectory: the one that leads from
    a step's point to the next. So the network is asked for the source only where the optimal noise itself is
    mixed in.
    """

    def reads_source(self, step: Step) -> bool:
        return self.settings.blend > 0.0 and self.settings.acts(step)

    def _denoised(self, step: Step, source: Tensor | None) -> Tensor | None:
        """The denoised source by which a step's noise is chosen."""
        if self.settings.blend > 0.0:
            return source
        x, x_next = self.trajectory[step.index], self.trajectory[step.index - 1]
        return x - step.sigma / (step.sigma - step.sigma_next) * (x - x_next)

    def _chooses(self, step: Step) -> bool:
        """Whether the noise of a step depends on the source."""
        settings = self.settings
        return (settings.candidates > 1 or settings.blend > 0.0) and settings.acts(step)

    def renewal(self, step: Step, source: Tensor | None) -> Renewal:
        settings = self.settings
        if not settings.acts(step):
            self._pass_over()
            return Renewal(step.sigma_next, 0.0, None)
        eta, optimal = settings.eta(step.time), None
        if self._chooses(step):
            down, up = ancestral_step(eta, step.sigma, step.sigma_next)
            optimal = self._optimal(step, self._denoised(step, source), down, up)
        region = None if settings.region is None else tile_batch(settings.region, self.rows)
        down, up = ancestral_step(eta, step.sigma, step.sigma_next, region)
        return Renewal(down, up, self._chosen(optimal))

    def take(self, step: Step, x: Tensor, target: Tensor, source: Tensor | None) -> Tensor:
        down, up, noise = self.renewal(step, source)
        if noise is not None and self.settings.blend > 0:
            region = None if self.settings.region is None else tile_batch(self.settings.region, self.rows)
            down = balanced(down, up, (x - target) / step.sigma, noise, region)
        return eta_step(x, target, step.sigma, down, up, noise)


class ReferenceEtaNoise(EtaNoise):
    """The same as the paper authors' program has it: the network is asked for the source wherever noise is
    chosen.
    """

    def reads_source(self, step: Step) -> bool:
        return self._chooses(step)

    def _denoised(self, step: Step, source: Tensor | None) -> Tensor | None:
        return source


class RecordedNoise(FreshNoise):
    """The noise that edit-friendly inversion recorded (Huberman-Spiegelglas et al. 2024, eq. 5).

    Each step puts the source's own noise back, and eta says how much of that noise fresh noise replaces.
    """

    def reads_source(self, step: Step) -> bool:
        return True

    def renewal(self, step: Step, source: Tensor | None) -> Renewal:
        settings = self.settings
        if step.sigma_next == 0:
            # The last step has no noise to put back. The source's own remainder x - x0 takes its place.
            if source is None:
                raise ValueError(f"step {step.index} needs the denoised source")
            remainder = self.trajectory[step.index - 1] - source.to(self.trajectory)
            return Renewal(0.0, 1.0, tile_batch(remainder, self.rows))
        down, up = ancestral_step(1.0, step.sigma, step.sigma_next)
        optimal = self._optimal(step, source, down, up)
        recorded = tile_batch(optimal, self.rows)
        if not settings.acts(step):
            self._pass_over()
            return Renewal(down, up, recorded)
        renewed = settings.eta(step.time) * torch.ones_like(recorded[:, :1])
        if settings.region is not None:
            renewed = renewed * tile_batch(settings.region, self.rows)
        kept = torch.sqrt((1 - renewed * renewed).clamp(min=0))  # so that the mixture has unit variance
        return Renewal(down, up, kept * recorded + renewed * self._chosen(optimal))


class ReferenceRecordedNoise(RecordedNoise):
    """The same as the paper authors' program has it: the noise of the last step is zero."""

    def renewal(self, step: Step, source: Tensor | None) -> Renewal:
        down, up, noise = super().renewal(step, source)
        return Renewal(down, up, None if step.index == 1 else noise)


class NoiseCandidates:
    """`count` candidates a step from one CPU generator, so that a seed means the same noise on every device.

    Every picture of a batch chooses among the same candidates: picture i of a batch equals that picture
    alone. Raises ValueError for a count below 1.
    """

    def __init__(self, seed: int, count: int, shape: tuple[int, ...]):
        if count < 1:
            raise ValueError(f"noise_candidates = {count}: at least 1 is needed (the paper uses 10)")
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._shape, self._passed = (count, 1, *shape), 0

    def draw(self) -> Tensor:
        """[count, 1, *shape], standard normal."""
        for _ in range(self._passed):
            torch.randn(self._shape, generator=self._generator)
        self._passed = 0
        return torch.randn(self._shape, generator=self._generator)

    def pass_over(self) -> None:
        """Leave a draw out. It is made up for only where another follows."""
        self._passed += 1


def closest(candidates: Tensor, target: Tensor, region: Tensor | None = None) -> Tensor:
    """For each picture the candidate of least mean squared distance to `target` (paper, eq. 12).

    candidates [n, 1, C, H, W], target [B, C, H, W], region broadcastable to target: weights of the mean.
    """
    weight = 1.0 if region is None else region
    # One candidate at a time: all at once would take n times the memory.
    distances = [((noise - target).square() * weight).flatten(1).mean(-1) for noise in candidates.unbind()]
    return candidates[torch.stack(distances).argmin(0), 0]


def blend(noise: Tensor, optimal: Tensor, amount: float) -> Tensor:
    """sqrt(1 - l^2) noise + l optimal, with the optimal noise scaled to unit variance in each picture.

    Raises ValueError for an amount l outside 0..1.
    """
    if not 0.0 <= amount <= 1.0:
        raise ValueError(
            f"noise_blend = {amount}: it runs from 0 (the paper's noise) to 1 (the source's own)"
        )
    deviation = optimal.flatten(1).std(1).clamp(min=1e-12).view(-1, *[1] * (optimal.ndim - 1))
    return math.sqrt(1.0 - amount * amount) * noise + amount * optimal / deviation


def balanced(
    down: Tensor | float, up: Tensor | float, predicted: Tensor, noise: Tensor, region: Tensor | None
) -> Tensor:
    """sigma_down, lowered so that predicted and fresh noise together have the step's noise level.

    Random noise is independent of the predicted noise eps, so their variances add up. The optimal noise is
    not: the trajectory follows the predictions, and eq. 11 then points along eps. Their sum would have too
    much noise, which the network takes for texture, step after step. With c = mean(eps n) the variances are
    balanced by down'^2 mean(eps^2) + 2 down' up c = down^2 mean(eps^2).

    predicted, noise [B, C, H, W]; the means are over each picture, weighted by `region` [B, 1, H, W].
    [B, 1 or C, H, W].
    """
    weight = torch.ones_like(predicted[:, :1]) if region is None else region
    total = weight.expand_as(predicted).flatten(1).sum(1).clamp(min=1e-12)

    def mean(values: Tensor) -> Tensor:
        return ((values * weight).flatten(1).sum(1) / total).view(-1, *[1] * (values.ndim - 1))

    power, shared = mean(predicted * predicted).clamp(min=1e-12), mean(predicted * noise) * up
    return (torch.sqrt(shared * shared + (down * power) ** 2) - shared) / power
