"""eta(t): how much fresh noise a sampling step may bring in, as a function of time (paper, section 4.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

Interpolation = Literal["power", "cosine"]


def _check_points(points: tuple[tuple[float, float], ...]) -> None:
    if not points:
        raise ValueError("an eta curve needs at least one point t:eta")
    for t, eta in points:
        if not 0.0 <= t <= 1.0:
            raise ValueError(f"t = {t}: times run from 0 (image) to 1 (noise)")
        if not 0.0 <= eta <= 1.0:
            raise ValueError(f"eta = {eta} at t = {t}: eta runs from 0 (no fresh noise) to 1 (all of DDPM's)")
    if any(right[0] <= left[0] for left, right in pairwise(points)):
        raise ValueError(f"the times of an eta curve must ascend, got {', '.join(str(t) for t, _ in points)}")


@dataclass(frozen=True)
class EtaSchedule:
    """eta over time t / 999 in 0..1, through `points` ((t, eta), ...), constant outside them.

    Between two points: eta1 + (eta2 - eta1) u ** power, or a half cosine for shape "cosine"; u in 0..1.
    Raises ValueError for values outside 0..1, times that do not ascend, or a power that is not positive.
    """

    points: tuple[tuple[float, float], ...]
    power: float = 1.0
    shape: Interpolation = "power"

    def __post_init__(self):
        _check_points(self.points)
        if not (math.isfinite(self.power) and self.power > 0):
            raise ValueError(f"power = {self.power}: it must be above 0 (1 = straight line)")

    def __call__(self, time: float) -> float:
        times, etas = zip(*self.points)
        if time <= times[0]:
            return etas[0]
        if time >= times[-1]:
            return etas[-1]
        k = int(np.searchsorted(times, time, side="right")) - 1
        u = (time - times[k]) / (times[k + 1] - times[k])
        weight = u**self.power if self.shape == "power" else (1 - math.cos(math.pi * u)) / 2
        return etas[k] + (etas[k + 1] - etas[k]) * weight


def paper_strong() -> EtaSchedule:
    """The paper's setting for changes of shape: (0.6, 0) -> (1, 0.7)."""
    return EtaSchedule(((0.6, 0.0), (1.0, 0.7)))


def paper_gentle() -> EtaSchedule:
    """The paper's setting for changes of look: (0.3, 0) -> (1, 0.2)."""
    return EtaSchedule(((0.3, 0.0), (1.0, 0.2)))


# times of SD1's schedule -> the flow's time tau of the same noise, tau / (1 - tau) = sigma
FLOW_TIMES = {
    0.3: 0.454,
    0.4: 0.538,
    0.5: 0.618,
    0.6: 0.695,
    0.7: 0.769,
    0.8: 0.836,
    0.9: 0.893,
    1.0: 0.936,
}


def at_flow_times(eta: EtaSchedule) -> EtaSchedule:
    """A curve that was made for SD1's times, at the flow's times of the same noise."""
    first = eta.points[0][0]
    return EtaSchedule(tuple((tau, round(eta(t), 4)) for t, tau in FLOW_TIMES.items() if t >= first))


def flow_strong() -> EtaSchedule:
    """paper_strong for flow models: 0 up to tau 0.695, 0.7 from 0.936 on."""
    return at_flow_times(paper_strong())


def flow_gentle() -> EtaSchedule:
    """paper_gentle for flow models: 0 up to tau 0.454, 0.2 from 0.936 on."""
    return at_flow_times(paper_gentle())


def parse_curve(text: str) -> tuple[tuple[float, float], ...]:
    """Points from text such as "0.6:0, 1:0.7" (t:eta, separated by commas, semicolons or line ends)."""
    points = []
    for part in filter(None, (p.strip() for p in text.replace("\n", ",").replace(";", ",").split(","))):
        try:
            t, eta = (float(number) for number in part.split(":"))
        except ValueError:
            raise ValueError(
                f"curve point '{part}' is not of the form t:eta; write for example 0.6:0, 1:0.7"
            ) from None
        points.append((t, eta))
    return tuple(points)
