"""What people review: the results of a run, each bound to the files, policy and settings it came from."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PureWindowsPath

from .. import journal, policy
from .audit import digest, file_hash


@dataclass(frozen=True)
class Candidate:
    """An item for people. hashes: sha256 of its files by name. binding: what a decision is bound to.

    drawn: it passed, and the draw chose it to check the policy.
    """

    row: dict
    hashes: Mapping[str, str]
    binding: str
    drawn: bool

    @property
    def key(self) -> str:
        return self.row["key"]

    @property
    def edits(self) -> list[str]:
        return [name for name in self.hashes if name.startswith("edited")]


def of_run(folder: Path, share: float) -> list[Candidate]:
    """The items that people review, as their files are now. Raises JournalError."""
    run, rows, drawn = chosen(folder, share)
    return [candidate(folder, run, row, row["key"] in drawn) for row in rows]


def chosen(folder: Path, share: float) -> tuple[dict, list[dict], set[str]]:
    """run.json, the rows that people review, and the keys of those that were drawn.

    All of verdict review, and of pass a share that the run's id draws; never what the policy rejects. What
    comes back from a review is first, then the order of the list. Raises JournalError.
    """
    run = journal.load(folder)
    if run is None:
        raise journal.JournalError(f"{folder} holds no run of a pilot: there is nothing to review")
    rows = [journal.filled(row) for row in journal.each(folder) if row["status"] == "ok"]
    passed = [row["key"] for row in rows if row["verdict"] == "pass"]
    drawn = set(draw(passed, run["id"], share))
    rows = [row for row in rows if row["verdict"] == "review" or row["key"] in drawn]
    rows.sort(key=lambda row: (not row.get("again_of"), row["number"], row["mode"]))
    return run, rows, drawn


def draw(keys: list[str], seed: str, share: float) -> list[str]:
    """`share` percent of the keys, rounded up, chosen by the hash of seed and key."""
    count = math.ceil(len(keys) * share / 100)
    return sorted(keys, key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest())[:count]


def candidate(folder: Path, run: dict, row: dict, drawn: bool, before: Candidate | None = None) -> Candidate:
    """before: the same row's candidate at an earlier time, which is returned where no file has changed."""
    shown = {name: path for name, path in row["files"].items() if name != "heatmap"}
    hashes = {name: _hash(folder, path) for name, path in sorted(shown.items())}
    if before is not None and before.row is row and before.hashes == hashes:
        return before
    bound = {
        "files": hashes,
        "policy": _policy(run),
        "settings": digest(run["settings"]),
        "mode": row["mode"],
        "seed": row["seed"],
        "eta": row.get("eta"),
    }
    return Candidate(row, hashes, digest(bound), drawn)


def _policy(run: dict) -> str:
    """The version of the policy; of a run older than versions, the hash of its limits."""
    version = run["settings"].get("policy_version")
    return version or digest(repr(sorted(policy.of_run(run).limits.items())))


def _hash(folder: Path, name: str) -> str:
    """sha256 of a file of the run, read again only when it was written again; empty where there is none."""
    if not is_inside(name):
        return ""
    path = f"{folder}/{name}"
    try:
        found = os.stat(path)
    except OSError:
        return ""
    return _hash_of(path, found.st_mtime_ns, found.st_size, found.st_ino)


@lru_cache(maxsize=100_000)
def _hash_of(path: str, *_) -> str:
    return file_hash(Path(path))


@lru_cache(maxsize=100_000)
def is_inside(name: str) -> bool:
    """Whether a file that a row names is one of the run's folder."""
    return not PureWindowsPath(name).anchor and ".." not in PureWindowsPath(name).parts
