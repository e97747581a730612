"""A seed for everything that is drawn: 0 in the suite, another each round of `python dev.py attack`."""

from __future__ import annotations

import os
import random

import pytest

SEED = int(os.environ.get("ETA_ATTACK_SEED", "0"))
ROUNDS = int(os.environ.get("ETA_ATTACK_ROUNDS", "1"))


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
