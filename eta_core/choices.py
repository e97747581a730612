"""A value that must be one of a few names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")


def one_of(field: str, name: object, choices: Mapping[str, Value]) -> Value:
    """What `name` stands for among `choices`. Raises ValueError, with all names, for another.

    Hosts do not check the lists of every node: a script, or a workflow of another version, may send any text.
    """
    if not isinstance(name, str) or name not in choices:
        raise ValueError(f"{field} is {name!r}: use one of {', '.join(choices)}")
    return choices[name]
