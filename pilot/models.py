"""Which weights a run was made with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

CHUNK = 1 << 22
HOST = Path(__file__).resolve().parents[3]  # of a pack in its custom_nodes


class ModelsError(Exception):
    """A run's weights are not those it began with."""


def roots_of(argv: list[str]) -> list[Path]:
    """Model folders of a server that was started with `argv` on this machine."""
    bases = [Path(value) for option, value in zip(argv, argv[1:]) if option == "--base-directory"]
    programs = [Path(path) for path in argv[:1]]
    homes = [
        path.parent if path.is_absolute() else HOST for path in programs
    ]  # "main.py" is relative to a folder not told
    return [base / "models" for base in bases or homes]


def described(names: Iterable[str], roots: list[Path], known: dict[str, dict]) -> dict[str, dict]:
    """name -> {"sha256", "bytes", "changed"} of its file; empty where it is not on this machine.

    known: what was found before.
    """
    return {name: _described(_find(name, roots), known.get(name, {})) for name in names}


def check(found: dict[str, dict], before: dict[str, dict]) -> None:
    """ModelsError where a file that was hashed before has changed, or is not there to be compared."""
    for name, about in found.items():
        was = before.get(name, {}).get("sha256")
        if was and was != about.get("sha256"):
            problem, remedy = "is another file than this run began with", "put that one back"
            if not about:
                problem, remedy = (
                    "was hashed when this run began, and is not found now",
                    "name its folder with --models",
                )
            raise ModelsError(f"{name} {problem}: {remedy}, or use another --out")


def _find(name: str, roots: list[Path]) -> Path | None:
    folders = [
        folder for root in roots if root.is_dir() for folder in sorted(root.iterdir()) if folder.is_dir()
    ]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _described(path: Path | None, known: dict) -> dict:
    if path is None:
        return {}
    about = path.stat()
    stamp = {"bytes": about.st_size, "changed": about.st_mtime_ns}
    if stamp.items() <= known.items():
        return known
    return {"sha256": _sha256(path, *stamp.values()), **stamp}


@cache  # several runs of one program share weights
def _sha256(path: Path, *_stamp: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
