"""What a node is given, checked against what it says of its inputs.

The host checks what stands in a widget, and hands on what comes by a link unseen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from comfy_api.latest import io

from ..eta_core.choices import one_of

# Lists that grow while the host runs, and inputs whose own check knows the reason.
CHECKED_ELSEWHERE = ("file", "source_file", "steps", "start", "giver")


def check_inputs(schema: io.Schema, given: Mapping[str, object]) -> None:
    """Raises ValueError for a number outside its range, and for a choice that is not in its list."""
    for wanted in schema.inputs:
        value = given.get(wanted.id)
        if value is None or wanted.id in CHECKED_ELSEWHERE:
            continue
        if isinstance(wanted, (io.Int.Input, io.Float.Input)):
            _check_number(wanted, value)
        elif isinstance(wanted, io.Combo.Input):
            one_of(wanted.id, value, dict.fromkeys(map(str, wanted.options or ())))


def _check_number(wanted: io.Int.Input | io.Float.Input, value: object) -> None:
    whole = isinstance(wanted, io.Int.Input)
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
        raise ValueError(f"{wanted.id} is {value!r}: it must be a {'whole ' if whole else ''}number")
    low, high = wanted.min, wanted.max
    if (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(f"{wanted.id} = {value}: it runs from {low} to {high}; set it within")
