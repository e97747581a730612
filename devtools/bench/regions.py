"""A word's region and the edit's own: against the true outline, and by what an edit makes of them:
python dev.py bench regions
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from eta_core import masks
from eta_core.evidence import metrics

from ..demo import scenes
from ..demo.studio import DemoStudio
from .cases import REGION, Case, Start, cases, inverted
from .proof import SEEDS, WAYS, Measure, Settings, by_scene, cell

EDIT: Settings = {"cfg": 2.0, "eta": "1", "start": 0.6}  # the templates', chosen by `bench proof`
LEVELS = tuple(level / 40 for level in range(8, 25))
GROWS = (2, 3, 4, 5, 6)
FIGURES = ("success", "background", "truth", "naturalness")
SHOWN = 10
Find = Callable[[Start, Settings], tuple[Tensor, Tensor]]


class Finder(NamedTuple):
    """A way to a region, as inputs of its node. level: whether its threshold is to be chosen."""

    name: str
    find: Find
    inputs: Settings
    level: bool


def by_word(start: Start, inputs: Settings) -> tuple[Tensor, Tensor]:
    given: dict = {"source_prompt": start.texts[0], "image": _case(start).pictures} | inputs
    return start.studio.region(start.inversion, _case(start).thing, **given)


def by_edit(start: Start, inputs: Settings) -> tuple[Tensor, Tensor]:
    given: dict = {"positive": start.target, "image": _case(start).pictures} | inputs
    return start.studio.edit_mask(start.inversion, **given)


def _case(start: Start) -> Case:
    if start.case is None:
        raise ValueError("no thing is known in this picture")
    return start.case


AUTO: Settings = {"auto_threshold": True}
FINDERS = (
    Finder("word, as the attention is", by_word, {}, True),
    Finder("word, refined", by_word, {"refine": True}, True),
    Finder("word, auto threshold", by_word, AUTO, False),
    Finder("word, refined, auto threshold", by_word, {"refine": True} | AUTO, False),
    Finder("edit, refined", by_edit, {"auto_threshold": False}, True),
    Finder("edit, refined, auto threshold", by_edit, AUTO, False),
)
TEMPLATES = "word, the templates'"
EDITED = ("word, refined, auto threshold", "edit, refined, auto threshold")


def regions(studio: DemoStudio, options: argparse.Namespace) -> list[str]:
    apart, measure = studio.narrow(), Measure()
    few, many = (
        [inverted(studio, case, options.steps) for case in cases(count, first + 4000)]
        for count, first in ((options.scenes, scenes.VALIDATION), (options.test_scenes, scenes.TEST + 1000))
    )
    chosen = {finder.name: _with_level(finder, few) for finder in FINDERS}
    found = {finder.name: [finder.find(start, chosen[finder.name]) for start in many] for finder in FINDERS}
    return [
        f"{options.test_scenes} test scenes, {options.steps} steps, the UNet at its trained width "
        f"({apart:.0e} apart); thresholds and grow chosen on {options.scenes} validation scenes. Mean and "
        "standard error over scenes.",
        "",
        *_outlines(many, found, chosen),
        "",
        *_edits(options, few, many, found, chosen, measure),
    ]


def _with_level(finder: Finder, starts: Sequence[Start]) -> Settings:
    """The finder's inputs with the threshold of the highest IoU."""
    if not finder.level:
        return finder.inputs
    soft = [finder.find(start, finder.inputs | {"threshold": 0.0})[0] for start in starts]

    def overlap(level: float) -> float:
        return statistics.mean(
            value for start, one in zip(starts, soft) for value in _iou(masks.threshold(one, level), start)
        )

    return finder.inputs | {"threshold": max(LEVELS, key=overlap)}


def _iou(mask: Tensor, start: Start) -> list[float]:
    return metrics.iou(mask > 0.5, _case(start).truth > 0.5).tolist()


def _outlines(
    starts: Sequence[Start], found: dict[str, list[tuple[Tensor, Tensor]]], chosen: dict[str, Settings]
) -> list[str]:
    lines = ["| region | threshold | IoU with the thing's outline |", "|---|---|---|"]
    for name, pairs in found.items():
        ious = [value for start, (mask, _) in zip(starts, pairs) for value in _iou(mask, start)]
        lines.append(f"| {name} | {chosen[name].get('threshold', 'auto')} | {cell(ious)} |")
    ceiling = [value for start in starts for value in _iou(_pooled(start), start)]
    return [*lines, f"| ceiling: the outline itself on the attention's grid | 0.5 | {cell(ceiling)} |"]


def _pooled(start: Start) -> Tensor:
    """The true outline at the size of the words' maps, more than half covered, drawn in whole blocks."""
    grid = start.inversion.trajectory.maps.shape[-2:]
    pooled = masks.threshold(masks.resize_mask(_case(start).truth, tuple(grid)), 0.5)
    return masks.enlarge(pooled, tuple(_case(start).truth.shape[-2:]), hard=True)


def _edits(
    options: argparse.Namespace,
    few: Sequence[Start],
    many: Sequence[Start],
    found: dict[str, list[tuple[Tensor, Tensor]]],
    chosen: dict[str, Settings],
    measure: Measure,
) -> list[str]:
    """What the templates' edit makes of each region, and a sheet of the first scene of every swap.

    grow is the one whose smaller gain over the templates' mask, in background or in truth, is the largest on
    the validation scenes.
    """
    finders = {finder.name: finder for finder in FINDERS}
    plain = _edited(few, [start.mask() for start in few], SEEDS[:1], measure)[0]
    base, pictures = _edited(many, [start.mask() for start in many], SEEDS, measure)
    columns = [[_case(start).pictures for start in many], [start.mask() for start in many], pictures]
    lines = [
        f"| region | grow | {' | '.join(FIGURES)} | background above | truth above |",
        "|---" * (len(FIGURES) + 4) + "|",
        _line(TEMPLATES, REGION["grow"], base, base),
    ]
    for name in EDITED:
        tight = [finders[name].find(start, chosen[name])[0] for start in few]

        def gain(grow: int, name: str = name, tight: list[Tensor] = tight) -> float:
            rows = _edited(few, [masks.dilate(one, grow) for one in tight], SEEDS[:1], measure)[0]
            gains = {figure: _mean(rows, figure) - _mean(plain, figure) for figure in ("background", "truth")}
            print(f"validation: {name}, grow {grow}: {gains}", flush=True)
            return min(gains.values())

        grow = max(GROWS, key=gain)
        regions = [masks.dilate(mask, grow) for mask, _ in found[name]]
        rows, pictures = _edited(many, regions, SEEDS, measure)
        lines.append(_line(name, grow, rows, base))
        columns += [[heat for _, heat in found[name]], regions, pictures]
        print(lines[-1], flush=True)
    _draw(options, columns)
    return lines


def _edited(
    starts: Sequence[Start], regions: Sequence[Tensor], seeds: Sequence[int], measure: Measure
) -> tuple[list[dict], list[Tensor]]:
    """Figures, all scenes of one seed after the other, and the last seed's pictures."""
    rows, pictures = [], []
    for seed in seeds:
        pictures = [
            start.studio.decode(WAYS[0].run(start, region, EDIT, seed))
            for start, region in zip(starts, regions)
        ]
        rows += [row for start, each in zip(starts, pictures) for row in measure(_case(start), each)]
    return rows, pictures


def _mean(rows: Sequence[dict], figure: str) -> float:
    return statistics.mean(row[figure] for row in rows)


def _line(name: str, grow: object, rows: list[dict], base: list[dict]) -> str:
    count = len(rows) // len(SEEDS)
    cells = [cell(by_scene(rows, figure, count)) for figure in FIGURES]
    for figure in ("background", "truth"):
        pairs = zip(by_scene(rows, figure, count), by_scene(base, figure, count))
        cells.append(cell([mine - theirs for mine, theirs in pairs]))
    return f"| {name} | {grow} | {' | '.join(cells)} |"


def _draw(options: argparse.Namespace, columns: Sequence[Sequence[Tensor]]) -> None:
    """A line for each of ten scenes: heatmaps, masks and edits side by side."""
    rows = []
    for each in list(zip(*columns))[:SHOWN]:
        first = [part[0] for part in each]
        rows.append(
            torch.cat([part[..., None].expand(-1, -1, 3) if part.ndim == 2 else part for part in first], 1)
        )
    Image.fromarray((torch.cat(rows) * 255).byte().numpy()).save(options.out / "regions.jpg", quality=88)
