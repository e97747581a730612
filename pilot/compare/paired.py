"""Whether two series of the same items differ by more than chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES, SEED = 9999, 0
LEVEL = 0.05


@dataclass(frozen=True)
class Interval:
    """A mean, or median, of `count` values, and its interval; nan where there are too few for one."""

    middle: float
    low: float
    high: float
    count: int

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference(Interval):
    """The middle of paired differences. p: how likely one as large is where there is none."""

    p: float

    def is_real(self, level: float = LEVEL) -> bool:
        """The interval leaves 0 out, and the exact test agrees: with a few items the interval alone is too
        narrow.
        """
        return self.p < level and (self.low > 0 or self.high < 0)


def share(passed: Sequence[float], level: float = LEVEL) -> Interval:
    """The share of ones among zeros and ones, with Wilson's interval."""
    count = len(passed)
    if not count:
        return Interval(math.nan, math.nan, math.nan, 0)
    found = stats.binomtest(int(sum(passed)), count).proportion_ci(1 - level, "wilson")
    return Interval(sum(passed) / count, found.low, found.high, count)


def middle(values: Sequence[float], median: bool = False, level: float = LEVEL) -> Interval:
    """The mean or the median of values, with a bootstrap interval."""
    if not len(values):
        return Interval(math.nan, math.nan, math.nan, 0)
    found = np.asarray(values, float)
    return Interval(float(_of(median)(found)), *_bootstrap(found, median, level), len(values))


def share_difference(ones: Sequence[float], others: Sequence[float], level: float = LEVEL) -> Difference:
    """The first share minus the second, on the same items.

    Interval: Bonett and Price 2012, which also says how little a few items without any difference prove. p:
    the exact McNemar test.
    """
    count = len(ones)
    if not count:
        return Difference(math.nan, math.nan, math.nan, 0, math.nan)
    won = sum(one > other for one, other in zip(ones, others))
    lost = sum(one < other for one, other in zip(ones, others))
    p_won, p_lost = (won + 1) / (count + 2), (lost + 1) / (count + 2)
    z = NormalDist().inv_cdf(1 - level / 2)
    half = z * math.sqrt((p_won + p_lost - (p_won - p_lost) ** 2) / (count + 2))
    low, high = p_won - p_lost - half, p_won - p_lost + half
    return Difference((won - lost) / count, max(low, -1.0), min(high, 1.0), count, _sign_test(won, lost))


def middle_difference(
    ones: Sequence[float], others: Sequence[float], median: bool = False, level: float = LEVEL
) -> Difference:
    """The mean or the median of the first minus the second on the same items.

    Interval: bootstrap over the items. p: for the mean, the test that changes the differences' signs, exact
    for up to 13 items; for the median, the sign test.
    """
    steps = np.asarray(ones, float) - np.asarray(others, float)
    if not len(steps):
        return Difference(math.nan, math.nan, math.nan, 0, math.nan)
    low, high = _bootstrap(steps, median, level)
    p = _sign_test(int((steps > 0).sum()), int((steps < 0).sum())) if median else _change_signs(steps)
    return Difference(float(_of(median)(steps)), low, high, len(steps), p)


def _sign_test(won: int, lost: int) -> float:
    return float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0


def _change_signs(steps: np.ndarray) -> float:
    if len(steps) < 2 or not steps.any():
        return 1.0
    found = stats.permutation_test(
        (steps,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, batch=1000, **_draw()
    )
    return float(found.pvalue)


def _bootstrap(values: np.ndarray, median: bool, level: float) -> tuple[float, float]:
    if len(values) < 2:
        return math.nan, math.nan
    of, how = _of(median), {"method": "percentile", "n_resamples": RESAMPLES, "batch": 1000}
    found = stats.bootstrap((values,), of, confidence_level=1 - level, **how, **_draw()).confidence_interval
    return float(found.low), float(found.high)


def _of(median: bool) -> Callable:
    return np.median if median else np.mean


def _draw() -> dict[str, Any]:
    """A fixed draw, by a name that scipy knows before 1.15 as well as since."""
    return {"random_state": np.random.default_rng(SEED)}
