"""What is to be edited: items from a CSV, JSON or JSONL file, or from PIE-Bench's mapping_file.json.

A wrong row becomes an item with an `error`, so that it is reported like any other. Only a file that cannot be
read at all stops a run.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from string import punctuation
from typing import Any

from eta_core.methods.alignment import pair

from . import pie_bench

NAMES = ("mapping_file.json", "items.csv", "items.jsonl", "items.json")
REQUIRED = ("picture", "source_prompt", "target_prompt")
RIGHTS = ("consent", "rights", "rights_until")
OPTIONAL = ("words", "target_words", "mask", "use_mask", "category", "seed", "eta", *RIGHTS)
LATER = (
    "use_mask",
    "eta",
    *RIGHTS,
    "again_of",
)  # an item without them is the one it was before there were such columns
KNOWN = (*REQUIRED, *OPTIONAL, "name", "exact_words", "again_of")
MAX_SEED = 2**64 - 1


class ItemsError(Exception):
    """The list of items cannot be read."""


@dataclass(frozen=True)
class Item:
    """One edit.

    number: its place in the list, from 1. picture and mask are files in `folder`; a mask of PIE-Bench is a
    tuple of run lengths. unread: columns that mean nothing here. repeat: how many equal items come before it.
    consent: who agreed to the edit, and where that is kept. rights: what allows it. rights_until: its last
    day (YYYY-MM-DD). eta: takes the place of end_eta in the workflow's Eta Schedule. again_of: key of the
    result that a reviewer sent back. use_mask: "given" for an item that is run with its mask, whatever the
    run's --mask says.
    """

    number: int
    name: str
    folder: Path = Path()
    picture: str = ""
    source_prompt: str = ""
    target_prompt: str = ""
    words: str = ""
    target_words: str = ""
    mask: str | tuple[int, ...] = ""
    category: str = ""
    seed: int | None = None
    eta: float | None = None
    error: str = ""
    unread: tuple[str, ...] = ()
    repeat: int = 0
    consent: str = ""
    rights: str = ""
    rights_until: str = ""
    again_of: str = ""
    use_mask: str = ""

    @property
    def key(self) -> str:
        """The item's identity by what it says, not by its place: a list may grow or move between two runs."""
        says = {
            name: value
            for name, value in vars(self).items()
            if name not in ("number", "folder", "unread") and (value not in ("", None) or name not in LATER)
        }
        return hashlib.sha256(json.dumps(says).encode()).hexdigest()[:12]


def load(path: Path) -> list[Item]:
    """The items of a file, or of a folder that has one of NAMES. ItemsError where nothing can be read."""
    path = _list_in(path) if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ItemsError(f"there is no {path}") from None
    except UnicodeDecodeError as error:
        raise ItemsError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    items = list(_read(path, text))
    if not items:
        raise ItemsError(
            f"{path} holds no item: it needs {', '.join(REQUIRED)}, and may have {', '.join(OPTIONAL)}"
        )
    return _told_apart(items)


def _list_in(folder: Path) -> Path:
    found = [folder / name for name in NAMES if (folder / name).is_file()]
    if len(found) != 1:
        names = " and ".join(path.name for path in found) or "no list of items"
        raise ItemsError(f"{folder} has {names}: it needs one of {', '.join(NAMES)}; or name the file itself")
    return found[0]


def _told_apart(items: list[Item]) -> list[Item]:
    """Equal rows are items of their own, told apart by `repeat`."""
    seen: Counter[str] = Counter()
    apart = []
    for item in items:
        apart.append(replace(item, repeat=seen[item.key]))
        seen[item.key] += 1
    return apart


def _read(path: Path, text: str) -> Iterator[Item]:
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv"):
        yield from _rows(_csv(text), path.parent)
    elif kind == ".jsonl":
        yield from _rows((_json_line(line) for line in text.split("\n") if line.strip()), path.parent)
    elif kind == ".json":
        yield from _json(path, text)
    else:
        raise ItemsError(f"{path} is no list of items: it must be .csv, .tsv, .json or .jsonl")


class Wrong(str):
    """Stands in the place of a row that cannot be read, and says why."""


def _csv(text: str) -> Iterator[dict | Wrong]:
    lines = io.StringIO(text).readlines()  # splitlines knows more ends than these
    header = lines[0] if lines else ""
    reader = csv.reader(lines, delimiter=max(",;\t", key=header.count), strict=True)
    columns = [name.strip() for name in next(reader, [])]
    twice = [name for name, count in Counter(columns).items() if name and count > 1]
    if twice:
        raise ItemsError(f"the column {twice[0]} stands there twice: rename one of the two")
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Wrong(f"line {reader.line_num}: {error}")
            continue
        if not any(cells):  # as spreadsheets leave them below the last
            continue
        if len(cells) == len(columns):
            yield {name: cell for name, cell in zip(columns, cells) if name}
        else:
            yield Wrong(f"line {reader.line_num} has {len(cells)} cells, the header {len(columns)}")


def _json_line(line: str) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return Wrong(f"no JSON: {error}")


def _json(path: Path, text: str) -> Iterator[Item]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ItemsError(f"{path} is no JSON: {error}") from None
    if pie_bench.is_mapping(found):
        yield from _rows(_mapping(found), pie_bench.pictures_in(path.parent))
        return
    found = found.get("items") if isinstance(found, dict) else found
    if not isinstance(found, list):
        raise ItemsError(
            f'{path} must be a list of items, {{"items": [...]}}, or PIE-Bench\'s mapping_file.json'
        )
    yield from _rows(found, path.parent)


def _mapping(found: dict) -> Iterator[dict | Wrong]:
    for name, entry in found.items():
        try:
            yield pie_bench.row(name, entry)
        except ValueError as error:
            yield Wrong(f"{name}: {error}")


def _rows(rows: Iterable[object], folder: Path) -> Iterator[Item]:
    for number, row in enumerate(rows, 1):
        try:
            yield _item(number, row, folder)
        except ValueError as error:
            name, category = (_said(row, *columns) for columns in (("name", "picture"), ("category",)))
            yield Item(number, name or f"row {number}", category=category, error=str(error))


def _said(row: object, *columns: str) -> str:
    """The first text of a wrong row's columns."""
    values = [row.get(column) for column in columns] if isinstance(row, dict) else []
    return (
        next((value for value in values if isinstance(value, str) and value), "")
        .encode(errors="replace")
        .decode()
    )


def _item(number: int, row: object, folder: Path) -> Item:
    if isinstance(row, Wrong):
        raise ValueError(row)
    if not isinstance(row, dict):
        raise ValueError(f"the row is {json.dumps(row)[:80]}: it must be an object")
    missing = [column for column in REQUIRED if column not in row]
    if missing:
        raise ValueError(f"no column {', '.join(missing)}; the columns are {', '.join(row) or 'none'}")
    texts = [column for column in (*REQUIRED, *OPTIONAL, "again_of") if column not in ("mask", "seed", "eta")]
    said = {column: _text(row, column) for column in texts}
    _check_day(said["rights_until"])
    for column in REQUIRED:
        if not said[column]:
            raise ValueError(f"{column} is empty")
    given = row.get("mask")
    mask = tuple(given) if isinstance(given, list) else _text(row, "mask")
    if said["use_mask"] not in ("", "given") or (said["use_mask"] and not mask):
        raise ValueError(
            f"use_mask is {said['use_mask']!r}: it must be given, and go with a mask, or be empty"
        )
    if not row.get("exact_words"):
        prompts = said["source_prompt"], said["target_prompt"]
        said["words"] = said["words"] or gone(*prompts)
        said["target_words"] = said["target_words"] or gone(*reversed(prompts))
    unread = tuple(str(column) for column in row if column not in KNOWN)
    name = str(row.get("name") or said["picture"])
    fields: dict[str, Any] = {
        **said,
        "mask": mask,
        "seed": _seed(row.get("seed")),
        "eta": _eta(row.get("eta")),
    }
    return Item(number, name, folder, unread=unread, **fields)


def _text(row: dict, column: str) -> str:
    value = row.get(column, "")
    if (
        isinstance(value, list)
        and column in ("words", "target_words")
        and all(isinstance(v, str) for v in value)
    ):
        value = ", ".join(value)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{column} is {json.dumps(value)[:80]}: it must be text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{column} holds half a character (a lone surrogate): write it again") from None
    return value.strip()


def _check_day(text: str) -> None:
    try:
        if text and date.fromisoformat(text).isoformat() != text:
            raise ValueError
    except ValueError:
        raise ValueError(f"rights_until is {text!r}: it must be a day, such as 2027-12-31") from None


def lacks_rights(item: Item, today: date) -> str:
    """Why an item may not be run where rights are required; empty where it may."""
    missing = [name for name in ("consent", "rights") if not getattr(item, name)]
    if missing:
        return f"rights are required (--require-rights), and the item has no {' and no '.join(missing)}"
    if item.rights_until and date.fromisoformat(item.rights_until) < today:
        return f"rights are required (--require-rights), and the item's ended on {item.rights_until}"
    return ""


def _seed(value: object) -> int | None:
    if value is None or value == "":
        return None
    try:
        seed = int(value) if isinstance(value, str) else value
    except ValueError:
        seed = None
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed is {value!r}: it must be a whole number from 0 to {MAX_SEED}")
    return seed


def _eta(value: object) -> float | None:
    if value is None or value == "":
        return None
    try:
        eta = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else -1.0
    except ValueError:
        eta = -1.0
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is {value!r}: it must be a number from 0 to 1")
    return eta


def gone(source_prompt: str, target_prompt: str) -> str:
    """The words that only the source prompt has, as AttentionMask takes them: phrases with commas."""
    source, target = (prompt.split() for prompt in (source_prompt, target_prompt))
    kept = set(pair(source, target))
    phrases: list[list[str]] = [[]]
    for i, word in enumerate(source):
        if i in kept:
            phrases.append([])
        else:
            phrases[-1].append(word.strip(punctuation))
    return ", ".join(" ".join(filter(None, phrase)) for phrase in phrases if any(phrase))
