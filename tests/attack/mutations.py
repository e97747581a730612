"""Values that a stranger might put in the place of a right one."""

from __future__ import annotations

import copy
import random

ODD = (
    *(None, True, -1, 0, 1, 2**63, -(2**70), 1e308, -0.0, 1e-320, float("nan"), float("inf"), 0.5),
    *("", "x", "0", "-1", "\u0000", "\ud800", "a" * 5000, "<img src=x onerror=alert(1)>", "../../etc/passwd"),
    *([], [[]], {}, {"": ""}, [None], [1, "a"], {"tensor": "x"}, {"pass": {}}, ["x"] * 300),
)


def mutated(value: object, draw: random.Random, changes: int = 1) -> object:
    """A copy of a JSON value with a few places changed: another value, one left out, one twice, one more."""
    value = copy.deepcopy(value)
    for _ in range(changes):
        places = list(_places(value))
        if not places:
            return copy.deepcopy(draw.choice(ODD))
        holder, key = draw.choice(places)
        what = draw.random()
        if what < 0.7:
            holder[key] = copy.deepcopy(draw.choice(ODD))
        elif what < 0.85:
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        else:
            holder[draw.choice(("more", "", "x"))] = copy.deepcopy(draw.choice(ODD))
    return value


def _places(value: object):
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def words(draw: random.Random, most: int = 12) -> str:
    """A prompt, a list of words, or what is neither."""
    parts = (
        "cat",
        "dog",
        "16:9",
        "(red:1.2)",
        "a",
        "、",
        "：",
        ",",
        ":",
        "(",
        ")",
        "\n",
        "猫",
        "é",
        "🐈",
        "-",
        "0.5",
        "embedding:x",
        "\\",
        "{a|b}",
        "<b>",
        "\u200b",
        "'s",
        "word " * 40,
    )
    return draw.choice(("", " ")).join(draw.choice(parts) for _ in range(draw.randrange(most)))
