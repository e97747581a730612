"""A run's folder: its settings (run.json), results (results.jsonl), and a lock for one program."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

RESULTS, RUN, LOCK = "results.jsonl", "run.json", "lock"


class JournalError(Exception):
    """The folder cannot be worked in."""


class Journal:
    """Rows by `key`; each is on disk before `append` returns. A context manager that locks the folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.keys: set[str] = set()

    def __enter__(self) -> Journal:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.folder / LOCK, "a")
        if not _try_lock(self._lock):
            self._lock.close()
            raise JournalError(
                f"another pilot is at work in {self.folder}: wait for it, or use another --out"
            )
        self._rows = open(self._mend(), "ab")
        return self

    def __exit__(self, *_) -> None:
        self._rows.close()
        self._lock.close()

    def append(self, row: dict) -> None:
        self.keys.add(row["key"])  # before the write: an interrupted write must not be repeated
        self._rows.write(_line(row))
        self._rows.flush()
        os.fsync(self._rows.fileno())

    def drop_errors(self) -> None:
        """Forget the items that failed, so that they are done again."""
        good = [row for row in rows(self.folder) if row["status"] != "error"]
        self._rows.close()
        write(self.folder / RESULTS, b"".join(map(_line, good)))
        self._rows = open(self.folder / RESULTS, "ab")
        self.keys = {row["key"] for row in good}

    def _mend(self) -> Path:
        """results.jsonl without a half-written last line and without repeated rows."""
        path, good = self.folder / RESULTS, {}
        for row in rows(self.folder):
            good.setdefault(row["key"], row)
        self.keys = set(good)
        whole = b"".join(map(_line, good.values()))
        if not path.exists() or path.read_bytes() != whole:
            write(path, whole)
        return path


def rows(folder: Path) -> list[dict]:
    """The whole rows of results.jsonl: complete lines that parse and have what a row needs."""
    path = folder / RESULTS
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [row for row in map(_row, lines) if row]


def _row(line: bytes) -> dict | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("key"), str) and "status" in row else None


def _line(row: dict) -> bytes:
    return json.dumps(row, allow_nan=False).encode() + b"\n"


def settle(folder: Path, settings: dict) -> dict:
    """The run's {"id", "settings"}, written at the first call.

    Raises JournalError where the folder's run has, or may have, other settings.
    """
    found = load(folder)
    if found:
        changed = [
            name
            for name in {**found["settings"], **settings}
            if found["settings"].get(name) != settings.get(name)
        ]
        if changed:
            was = ", ".join(f"{name} was {json.dumps(found['settings'].get(name))}" for name in changed)
            raise JournalError(
                f"{folder} holds a run with other settings ({was}): use another --out, or the settings it has"
            )
        return found
    if rows(folder):
        raise JournalError(
            f"{folder} has results, but the {RUN} that says how they were made is gone: put it back, or use "
            "another --out"
        )
    run = {"id": uuid.uuid4().hex, "settings": settings}
    save(folder, run)
    return run


def load(folder: Path) -> dict | None:
    """run.json, or None where there is none. Raises JournalError."""
    try:
        found = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    if not (isinstance(found, dict) and "id" in found and isinstance(found.get("settings"), dict)):
        raise JournalError(f"{folder / RUN} is damaged: put a whole one back, or use another --out")
    return found


def save(folder: Path, run: dict) -> None:
    write(folder / RUN, json.dumps(run, indent=1).encode())


def write(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all, even when the power fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".half")
    with open(half, "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(half, path)


def _try_lock(handle) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            handle.seek(0)
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
