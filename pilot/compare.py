"""Runs of the same items side by side: which model is better at what, by more than chance."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from PIL import Image
from pydantic import BaseModel

from eta_core.plain_json import read_json

from . import journal, paired, report
from .answers import read
from .paired import LEVEL, Difference, Interval
from .review import figures
from .review import store as review_store

RESULT, PAGE = "compare.json", "compare.html"
REGRESSION = 4  # exit status
MOST_DECIBELS = 60.0  # a background that is better kept than this differs by nothing that 8 bits can show
WORSE, BETTER, SAME, UNSURE = "regression", "better", "no regression shown", "too few items to tell"
JUDGED_BY = ("policy", "limits", "seed")  # settings without which figures do not mean the same


class CompareError(Exception):
    """The runs cannot be compared, and what to do about it."""


@dataclass(frozen=True)
class Measure:
    """What models are compared by.

    says: after a model's name, that it is better at this. matters: a smaller difference counts as none.
    tolerance: a loss that a comparison must be able to see, or it is called too small. decides: whether it is
    a reason to prefer a model, and a loss a regression.
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

    @property
    def sign(self) -> int:
        return 1 if self.better == "higher" else -1

    @property
    def is_median(self) -> bool:
        return self.name == "seconds"  # the first item's hold the loading of the model

    def text(self, value: float) -> str:
        if math.isnan(value):
            return "-"
        return f"{100 * value:.0f} %" if self.is_share else f"{value:.{self.digits}f} {self.unit}".strip()

    def step(self, value: float) -> str:
        """A difference as text, with its sign."""
        if math.isnan(value):
            return "-"
        if self.is_share:
            return f"{_zeroed(100 * value, 0):+.0f} points"
        return f"{_zeroed(value, self.digits):+.{self.digits}f} {self.unit}".strip()


def _zeroed(value: float, digits: int) -> float:
    """Without the sign of what is rounded to 0."""
    return value if round(value, digits) else 0.0


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
        "background structure, MS-SSIM",
        "keeps the structure of the background better",
        "higher",
        "",
        4,
        0.002,
        0.02,
    ),
    Measure("seconds", "seconds an item, median", "is faster", "lower", "s", 1, 0.1, 1.0, decides=False),
    Measure("errors", "errors", "fails on fewer items", "lower", "", 0, 0.01, 0.10, True, decides=False),
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
            return float(report.outcome(row) == "pass")
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
            leader = max(left, key=lambda entry: measure.sign * _or_worst(self.middle(entry, measure, keys)))
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
            ranks = [report.OUTCOMES.index(report.outcome(e.rows[key])) for e in self.finalists]
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


def _or_worst(value: float) -> float:
    return -math.inf if math.isnan(value) else value


# --- folders ----------------------------------------------------------------------------------------


class Listed(BaseModel):
    label: str
    setting: str = ""
    folder: str


class Plan(BaseModel):
    """What is read of compare.json."""

    contenders: list[Listed]
    baseline: str = ""


def save_plan(folder: Path, contenders: Iterable[Contender], baseline: str) -> None:
    """compare.json before there is a result, so that a comparison that was stopped can be written."""
    listed = [_listed(folder, one) for one in contenders]
    _save(folder, {"contenders": listed, "baseline": baseline})


def plan_of(folder: Path) -> tuple[list[Contender], str]:
    """The contenders and the baseline of a comparison's folder. Raises CompareError."""
    path = folder / RESULT
    try:
        plan = read(Plan, read_json(path.read_bytes(), "it"))
    except FileNotFoundError:
        raise CompareError(
            f"{folder} holds neither a comparison ({RESULT}) nor a run ({journal.RUN}): name such folders"
        ) from None
    except ValueError as error:
        raise CompareError(f"{path} is damaged ({error}): delete it, and run the comparison again") from None
    return [Contender(one.label, one.setting, folder / one.folder) for one in plan.contenders], plan.baseline


def read_entries(contenders: Sequence[Contender]) -> list[Entry]:
    """Their runs. Raises CompareError where they are not of the same items, judged alike."""
    if len(contenders) < 2:
        raise CompareError("a comparison needs at least two runs")
    entries = [_entry(contender) for contender in contenders]
    for other in entries[1:]:
        _check_alike(entries[0], other)
    return entries


def _entry(contender: Contender) -> Entry:
    folder = contender.folder
    run = journal.load(folder)
    rows = {row["key"]: journal.filled(row) for row in journal.rows(folder) if not row.get("again_of")}
    if run is None or not rows:
        raise CompareError(f"{contender.name}: {folder} holds no results of a pilot; run it first")
    approved = {}
    if review_store.exists(folder):
        found = figures.read(folder, review_store.Store(folder, ""))
        said = {row["key"]: found.decided(row) for row in found.rows}
        closed = {"approve": 1.0, "reject": 0.0, "again": 0.0, "machine": 0.0}
        approved = {key: closed[one] for key, one in said.items() if one in closed}
        approved = approved if 1.0 in approved.values() or _voted(found) else {}
    return Entry(contender, run, rows, approved)


def _voted(found: figures.Reviewed) -> bool:
    return any(found.votes.values())


def _check_alike(one: Entry, other: Entry) -> None:
    for name in JUDGED_BY:
        ours, theirs = one.run["settings"].get(name), other.run["settings"].get(name)
        if ours != theirs:
            raise CompareError(
                f"{one.name} was run with {name} {ours!r}, {other.name} with {theirs!r}: they must be equal"
            )
    for here, there in ((one, other), (other, one)):
        missing = [row["name"] for key, row in here.rows.items() if key not in there.rows]
        if missing:
            raise CompareError(
                f"{there.name} has no result of {len(missing)} items of {here.name} ({_first(missing)}): run "
                "both with the same list and --mask, to the end"
            )
    for key, row in one.rows.items():
        _check_same_item(one, other, key, row)


def _check_same_item(one: Entry, other: Entry, key: str, row: dict) -> None:
    theirs = other.rows[key]
    if "error" in (row["status"], theirs["status"]):
        return  # one of them may lack a picture and a seed
    if row["seed"] != theirs["seed"]:
        raise CompareError(
            f"{row['name']} has seed {row['seed']} in {one.name} and {theirs['seed']} in {other.name}: run "
            "both with the same --seed"
        )
    if row["size"] != theirs["size"] or not _same_picture(
        *(e.contender.folder / e.rows[key]["files"].get("source", "") for e in (one, other))
    ):
        raise CompareError(
            f"{row['name']} is another picture in {one.name} than in {other.name}: run both with the same "
            "pictures and --max-side"
        )


def _same_picture(one: Path, other: Path) -> bool:
    """True also where one is gone: then nothing speaks against it."""
    if not (one.is_file() and other.is_file()):
        return True
    if one.read_bytes() == other.read_bytes():
        return True
    with Image.open(one) as first, Image.open(other) as second:
        return first.size == second.size and first.convert("RGB").tobytes() == second.convert("RGB").tobytes()


def _first(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def check_folder(contender: Contender, keys: Collection[str]) -> None:
    """Raises CompareError where a contender's folder holds items that are not to be run."""
    rows = journal.rows(contender.folder)
    others = [row.get("name", "") for row in rows if row["key"] not in keys and not row.get("again_of")]
    if others:
        raise CompareError(
            f"{contender.folder} holds results of {len(others)} other items ({_first(others)}): use another "
            "--out, or the list and options that it was run with"
        )


def check_out(folder: Path) -> None:
    """Raises CompareError where a run would lie in the comparison's own folder."""
    if (folder / journal.RUN).exists():
        raise CompareError(f"{folder} holds the run of one model: use another --out for a comparison")


# --- what is said of it -----------------------------------------------------------------------------


def headline(found: Comparison) -> str:
    """The result in a sentence."""
    count = f"on {items(len(found.keys))}"
    if found.base is not None:
        lost: dict[str, list[str]] = {}
        for entry, measure in found.regressions:
            lost.setdefault(entry.name, []).append(measure.label)
        if lost:
            parts = [f"{name} is worse than {found.base.name} in {_and(what)}" for name, what in lost.items()]
            return f"Regression: {'; '.join(parts)}, {count}."
        if found.unsure:
            what = _and(list(dict.fromkeys(measure.label for _, measure in found.unsure)))
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
        return f"No clear difference between {_and([e.name for e in found.finalists])}, {count}."
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
    ranked = sorted(entries, key=lambda e: measure.sign * _or_worst(found.middle(e, measure)), reverse=True)
    leader, *others = ranked
    worse = [e for e in others if found.is_better(leader, e, measure)]
    about = {e: f"{e.name} {measure.text(found.middle(e, measure))}" for e in ranked}
    if not worse:
        return f"{capital(measure.label)}: no clear difference ({', '.join(about.values())})."
    steps = [found.difference(leader, e, measure) for e in worse]
    told = "; ".join(f"{about[e]} ({step_text(measure, step)})" for e, step in zip(worse, steps))
    even = [about[e] for e in others if e not in worse]
    tail = f"; no clear difference from {_and(even)}" if even else ""
    of = "an item, at the median" if measure.name == "seconds" else "of the items" if measure.is_share else ""
    value = " ".join(filter(None, (measure.text(found.middle(leader, measure)), of)))
    return f"{leader.name} {measure.says}: {value}, against {told}{tail}."


def _against(found: Comparison, entry: Entry, measure: Measure) -> str:
    assert found.base is not None
    verdict, step = found.verdict(entry, measure), found.difference(entry, found.base, measure)
    ours, theirs = (measure.text(found.middle(e, measure)) for e in (entry, found.base))
    values = f"{ours} against {theirs}"
    needed = found.needed(entry, measure) if verdict == UNSURE else None
    tail = f"; about {needed} items would tell" if needed else ""
    word = {
        WORSE: "slower" if not measure.decides else WORSE,
        BETTER: "faster" if not measure.decides else BETTER,
    }
    said = word.get(verdict, verdict if measure.decides or verdict == UNSURE else "no clear difference")
    return f"{entry.name}, {measure.label}: {said}; {values} ({step_text(measure, step)}){tail}."


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


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# --- compare.json -----------------------------------------------------------------------------------


def save(folder: Path, found: Comparison) -> None:
    """compare.json, with the result."""
    base = found.base
    pairs = [(e, base) for e in found.challengers] if base else _pairs(found.finalists)
    level = LEVEL / max(1, len(found.categories))
    result = {
        "contenders": [_listed(folder, entry.contender) for entry in found.entries],
        "baseline": found.baseline,
        "items": len(found.keys),
        "headline": headline(found),
        "regression": bool(found.regressions),
        "winner": found.winner[0].label if found.winner else None,
        "models": [
            _listed(folder, entry.contender)
            | {
                "recommended": entry in found.finalists,
                "outcomes": report.rates(entry.rows.values()),
                "measures": {m.name: _plain(vars(found.interval(entry, m))) for m in found.measures},
                "weights": entry.run.get("models", {}),
            }
            for entry in found.entries
        ],
        "differences": [
            {"of": one.name, "minus": other.name, "measure": m.name}
            | _plain(vars(found.difference(one, other, m)))
            | ({"verdict": found.verdict(one, m), "decides": m.decides} if base else {})
            for one, other in pairs
            for m in found.measures
        ],
        "categories": [
            {"category": name, "items": len(keys)} | _winner_of(found, keys, level)
            for name, keys in found.categories.items()
        ],
    }
    _save(folder, result)


def _pairs(entries: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    return [(one, other) for i, one in enumerate(entries) for other in entries[i + 1 :]]


def _winner_of(found: Comparison, keys: Sequence[str], level: float) -> dict:
    won = found.best(found.finalists, keys, found.deciding, level)
    return {"suits": won[0].label if won else None, "by": won[1].name if won else None}


def _plain(values: dict) -> dict:
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in values.items()
    }


def _listed(folder: Path, contender: Contender) -> dict:
    try:
        path = os.path.relpath(contender.folder.resolve(), folder.resolve())
    except ValueError:  # another drive of Windows
        path = str(contender.folder.resolve())
    return {"label": contender.label, "setting": contender.setting, "folder": Path(path).as_posix()}


def _save(folder: Path, content: dict) -> None:
    journal.write(folder / RESULT, json.dumps(content, indent=1, allow_nan=False).encode())


def check_labels(contenders: Sequence[Contender], baseline: str) -> None:
    """Raises CompareError where names are not clear."""
    twice = [name for name, count in Counter(one.name for one in contenders).items() if count > 1]
    if twice:
        raise CompareError(f"{_and(twice)} stands there twice: give each a label of its own, LABEL=NAME")
    labels = list(dict.fromkeys(one.label for one in contenders))
    if baseline and baseline not in labels:
        raise CompareError(
            f"--baseline {baseline} is no model of this comparison; they are {', '.join(labels)}"
        )
    if baseline and len(labels) < 2:
        raise CompareError(f"--baseline {baseline} has no other model to be compared with it")
