"""JSON that others wrote, read within limits of size and depth."""

from __future__ import annotations

import json
import re
from typing import Any

LARGEST, DEEPEST, DIGITS = 4_000_000, 64, 25
STRINGS_AND_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def read_json(text: str | bytes, what: str, largest: int = LARGEST) -> Any:
    """The value of a JSON text. Raises ValueError, which names `what`, where it is none.

    Also for more than `largest` characters, for brackets deeper than DEEPEST, for whole numbers of more than
    DIGITS digits, and where an object names something twice.
    """
    if len(text) > largest:
        raise ValueError(f"{what} has {len(text)} characters: at most {largest} are read")
    try:
        text = text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} is not UTF-8 (byte {error.start})") from None
    if (depth := _depth(text)) > DEEPEST:
        raise ValueError(f"{what} is nested {depth} deep: at most {DEEPEST} are read")
    try:
        return json.loads(text, object_pairs_hook=_without_repeats, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise ValueError(f"{what} is no JSON: {error}") from None
    except _Refused as error:
        raise ValueError(f"{what} {error}") from None


class _Refused(Exception):
    pass


def _depth(text: str) -> int:
    deepest = depth = 0
    for found in STRINGS_AND_BRACKETS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        deepest = max(deepest, depth)
    return deepest


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Refused(f"names {twice[:80]} twice: write it in one place")
    return found


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise _Refused(f"has a number of {len(digits)} digits ({digits[:8]}...): at most {DIGITS} are read")
    return int(digits)
