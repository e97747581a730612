"""The folders of a comparison: which runs it has, whether they are of the same items, and compare.json."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from PIL import Image
from pydantic import BaseModel

from eta_core.plain_json import read_json

from .. import journal, report
from ..answers import read
from ..review import figures
from ..review import store as review_store
from .comparison import CompareError, Comparison, Contender, Entry
from .paired import LEVEL
from .words import first_of, headline, joined

RESULT, PAGE = "compare.json", "compare.html"
# Settings without which figures do not mean the same.
JUDGED_BY = ("policy", "policy_version", "limits", "seed")


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
    if len(rows) < run.get("tasks", 0):
        raise CompareError(
            f"{contender.name} has {len(rows)} of {run['tasks']} results: run it to its end first ({folder})"
        )
    approved = {}
    if review_store.exists(folder):
        found = figures.read(folder, review_store.Store(folder, ""))
        said = {row["key"]: found.decided(row) for row in found.rows}
        closed = {"approve": 1.0, "reject": 0.0, "again": 0.0, "machine": 0.0}
        approved = {key: closed[one] for key, one in said.items() if one in closed}
        approved = approved if any(found.votes.values()) else {}
    return Entry(contender, run, rows, approved)


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
                f"{there.name} has no result of {len(missing)} of the items of {here.name} "
                f"({first_of(missing)}): run both with the same list and --mask, to the end"
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


def check_folder(contender: Contender, keys: Collection[str]) -> None:
    """Raises CompareError where a contender's folder holds items that are not to be run."""
    rows = journal.rows(contender.folder)
    others = [row.get("name", "") for row in rows if row["key"] not in keys and not row.get("again_of")]
    if others:
        raise CompareError(
            f"{contender.folder} holds {len(others)} results of other items ({first_of(others)}): use "
            "another --out, or the list and options that it was run with"
        )


def check_out(folder: Path) -> None:
    """Raises CompareError where a run would lie in the comparison's own folder."""
    if (folder / journal.RUN).exists():
        raise CompareError(f"{folder} holds the run of one model: use another --out for a comparison")


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
    path = path_from(folder, contender.folder)
    return {"label": contender.label, "setting": contender.setting, "folder": path}


def path_from(folder: Path, other: Path) -> str:
    """Where a folder lies from another, with slashes."""
    try:
        return Path(os.path.relpath(other.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return other.resolve().as_posix()


def _save(folder: Path, content: dict) -> None:
    journal.write(folder / RESULT, json.dumps(content, indent=1, allow_nan=False).encode())


def check_labels(contenders: Sequence[Contender], baseline: str) -> None:
    """Raises CompareError where names are not clear."""
    twice = [name for name, count in Counter(one.name for one in contenders).items() if count > 1]
    if twice:
        raise CompareError(f"{joined(twice)} stands there twice: give each a label of its own, LABEL=NAME")
    labels = list(dict.fromkeys(one.label for one in contenders))
    if baseline and baseline not in labels:
        raise CompareError(
            f"--baseline {baseline} is no model of this comparison; they are {', '.join(labels)}"
        )
    if baseline and len(labels) < 2:
        raise CompareError(f"--baseline {baseline} has no other model to be compared with it")
