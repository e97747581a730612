"""Policies: how far a picture may change before somebody must look at it, or before it is thrown away."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..plain_json import read_json
from .metrics import METRICS
from .report import Report

VERDICTS = ("pass", "review", "reject")  # from good to bad


@dataclass(frozen=True)
class Range:
    """Values from `low` to `high`, both included."""

    low: float = -math.inf
    high: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def holds(self, other: Range) -> bool:
        return self.low <= other.low and other.high <= self.high

    def __str__(self) -> str:
        ends = (("at least", self.low), ("at most", self.high))
        return " and ".join(f"{word} {end:g}" for word, end in ends if math.isfinite(end))


@dataclass(frozen=True)
class Limits:
    """The values of a metric that pass, and the wider ones that a person must look at; all others are
    rejected.
    """

    ok: Range
    review: Range

    def verdict(self, value: float) -> str:
        return "pass" if value in self.ok else "review" if value in self.review else "reject"


Policy = Mapping[str, Limits]


def _at_least(ok: float, review: float) -> Limits:
    return Limits(Range(low=ok), Range(low=review))


def _at_most(ok: float, review: float) -> Limits:
    return Limits(Range(high=ok), Range(high=review))


NOTHING_HAPPENED = Limits(Range(low=0.1), Range(low=0))  # less than one pixel in a thousand has changed
POLICIES: dict[str, Policy] = {
    # Everything outside the mask is the picture's own: less than saving it as a JPEG of quality 95 once more
    # takes away; a person looks at what loses about as much as that. A VAE's round trip does not pass: paste
    # the picture back.
    "catalogue-strict": {
        "background_psnr": _at_least(40, 36),
        "background_mean_difference": _at_most(1, 2),
        "background_changed_area": _at_most(0.5, 3),
        "changed_area": NOTHING_HAPPENED,
    },
    # The background may lose what a VAE loses, not what makes it another background.
    "advertising": {
        "background_psnr": _at_least(25, 21),
        "background_ms_ssim": _at_least(0.9, 0.7),
        "background_mean_difference": _at_most(4, 8),
        "changed_area": NOTHING_HAPPENED,
    },
    # A feed shows it small and compresses it again: light and fine detail of the background may change, what
    # it shows may not. Below 20 dB a change is seen even on a telephone.
    "social": {
        "background_psnr": _at_least(20, 17),
        "background_ms_ssim": _at_least(0.8, 0.6),
        "background_mean_difference": _at_most(6, 12),
        "changed_area": NOTHING_HAPPENED,
    },
    # Colleagues look at the idea: the same scene, told at a glance, is enough.
    "internal-draft": {
        "background_psnr": _at_least(17, 13),
        "background_ms_ssim": _at_least(0.6, 0.4),
        "changed_area": NOTHING_HAPPENED,
    },
    # Only what is no edit any more: two unrelated photographs are 8 to 11 dB apart.
    "free": {"background_psnr": _at_least(15, 11), "changed_area": NOTHING_HAPPENED},
}


def parse_policy(text: str) -> Policy:
    """A policy from JSON: {"background_psnr": {"pass": {"min": 30}, "review": {"min": 25}}, ...}.

    Either end of a range may be left out. Without "review" everything that does not pass is rejected. Raises
    ValueError for other JSON, for unknown metrics, and for limits that contradict each other.
    """
    try:
        found = read_json(text, "the policy")
    except ValueError as error:
        raise ValueError(f"{error}; {EXAMPLE}") from None
    if not isinstance(found, dict) or not found:
        raise ValueError(f"the policy limits nothing: name at least one metric, {EXAMPLE}")
    unknown = [name for name in found if name not in METRICS]
    if unknown:
        raise ValueError(
            f"the policy limits {', '.join(unknown)[:120]}, which is no metric: the metrics are "
            f"{', '.join(METRICS)}"
        )
    return {name: _limits(name, limits) for name, limits in found.items()}


def to_json(policy: Policy) -> dict[str, dict[str, dict[str, float]]]:
    """What parse_policy reads, as an object; `review` is left out where it is no wider than `pass`."""
    return {
        name: {"pass": _ends(limits.ok)}
        | ({"review": _ends(limits.review)} if limits.review != limits.ok else {})
        for name, limits in policy.items()
    }


def _ends(found: Range) -> dict[str, float]:
    return {name: end for name, end in (("min", found.low), ("max", found.high)) if math.isfinite(end)}


EXAMPLE = 'write it like {"background_psnr": {"pass": {"min": 30}, "review": {"min": 25}}}'


def _limits(name: str, limits: object) -> Limits:
    if not isinstance(limits, dict) or not {"pass"} <= set(limits) <= {"pass", "review"}:
        raise ValueError(
            f'the policy\'s {name} is {json.dumps(limits)[:120]}: it needs "pass" and may have '
            f'"review"; {EXAMPLE}'
        )
    ok = _range(f"{name}, pass", limits["pass"])
    review = _range(f"{name}, review", limits["review"]) if "review" in limits else ok
    if not review.holds(ok):
        raise ValueError(
            f"the policy contradicts itself: {name} must be {ok} to pass, but {review} for review; "
            "review must be the wider of the two"
        )
    return Limits(ok, review)


def _range(where: str, ends: object) -> Range:
    if not isinstance(ends, dict) or not ends or not set(ends) <= {"min", "max"}:
        raise ValueError(
            f'the policy\'s {where} is {json.dumps(ends)[:120]}: it takes "min", "max" or both; {EXAMPLE}'
        )
    for end in ends.values():
        if isinstance(end, bool) or not isinstance(end, (int, float)) or not math.isfinite(end):
            raise ValueError(
                f"the policy's {where} has the limit {json.dumps(end)[:120]}: limits are numbers"
            )
    found = Range(ends.get("min", -math.inf), ends.get("max", math.inf))
    if found.low > found.high:
        raise ValueError(f"the policy contradicts itself: {where} is {found}; min must not be above max")
    return found


@dataclass(frozen=True)
class Verdict:
    """What a policy says of one picture, and why."""

    verdict: str
    reasons: tuple[str, ...]


def judge(report: Report, policy: Policy) -> tuple[Verdict, ...]:
    """A verdict for each picture: its worst figure's. ValueError where a figure that the policy limits is
    missing.
    """
    return tuple(_judge(report, i, policy) for i in range(len(report.pictures)))


def worst(verdicts: tuple[Verdict, ...]) -> str:
    return max((v.verdict for v in verdicts), key=VERDICTS.index)


def _judge(report: Report, index: int, policy: Policy) -> Verdict:
    found = list(_findings(report, index, policy))
    return Verdict(
        max((v for v, _ in found), key=VERDICTS.index), tuple(why for v, why in found if v != "pass")
    )


def _findings(report: Report, index: int, policy: Policy) -> Iterator[tuple[str, str]]:
    for name, limits in policy.items():
        value = report.pictures[index].get(name, math.nan)
        if math.isnan(value):
            raise ValueError(
                f"the policy limits {name}, which picture {index + 1} lacks: "
                f"{report.not_measured.get(name, 'it was not measured')}; measure it, or leave it out of the "
                "policy"
            )
        verdict = limits.verdict(value)
        needed = limits.review if verdict == "reject" else limits.ok
        metric = METRICS[name]
        yield verdict, f"{verdict}: {metric.label} is {metric(value)}, must be {needed}"
