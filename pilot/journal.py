"""A run's folder: its settings (run.json), results (results.jsonl), and a lock for one program."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from eta_core.plain_json import read_json

from .answers import read

RESULTS, RUN, LOCK = "results.jsonl", "run.json", "lock"
LOCK_SECONDS = 60


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
        if not try_lock(self._lock):
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
        self._rows.close()
        failed = set()
        for number, row in _numbered(self.folder):
            if row["status"] == "error":
                failed.add(number)
                self.keys.discard(row["key"])
        _cut(self.folder / RESULTS, failed)
        self._rows = open(self.folder / RESULTS, "ab")

    def _mend(self) -> Path:
        """results.jsonl without a half-written last line and without repeated rows."""
        path, kept = self.folder / RESULTS, set()
        for number, row in _numbered(self.folder):
            if row["key"] not in self.keys:
                self.keys.add(row["key"])
                kept.add(number)
        count = 0
        if path.exists():
            with open(path, "rb") as lines:
                count = sum(1 for _ in lines)
        if len(kept) < count:
            _cut(path, set(range(1, count + 1)) - kept)
        return path


def _cut(path: Path, numbers: Collection[int]) -> None:
    """The file without these lines, counted from 1."""

    def kept() -> Iterator[bytes]:
        with open(path, "rb") as lines:
            yield from (line for number, line in enumerate(lines, 1) if number not in numbers)

    replace(path, kept())


def rows(folder: Path) -> list[dict]:
    """All of `each`."""
    return list(each(folder))


def each(folder: Path) -> Iterator[dict]:
    """The whole rows of results.jsonl, one after another: lines that parse and are as a row must be.

    A damaged line is named once, and left out: its item is done again.
    """
    return (row for _, row in _numbered(folder))


def _numbered(folder: Path) -> Iterator[tuple[int, dict]]:
    """The same, with their lines' numbers from 1."""
    path = folder / RESULTS
    if not path.exists():
        return
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = read_json(line, "it")
                if not line.endswith(b"\n"):
                    raise ValueError("its end is missing")
                read(Row, row)
            except ValueError as error:
                print(f"{path.name}: line {number} is damaged ({error}) and left out; its item is done again")
            else:
                yield number, row


Number = Annotated[float, Field(allow_inf_nan=False)]
Size = tuple[int, int]


class Row(BaseModel):
    """A row of results.jsonl. What only an item that was edited has is empty for others."""

    model_config = ConfigDict(extra="allow")
    key: str
    status: Literal["ok", "error"]
    mode: Literal["auto", "given", "none"] = "auto"
    number: int = 0
    name: str = ""
    category: str = ""
    source_prompt: str = ""
    target_prompt: str = ""
    words: str = ""
    finished: str = ""
    error: str = ""
    verdict: Literal["pass", "review", "reject"] = "review"
    reasons: list[str] = []
    figures: list[dict[str, Number | Literal["inf", "-inf"] | None]] = []
    not_measured: dict[str, str] = {}
    files: dict[str, str] = {}
    scored: Literal["given", "auto", "none"] = "none"
    mask: str = ""
    size: Size = (0, 0)
    given_size: Size = (0, 0)
    seed: int = 0
    seconds: Number | None = None
    server: str = ""


def outcome(row: dict) -> str:
    """pass, review, reject or error."""
    return "error" if row["status"] == "error" else row["verdict"]


def filled(row: dict) -> dict:
    """A row with what it lacks of an item that was edited."""
    empty = Row(key=row["key"], status=row["status"]).model_dump()
    return empty | row


def _line(row: dict) -> bytes:
    return json.dumps(row, allow_nan=False).encode() + b"\n"


class Settings(BaseModel):
    model_config = ConfigDict(extra="allow")
    workflow: str = ""
    policy: str = ""
    policy_version: str | None = None
    limits: str = ""


class Run(BaseModel):
    """run.json."""

    model_config = ConfigDict(extra="allow")
    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    settings: Settings
    items: str = ""
    tasks: int = 0
    rules: dict[str, Any] | None = None
    nodes: dict[str, dict[str, Any]] = {}
    server: dict[str, str | None] = {}
    servers: dict[str, dict[str, str | None]] = {}
    warnings: list[str] = []
    models: dict[str, dict[str, Any]] = {}


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
    if next(each(folder), None):
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
        found = read_json((folder / RUN).read_bytes(), "it")
        read(Run, found)
        return found
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise JournalError(
            f"{folder / RUN} is damaged ({error}): put a whole one back, or use another --out"
        ) from None


def save(folder: Path, run: dict) -> None:
    write(folder / RUN, json.dumps(run, indent=1).encode())


def write(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all, even when the power fails."""
    replace(path, [content])


def replace(path: Path, parts: Iterable[bytes]) -> None:
    """The same, of its parts. They may be read from the file itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".half")
    with open(half, "wb") as handle:
        handle.writelines(parts)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(half, path)


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """Hold a file, which is made and stays. Raises JournalError where another program does not let go."""
    with open(lock, "a") as handle:
        until = time.monotonic() + LOCK_SECONDS
        while not try_lock(handle):
            if time.monotonic() > until:
                raise JournalError(f"{lock} is held by another program for {LOCK_SECONDS} s: end it")
            time.sleep(0.005)
        yield


def try_lock(handle) -> bool:
    """Hold a file until it is closed; False where another program holds it."""
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
