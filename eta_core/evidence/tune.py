"""A search for the eta curve that edits the most while the background keeps a limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal
from torch.quasirandom import SobolEngine

from ..eta import EtaSchedule, paper_gentle, paper_strong

KNOTS = (0.0, 0.25, 0.5, 0.75, 1.0)  # times of the free curve
POOL = 512  # curves among which each next one is chosen
NEAR = 0.15  # how far from the best so far half of them lie, in the numbers that make a curve
LENGTHS = (0.1, 0.2, 0.4, 0.8)  # of the kernel, in eta
JITTER = 1e-4  # the figures' own noise, in parts of their variance
PROBES = (0.3, 0.5, 0.7)  # times at which a model says which prompt it sees


class Trial(NamedTuple):
    """A curve and what it gave: `edit`, more is better, and `background`, in dB."""

    schedule: EtaSchedule
    edit: float
    background: float


def _parametric(start: float, peak: float, power: float) -> EtaSchedule:
    """(start, 0) -> (1, peak); start 0..0.9, power 1/4..4, on a logarithmic scale with 1 in the middle."""
    return EtaSchedule(
        ((round(0.9 * start, 2), 0.0), (1.0, round(peak, 2))), round(20 * 4 ** (2 * power - 1)) / 20
    )


def _free(*etas: float) -> EtaSchedule:
    return EtaSchedule(tuple((t, round(eta, 2)) for t, eta in zip(KNOTS, etas)))


class CurveFamily(NamedTuple):
    """A family of curves to search: how numbers in 0..1 make one, and the numbers of the first ones to try.

    Values are rounded as people write them. The first curves: no noise, the paper's two settings, the most
    noise.
    """

    curve: Callable[..., EtaSchedule]
    first: tuple[tuple[float, ...], ...]


CURVES = {
    "start, peak, power": CurveFamily(
        _parametric, ((0.0, 0.0, 0.5), (0.3 / 0.9, 0.2, 0.5), (0.6 / 0.9, 0.7, 0.5), (0.0, 1.0, 0.0))
    ),
    "free": CurveFamily(
        _free,
        (
            (0.0,) * len(KNOTS),
            *(tuple(map(paper, KNOTS)) for paper in (paper_gentle(), paper_strong())),
            (1.0,) * len(KNOTS),
        ),
    ),
}


def search(
    measure: Callable[[EtaSchedule], tuple[float, float]], limit: float, shape: str, trials: int
) -> list[Trial]:
    """Try `trials` curves of a family of CURVES; returns them in order with what `measure` found for each.

    measure(curve): (edit, background in dB). After the family's first curves, each next one is chosen among
    POOL curves, half of them near the best so far: the one with the largest expected gain over the best curve
    that keeps `limit`, times the probability that it keeps it. This is constrained expected improvement
    (Gardner et al. 2014) over Gaussian processes of the curves' values. Raises ValueError for fewer trials
    than first curves.
    """
    curve, numbers = CURVES[shape].curve, list(CURVES[shape].first)
    if trials < len(numbers):
        raise ValueError(
            f"trials = {trials}: use at least {len(numbers)}, for no noise, the paper's two settings and the "
            "most noise"
        )
    found = [Trial(curve(*u), *measure(curve(*u))) for u in numbers]
    sobol, generator = SobolEngine(len(numbers[0]), scramble=True, seed=0), torch.Generator().manual_seed(0)
    while len(found) < trials:
        leader = best(found, limit) or max(found, key=lambda trial: trial.background)
        centre = torch.tensor(numbers[found.index(leader)])
        near = centre + NEAR * torch.randn(POOL // 2, len(centre), generator=generator)
        pool = torch.cat([sobol.draw(POOL // 2), near.clamp(0, 1)]).tolist()
        numbers.append(pool[int(_promise(found, _values([curve(*u) for u in pool]), limit).argmax())])
        found.append(Trial(curve(*numbers[-1]), *measure(curve(*numbers[-1]))))
    return found


def best(trials: Sequence[Trial], limit: float) -> Trial | None:
    """The trial with the most edit whose background keeps the limit; None where none does."""
    return max(
        (trial for trial in trials if trial.background >= limit), key=lambda trial: trial.edit, default=None
    )


def frontier(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that no other beats in both figures, the best background first."""
    kept: list[Trial] = []
    for trial in sorted(trials, key=lambda trial: (-trial.background, -trial.edit)):
        if not kept or trial.edit > kept[-1].edit:
            kept.append(trial)
    return kept


def _values(schedules: Sequence[EtaSchedule]) -> Tensor:
    """Curves as points [n, 9], eta at even times, so that curves of any shape can be compared."""
    return torch.tensor([[schedule(t / 8) for t in range(9)] for schedule in schedules], dtype=torch.float64)


def _promise(trials: Sequence[Trial], values: Tensor, limit: float) -> Tensor:
    """Constrained expected improvement at each of the curves `values`; -inf at those already tried."""
    at = _values([trial.schedule for trial in trials])
    edit, edit_spread = _posterior(
        at, torch.tensor([trial.edit for trial in trials], dtype=torch.float64), values
    )
    dB, dB_spread = _posterior(
        at, torch.tensor([trial.background for trial in trials], dtype=torch.float64), values
    )
    normal, chosen = Normal(0.0, 1.0), best(trials, limit)
    keeps = normal.cdf((dB - limit) / dB_spread)
    if chosen is None:
        promise = keeps
    else:
        z = (edit - chosen.edit) / edit_spread
        promise = keeps * edit_spread * (z * normal.cdf(z) + normal.log_prob(z).exp())
    # p = 1 is exact: the Euclidean distance of many points goes by a product of matrices, which leaves equal
    # ones apart
    return promise.masked_fill(torch.cdist(values, at, p=1).amin(1) < 1e-9, -math.inf)


def _posterior(at: Tensor, y: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of a Gaussian process through y at `at`, with the likeliest kernel length."""
    mean, deviation = y.mean(), y.std().clamp(min=1e-9)
    y = (y - mean) / deviation

    def fit(length: float):
        factor = torch.linalg.cholesky(_kernel(at, at, length) + JITTER * torch.eye(len(at), dtype=y.dtype))
        weights = torch.cholesky_solve(y[:, None], factor)[:, 0]
        return -0.5 * y @ weights - factor.diagonal().log().sum(), length, factor, weights

    _, length, factor, weights = max((fit(length) for length in LENGTHS), key=lambda found: found[0])
    across = _kernel(values, at, length)
    variance = 1 - (across * torch.cholesky_solve(across.T, factor).T).sum(1)
    return mean + deviation * (across @ weights), deviation * variance.clamp(min=1e-9).sqrt()


def _kernel(a: Tensor, b: Tensor, length: float) -> Tensor:
    """Matern 5/2 of the root mean square difference of two curves."""
    r = torch.cdist(a, b) / (length * math.sqrt(a.shape[1])) * math.sqrt(5)
    return (1 + r + r * r / 3) * torch.exp(-r)


def prefers_target(
    predict: Callable[[Tensor, float], tuple[Tensor, Tensor]],
    clean: Tensor,
    sigmas: Sequence[float],
    region: Tensor,
) -> Tensor:
    """How much more the model sees the target prompt than the source prompt in `clean`: [B] in -1..1.

    predict(x, sigma): x denoised under the source and under the target prompt. clean [B, C, H, W] gets noise
    of each of `sigmas`. The figure is the share by which the target's prediction of `clean` is nearer, inside
    `region` [1 or B, 1, H, W], averaged over `sigmas`: a diffusion classifier of two classes (Li et al. 2023,
    eq. 5). The noise is the same at every call.
    """
    generator, shares = torch.Generator().manual_seed(0), []
    for sigma in sigmas:
        x = clean + sigma * torch.randn(clean.shape[1:], generator=generator).to(clean)
        source, target = (
            ((found.to(clean) - clean).square() * region).sum((1, 2, 3)) for found in predict(x, sigma)
        )
        shares.append((source - target) / (source + target).clamp(min=1e-12))
    return torch.stack(shares).mean(0)
