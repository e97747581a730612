"""A seed for everything that is drawn: 0 in the suite, another each round of `python dev.py attack`."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest

SEED = int(os.environ.get("ETA_ATTACK_SEED", "0"))
ROUNDS = int(os.environ.get("ETA_ATTACK_ROUNDS", "1"))


# what hypothesis draws has the seed too: `python dev.py attack` gives it with --hypothesis-seed
hypothesis.settings.register_profile(
    "attack", max_examples=100 * ROUNDS, derandomize=not SEED, deadline=None, database=None
)
hypothesis.settings.load_profile("attack")


def pytest_report_header() -> str:
    return f"attack seed: {SEED}"


@pytest.fixture
def draw(request) -> random.Random:
    """What a test draws from, of its own for each test and seed."""
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture
def rounds() -> int:
    """How many times as much as in the suite is tried."""
    return ROUNDS


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """A real disk at a folder, with room for 16 kB."""
    folder.mkdir(parents=True)
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system may be mounted here: a full disk is not tried")
    try:
        (folder / "filling").write_bytes(bytes(240 << 10))
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
