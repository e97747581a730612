"""A comparison in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .comparison import UNSURE, Comparison, Entry, Measure, or_worst
from .paired import Difference


def headline(found: Comparison) -> str:
    """The result in a sentence."""
    count = f"on {items(len(found.keys))}"
    if found.base is not None:
        lost: dict[str, list[str]] = {}
        for entry, measure in found.regressions:
            lost.setdefault(entry.name, []).append(measure.label)
        if lost:
            parts = [
                f"{name} is worse than {found.base.name} in {joined(what)}" for name, what in lost.items()
            ]
            return f"Regression: {'; '.join(parts)}, {count}."
        if found.unsure:
            what = joined(list(dict.fromkeys(measure.label for _, measure in found.unsure)))
            return f"Too few items to tell whether {what} got worse, {count}; no regression shown."
        return f"No regression shown against {found.base.name}, {count}."
    if len(found.labels) == 1:
        entry, measure = found.recommended[found.labels[0]]
        return (
            f"{entry.name} is the setting to take, {count}."
            if measure
            else f"No clear difference between {len(found.entries)} settings of {entry.label}, {count}."
        )
    if found.winner is None:
        return f"No clear difference between {joined([e.name for e in found.finalists])}, {count}."
    winner, measure = found.winner
    return f"{winner.name} is the better choice: it {measure.says}, {count}."


def sentences(found: Comparison) -> list[str]:
    """What the measures say, each in a sentence."""
    entries = found.finalists if len(found.finalists) > 1 else found.entries
    if found.base is not None:
        return [
            _against(found, e, m) for e in found.challengers for m in found.measures if m.name != "errors"
        ]
    return [_told(found, entries, m) for m in found.measures if m.name != "errors"]


def _told(found: Comparison, entries: Sequence[Entry], measure: Measure) -> str:
    ranked = sorted(entries, key=lambda e: measure.sign * or_worst(found.middle(e, measure)), reverse=True)
    leader, *others = ranked
    worse = [e for e in others if found.is_better(leader, e, measure)]
    about = {e: f"{e.name} {measure.text(found.middle(e, measure))}" for e in ranked}
    if not worse:
        return f"{capital(measure.label)}: no clear difference ({', '.join(about.values())})."
    steps = [found.difference(leader, e, measure) for e in worse]
    told = "; ".join(f"{about[e]} ({step_text(measure, step)})" for e, step in zip(worse, steps))
    even = [about[e] for e in others if e not in worse]
    tail = f"; no clear difference from {joined(even)}" if even else ""
    of = "an item, at the median" if measure.name == "seconds" else "of the items" if measure.is_share else ""
    value = " ".join(filter(None, (measure.text(found.middle(leader, measure)), of)))
    return f"{leader.name} {measure.says}: {value}, against {told}{tail}."


def _against(found: Comparison, entry: Entry, measure: Measure) -> str:
    assert found.base is not None
    verdict, step = found.verdict(entry, measure), found.difference(entry, found.base, measure)
    ours, theirs = (measure.text(found.middle(e, measure)) for e in (entry, found.base))
    values = f"{ours} against {theirs}"
    needed = found.needed(entry, measure) if measure.decides and verdict == UNSURE else None
    tail = f"; about {needed} items would tell" if needed else ""
    told = f"{measure.word(verdict)}; {values} ({step_text(measure, step)}){tail}"
    return f"{entry.name}, {measure.label}: {told}."


def step_text(measure: Measure, step: Difference) -> str:
    """A difference with its interval: "+2.31 dB, 95 % interval +1.90 to +2.70"."""
    if math.isnan(step.low):
        return measure.step(step.middle)
    low, high = (measure.step(end).split()[0] for end in (step.low, step.high))
    return f"{measure.step(step.middle)}, 95 % interval {low} to {high}"


def reason(found: Comparison, label: str) -> str:
    """Why a model's setting is recommended; empty where it has one alone."""
    settings = [entry for entry in found.entries if entry.label == label]
    entry, measure = found.recommended[label]
    if len(settings) == 1:
        return ""
    if measure is None:
        return f"no clear difference between {len(settings)} settings: the first is kept"
    return f"it {measure.says} ({measure.text(found.middle(entry, measure))})"


def items(count: int) -> str:
    return f"{count} item{'s' * (count != 1)}"


def joined(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def first_of(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
