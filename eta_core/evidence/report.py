"""The figures of a batch of pictures as a value that travels as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..plain_json import read_json

LARGEST = 32_000_000  # characters: a million figures
Figures = Mapping[str, float]


@dataclass(frozen=True)
class Report:
    """Figures of each picture by the names of metrics.METRICS, and why some were not measured."""

    pictures: tuple[Figures, ...]
    not_measured: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)

    def mean(self) -> dict[str, float]:
        """The mean of each figure over the pictures that have it; nan where none has."""
        names = dict.fromkeys(name for picture in self.pictures for name in picture)
        return {
            name: _mean([p[name] for p in self.pictures if not math.isnan(p.get(name, math.nan))])
            for name in names
        }

    def to_json(self) -> str:
        """{"pictures": [...], "mean": {...}, "not_measured": {...}, "settings": {...}} with nan null,
        infinity "inf".
        """
        return json.dumps(
            {
                "pictures": [plain(picture) for picture in self.pictures],
                "mean": plain(self.mean()),
                "not_measured": dict(self.not_measured),
                "settings": dict(self.settings),
            },
            indent=1,
            allow_nan=False,
        )


def plain(figures: Figures) -> dict[str, float | str | None]:
    """Figures as JSON can hold them: nan is None, infinity "inf"."""
    return {
        name: None if math.isnan(value) else value if math.isfinite(value) else str(value)
        for name, value in figures.items()
    }


def report_of_json(text: str) -> Report:
    """The report of to_json's text, or of one picture's figures {name: value}. ValueError for others.

    Figures of other names are kept: a newer pack may measure more.
    """
    try:
        found = read_json(text, "the text", LARGEST)
    except ValueError as error:
        raise ValueError(
            f"the figures are no JSON that can be read ({error}): connect the output figures of EtaMetrics"
        ) from None
    whole: dict = found if isinstance(found, dict) else {}
    if whole and "pictures" not in whole:
        whole = {"pictures": [whole]}
    pictures = whole.get("pictures")
    if not isinstance(pictures, list) or not pictures or not all(isinstance(p, dict) and p for p in pictures):
        raise ValueError("the figures name no picture: connect the output figures of EtaMetrics")
    reasons, settings = (_object(whole, name) for name in ("not_measured", "settings"))
    return Report(
        tuple({name: _number(name, value) for name, value in picture.items()} for picture in pictures),
        {name: str(reason) for name, reason in reasons.items()},
        settings,
    )


def _object(whole: dict, name: str) -> dict:
    found = whole.get(name, {})
    if not isinstance(found, dict):
        raise ValueError(f"{name} of the figures is {str(found)[:80]!r}: it must be an object")
    try:
        json.dumps(found, allow_nan=False)
    except ValueError:
        raise ValueError(
            f"{name} of the figures holds a number that is not finite: write it as text"
        ) from None
    return found


def _number(name: str, value: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not (isinstance(value, (int, float)) or value in ("inf", "-inf")):
        raise ValueError(
            f'{name} is {value!r} in the figures: it must be a number, "inf", or null where it was not '
            "measured"
        )
    return float(value)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
