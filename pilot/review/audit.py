"""The audit log of a run's folder: JSON lines, each with its own hash and the hash of the line before.

A line is {"n": its number, "time": UTC, "action": ..., ..., "previous": H(line before), "hash": H(line)},
where H is the sha256 of the line's text without its "hash". `pilot run` writes "run" and "verdict"; the
alarm "alarm" and "continue"; `policy trust` "trust"; the review's store "reviewer", "settings", "vote",
"undo", "void" and "export"; this file "torn".
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

from eta_core.plain_json import read_json

from .. import journal

LOG, LOCK = "audit.jsonl", "audit.lock"
START = "0" * 64  # what the first line calls the line before
BLOCK = 1 << 16
BATCH = 1000
ROW = re.compile(rb'"row": "([0-9a-f]{64})"')
END = re.compile(rb', "hash": "([0-9a-f]{64})"\}\Z')
BLIND = (
    "Not visible without --head: lines cut off at the end, and a log rewritten from some line to its end. "
    "Keep the head that each export prints outside this folder, and give it here."
)


class AuditError(Exception):
    """The log cannot be written or read."""


@dataclass(frozen=True)
class Checked:
    """lines: how many. head: the last one's hash. findings: what is wrong, and where; empty where nothing is.
    covered: number of the line that has the head asked for; 0 where none was asked for or none has it.
    """

    lines: int
    head: str
    findings: tuple[str, ...]
    covered: int = 0


def append(folder: Path, entries: Iterable[dict]) -> str:
    """Add entries, on disk before this returns -> the head. Safe among programs. Raises AuditError."""
    with locked(folder):
        return append_locked(folder, entries)


def append_once(folder: Path, entry: dict) -> None:
    """Add an entry unless one of the same content is there, such as a program that was killed has left."""
    uid = digest(entry)
    path = folder / LOG
    with locked(folder):
        if not (path.exists() and _has(path, uid.encode())):
            append_locked(folder, [entry | {"uid": uid}])


def _has(path: Path, text: bytes) -> bool:
    with open(path, "rb") as lines:
        return any(text in line for line in lines)


def append_locked(folder: Path, entries: Iterable[dict]) -> str:
    """The same for who holds `locked(folder)`."""
    entries = list(entries)
    with open(folder / LOG, "a+b") as log:
        last, rest = _tail(log)
        if rest:
            entries.insert(0, _set_aside(log, rest))
        number, head = _place(last)
        lines = []
        for entry in entries:
            number += 1
            line, head = _line({"n": number, "time": now()} | entry | {"previous": head})
            lines.append(line)
        log.write(b"".join(lines))
        log.flush()
        os.fsync(log.fileno())
    return head


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else writes to the log meanwhile. Raises JournalError where somebody does not let go."""
    with journal.held(folder / LOCK):
        yield


def head(folder: Path) -> str:
    """The last line's hash."""
    with locked(folder), open(folder / LOG, "rb") as log:
        return _place(_tail(log)[0])[1]


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def digest(value: Any) -> str:
    """sha256 of a value's JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# --- what a run writes ----------------------------------------------------------------------------


def begin_run(folder: Path, run: dict, operator: str) -> None:
    """A line for the start or the going on of a run, after the verdicts that an earlier one left unlogged."""
    settings = digest(run["settings"])
    started = {"action": "run", "who": operator, "role": "operator", "run": run["id"], "settings": settings}
    started |= {
        name: run["settings"][name] for name in ("policy", "policy_version") if name in run["settings"]
    }
    with locked(folder):
        _add_missing(folder)
        append_locked(folder, [started])


def add_verdicts(folder: Path) -> None:
    """Lines for the rows that have none yet, such as a killed run left."""
    with locked(folder):
        _add_missing(folder)


def _add_missing(folder: Path) -> None:
    logged: set[str] = set()
    if (folder / LOG).exists():
        with open(folder / LOG, "rb") as lines:
            logged.update(found[1].decode() for line in lines if (found := ROW.search(line)))
    missing = (row for row in journal.each(folder) if digest(row) not in logged)
    while some := list(islice(missing, BATCH)):
        append_locked(folder, [_verdict(folder, row) for row in some])


class Verdicts:
    """Adds a row's verdict as soon as there is one, in a time that does not grow with the log.

    Only what others wrote since the last one is read, in case they found the row first.
    """

    def __init__(self, folder: Path):
        self._folder, self._end = folder, _size(folder / LOG)

    def add(self, row: dict) -> None:
        with locked(self._folder):
            path = self._folder / LOG
            written = b""
            if _size(path) > self._end:
                with open(path, "rb") as log:
                    log.seek(self._end)
                    written = log.read()
            if digest(row).encode() not in written:
                append_locked(self._folder, [_verdict(self._folder, row)])
            self._end = _size(path)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _verdict(folder: Path, row: dict) -> dict:
    files = {name: file_hash(folder / path) for name, path in row.get("files", {}).items()}
    told = {name: row[name] for name in ("consent", "rights", "rights_until", "again_of") if row.get(name)}
    return {
        "action": "verdict",
        "who": row.get("operator", ""),
        "role": "operator",
        "item": row["key"],
        "name": row.get("name", ""),
        "verdict": row.get("verdict", "") if row["status"] == "ok" else "error",
        "files": files,
        "row": digest(row),
        **told,
    }


def file_hash(path: Path) -> str:
    """sha256 of a file; empty where it cannot be read."""
    try:
        with open(path, "rb") as handle:
            found = hashlib.sha256()
            while block := handle.read(1 << 20):
                found.update(block)
            return found.hexdigest()
    except OSError:
        return ""


# --- whether it was changed -----------------------------------------------------------------------


def verify(folder: Path, head: str = "") -> Checked:
    """Follow the chain from its first line. head: a hash that was printed earlier. Raises AuditError."""
    lines, torn = _lines(folder)
    if not lines and not torn:
        raise AuditError(f"{folder / LOG} is not there or empty: there is nothing to verify")
    findings: list[str] = []
    hashes: list[str] = []
    number, before = 0, START
    for place, line in enumerate(lines, 1):
        found = _read(line)
        if found is None:
            said = END.search(line)
            findings.append(f"line {place} was changed: its text does not have the hash that it names")
            before, number = said[1].decode() if said else "", number + 1
            continue
        findings += _misplaced(place, found, number, before)
        number, before = found["n"], found["hash"]
        hashes.append(before)
    if torn:
        findings.append(
            f"line {len(lines) + 1} has no end: a program was killed while it wrote it, or it was cut. The "
            "next entry sets it aside, and says so"
        )
    covered = hashes.index(head) + 1 if head in hashes else 0
    if head and not covered:
        findings.append(f"no line has the head {head}: the end was cut off, or the log was rewritten")
    return Checked(len(lines), hashes[-1] if hashes else START, tuple(findings), covered)


def _misplaced(place: int, found: dict, number: int, before: str) -> list[str]:
    """What is wrong with where a whole line stands. before: empty where the hash there cannot be known."""
    n = found["n"]
    if n > number + 1:
        gap = f"number {number + 1} is" if n == number + 2 else f"numbers {number + 1} to {n - 1} are"
        return [f"{gap} missing before line {place}, which is number {n}"]
    if n <= number:
        return [f"line {place} is number {n}, after number {number}: it was added, repeated or moved"]
    if before and found["previous"] != before:
        return [f"line {place} does not follow line {place - 1}: one of the two was rewritten or added"]
    return []


def _lines(folder: Path) -> tuple[list[bytes], bytes]:
    """The lines, and what stands after the last line's end."""
    try:
        *lines, torn = (folder / LOG).read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], b""
    return lines, torn


def _line(entry: dict) -> tuple[bytes, str]:
    text = json.dumps(entry, allow_nan=False).encode()
    found = hashlib.sha256(text).hexdigest()
    return text[:-1] + f', "hash": "{found}"}}\n'.encode(), found


def _read(line: bytes) -> dict | None:
    """A line that is as it was written, or None."""
    said = END.search(line)
    if not said or hashlib.sha256(line[: said.start()] + b"}").hexdigest() != said[1].decode():
        return None
    try:
        found = read_json(line, "it")
    except ValueError:
        return None
    return (
        found if isinstance(found, dict) and isinstance(found.get("n"), int) and "previous" in found else None
    )


def _place(last: bytes) -> tuple[int, str]:
    """Number and hash of a last line. A damaged one is not built upon in silence: its break stays visible."""
    if not last:
        return 0, START
    found = _read(last)
    if found is None:
        raise AuditError(f"the last line of {LOG} was changed: put a whole log back (pilot verify says more)")
    return found["n"], found["hash"]


def _tail(log) -> tuple[bytes, bytes]:
    """The last whole line, and what stands after it."""
    end = log.seek(0, os.SEEK_END)
    size = 0
    while True:
        size = min(end, max(BLOCK, 2 * size))
        log.seek(end - size)
        *lines, rest = log.read(size).split(b"\n")
        if len(lines) > 1 or size == end:
            return (lines[-1] if lines else b""), rest


def _set_aside(log, rest: bytes) -> dict:
    """Cuts off a line that a kill left half-written, and says so."""
    log.truncate(log.seek(0, os.SEEK_END) - len(rest))
    return {"action": "torn", "bytes": len(rest), "sha256": hashlib.sha256(rest).hexdigest()}
