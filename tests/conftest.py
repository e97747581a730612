"""The repository root comes last on sys.path: nodes/ must not shadow the host's module `nodes`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

LONGEST = ("test_golden.py",)  # minutes in one process: begun last, it would leave the other without work


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)
