"""Runs of the same items side by side: which model is better at what, by more than chance."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from .. import journal, report
from . import paired
from .paired import LEVEL, Difference, Interval

MOST_DECIBELS = 60.0  # a background that is better kept than this differs by nothing that 8 bits can show
WORSE, BETTER, SAME, UNSURE = "regression", "better", "no regression shown", "too few items to tell"


class CompareError(Exception):
    """The runs cannot be compared, and what to do about it."""


@dataclass(frozen=True)
class Measure:
    """What models are compared by.

    says: after a model's name, that it is better at this. matters: a smaller difference counts as none.
    tolerance: a loss that a comparison must be able to see, or it is called too small. decides: whether it is
    a reason to prefer a model, and a loss a regression. words: for a loss and a gain against the baseline.
    """

    name: str
    label: str
    says: str
    better: str
    unit: str
    digits: int
    matters: float
    tolerance: float
    is_share: bool = False
    decides: bool = True
    words: tuple[str, str] = (WORSE, BETTER)

    @property
    def sign(self) -> int:
        return 1 if self.better == "higher" else -1

    @property
    def is_median(self) -> bool:
        return self.name == "seconds"  # the first item's hold the loading of the model

    def word(self, verdict: str) -> str:
        """What a verdict is called of this measure."""
        if verdict in (WORSE, BETTER):
            return self.words[verdict == BETTER]
        return verdict if self.decides else "no clear difference"

    def text(self, value: float) -> str:
        if math.isnan(value):
            return "-"
        return f"{100 * value:.0f} %" if self.is_share else f"{value:.{self.digits}f} {self.unit}".strip()

    def step(self, value: float) -> str:
        """A difference as text, with its sign."""
        if math.isnan(value):
            return "-"
        number, digits = (100 * value, 0) if self.is_share else (value, self.digits)
        sign = "+" if round(number, digits) else ""
        return (
            f"{number if sign else 0.0:{sign}.{digits}f} {'points' if self.is_share else self.unit}".strip()
        )


MEASURES = (
    Measure("success", "success", "passes the policy more often", "higher", "", 0, 0.01, 0.10, True),
    Measure("approved", "approved by people", "is approved more often", "higher", "", 0, 0.01, 0.10, True),
    Measure(
        "clip_directional",
        "words, directional CLIP",
        "follows the words better",
        "higher",
        "",
        3,
        0.005,
        0.03,
    ),
    Measure("background_psnr", "background", "keeps the background better", "higher", "dB", 2, 0.1, 1.0),
    Measure(
        "structure_distance",
        "structure distance",
        "keeps the structure better",
        "lower",
        "",
        4,
        0.0005,
        0.005,
    ),
    Measure(
        "background_ms_ssim",
        "background structure",
        "keeps the structure of the background better",
        "higher",
        "",
        4,
        0.002,
        0.02,
    ),
    Measure(
        "seconds",
        "seconds an item, median",
        "is faster",
        "lower",
        "s",
        1,
        0.1,
        1.0,
        False,
        False,
        ("slower", "faster"),
    ),
    Measure(
        "errors",
        "errors",
        "fails on fewer items",
        "lower",
        "",
        0,
        0.01,
        0.10,
        True,
        False,
        ("more errors", "fewer errors"),
    ),
)


@dataclass(frozen=True)
class Contender:
    """A model at a setting, and the folder of its run. setting: empty where only one was tried."""

    label: str
    setting: str
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.label} ({self.setting})" if self.setting else self.label


@dataclass(frozen=True, eq=False)
class Entry:
    """A contender's run: rows by key, and what people decided of its items, 1 for approved and 0 for not."""

    contender: Contender
    run: dict
    rows: dict[str, dict]
    approved: dict[str, float]

    @property
    def label(self) -> str:
        return self.contender.label

    @property
    def name(self) -> str:
        return self.contender.name

    def value(self, key: str, measure: Measure) -> float:
        """An item's; nan where it has none."""
        row = self.rows[key]
        if measure.name == "success":
            return float(journal.outcome(row) == "pass")
        if measure.name == "errors":
            return float(row["status"] == "error")
        if measure.name == "approved":
            return self.approved.get(key, math.nan)
        found = report.figure(row, measure.name) if row["status"] == "ok" else math.nan
        return min(found, MOST_DECIBELS) if measure.name == "background_psnr" else found


@dataclass
class Comparison:
    """Entries of the same items. baseline: the label that the others are held against, or empty."""

    entries: list[Entry]
    baseline: str = ""
    _differences: dict[tuple, Difference] = field(default_factory=dict, repr=False)

    @cached_property
    def keys(self) -> list[str]:
        rows = self.entries[0].rows
        return sorted(rows, key=lambda key: (rows[key]["number"], rows[key]["mode"]))

    @cached_property
    def measures(self) -> list[Measure]:
        """Those that each entry has; one of structure."""
        found = [
            measure
            for measure in MEASURES
            if all(any(not math.isnan(e.value(key, measure)) for key in self.keys) for e in self.entries)
        ]
        names = [measure.name for measure in found]
        return [m for m in found if m.name != "background_ms_ssim" or "structure_distance" not in names]

    @property
    def deciding(self) -> list[Measure]:
        return [measure for measure in self.measures if measure.decides]

    @cached_property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(entry.label for entry in self.entries))

    @cached_property
    def recommended(self) -> dict[str, tuple[Entry, Measure | None]]:
        """Each model's best setting, and the measure by which; None where no other is clearly worse."""
        found = {}
        for label in self.labels:
            settings = [entry for entry in self.entries if entry.label == label]
            found[label] = self.best(settings, self.keys, [*self.deciding, *self._time]) or (
                settings[0],
                None,
            )
        return found

    @property
    def _time(self) -> list[Measure]:
        return [measure for measure in self.measures if measure.name == "seconds"]

    @cached_property
    def finalists(self) -> list[Entry]:
        """Each model at its recommended setting."""
        return [entry for entry, _ in self.recommended.values()]

    @cached_property
    def winner(self) -> tuple[Entry, Measure] | None:
        return self.best(self.finalists, self.keys, self.deciding)

    @cached_property
    def categories(self) -> dict[str, list[str]]:
        rows = self.entries[0].rows
        names = sorted({rows[key]["category"] for key in self.keys})
        return {name: [key for key in self.keys if rows[key]["category"] == name] for name in names}

    def best(
        self,
        entries: Sequence[Entry],
        keys: Sequence[str],
        measures: Iterable[Measure],
        level: float = LEVEL,
    ) -> tuple[Entry, Measure] | None:
        """The entry that is left when, measure by measure, those clearly worse than the leader are dropped.

        With the measure that dropped the last. None where no measure tells the rest apart.
        """
        left = list(entries)
        for measure in measures:
            leader = max(left, key=lambda entry: measure.sign * or_worst(self.middle(entry, measure, keys)))
            left = [e for e in left if e is leader or not self.is_better(leader, e, measure, keys, level)]
            if len(left) == 1 and len(entries) > 1:
                return leader, measure
        return None

    def is_better(
        self,
        one: Entry,
        other: Entry,
        measure: Measure,
        keys: Sequence[str] | None = None,
        level: float = LEVEL,
    ) -> bool:
        """Whether the first is better by more than chance, and by as much as matters."""
        found = self.difference(one, other, measure, keys, level)
        return found.is_real(level) and measure.sign * found.middle >= measure.matters

    def difference(
        self,
        one: Entry,
        other: Entry,
        measure: Measure,
        keys: Sequence[str] | None = None,
        level: float = LEVEL,
    ) -> Difference:
        """The first minus the second, over the items that have a value in both."""
        keys = self.keys if keys is None else keys
        asked = (id(one), id(other), measure.name, tuple(keys), level)
        if asked not in self._differences:
            pairs = [(one.value(key, measure), other.value(key, measure)) for key in keys]
            pairs = [pair for pair in pairs if not any(map(math.isnan, pair))]
            ones, others = [first for first, _ in pairs], [second for _, second in pairs]
            self._differences[asked] = (
                paired.share_difference(ones, others, level)
                if measure.is_share
                else paired.middle_difference(ones, others, measure.is_median, level)
            )
        return self._differences[asked]

    def middle(self, entry: Entry, measure: Measure, keys: Sequence[str] | None = None) -> float:
        values = self._values(entry, measure, keys)
        of = statistics.median if measure.is_median else statistics.fmean
        return of(values) if values else math.nan

    def interval(self, entry: Entry, measure: Measure) -> Interval:
        values = self._values(entry, measure)
        return paired.share(values) if measure.is_share else paired.middle(values, measure.is_median)

    def _values(self, entry: Entry, measure: Measure, keys: Sequence[str] | None = None) -> list[float]:
        found = [entry.value(key, measure) for key in (self.keys if keys is None else keys)]
        return [value for value in found if not math.isnan(value)]

    # --- a new version against an old one -----------------------------------------------------------

    @property
    def base(self) -> Entry | None:
        return self.recommended[self.baseline][0] if self.baseline else None

    def verdict(self, entry: Entry, measure: Measure) -> str:
        """One of WORSE, BETTER, SAME, UNSURE, of an entry against the baseline."""
        assert self.base is not None
        found = self.difference(entry, self.base, measure)
        gain, low = measure.sign * found.middle, min(measure.sign * found.low, measure.sign * found.high)
        if found.is_real():
            return SAME if abs(gain) < measure.matters else BETTER if gain > 0 else WORSE
        seen = found.low <= 0 <= found.high
        return SAME if seen and low >= -measure.tolerance else UNSURE

    def needed(self, entry: Entry, measure: Measure) -> int | None:
        """About how many items would tell, where it is UNSURE; None where nothing can be said of that."""
        assert self.base is not None
        found = self.difference(entry, self.base, measure)
        if found.count < 2 or math.isnan(found.half):
            return None
        target = max(abs(found.middle), measure.tolerance + measure.sign * found.middle)
        return max(found.count + 1, math.ceil(found.count * (found.half / target) ** 2))

    @property
    def challengers(self) -> list[Entry]:
        return [entry for entry in self.finalists if entry.label != self.baseline]

    @cached_property
    def regressions(self) -> list[tuple[Entry, Measure]]:
        return self._called(WORSE)

    @cached_property
    def unsure(self) -> list[tuple[Entry, Measure]]:
        return self._called(UNSURE)

    def _called(self, verdict: str) -> list[tuple[Entry, Measure]]:
        """The challengers' deciding measures with this verdict."""
        pairs = [(e, m) for e in self.challengers for m in self.deciding] if self.base else []
        return [(entry, measure) for entry, measure in pairs if self.verdict(entry, measure) == verdict]

    # --- items --------------------------------------------------------------------------------------

    def worst_first(self) -> list[str]:
        """Items by how differently they came out: by verdict, then by how well the background was kept.

        With a baseline, what others lost against it comes first.
        """
        background = next(measure for measure in MEASURES if measure.name == "background_psnr")

        def order(key: str) -> tuple[float, float]:
            ranks = [report.OUTCOMES.index(journal.outcome(e.rows[key])) for e in self.finalists]
            kept = [v for e in self.finalists if not math.isnan(v := e.value(key, background))]
            spread = max(kept) - min(kept) if kept else 0.0
            if self.base is None:
                return max(ranks) - min(ranks), spread
            at = self.finalists.index(self.base)
            before = self.base.value(key, background)
            lost = [
                before - value for e in self.challengers if not math.isnan(value := e.value(key, background))
            ]
            return max(ranks) - ranks[at], max(lost, default=0.0) if not math.isnan(before) else 0.0

        edited = [key for key in self.keys if any(e.rows[key]["status"] == "ok" for e in self.finalists)]
        return sorted(edited, key=order, reverse=True)

    def failed_in_some(self) -> list[str]:
        """Items that ended as an error for some entries and not for all."""
        failed = {key: [e.rows[key]["status"] == "error" for e in self.entries] for key in self.keys}
        return [key for key, of in failed.items() if any(of) and not all(of)]


def or_worst(value: float) -> float:
    return -math.inf if math.isnan(value) else value
