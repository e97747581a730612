"""The regions of a word, of the edit and of the target's word: against the true outline, and by what an edit
makes of them: python dev.py bench regions
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from eta_core import masks
from eta_core.evidence import metrics

from ..demo import scenes
from ..demo.studio import DemoStudio
from .cases import Case, Start, cases, inverted
from .proof import ETAS, SEEDS, Measure, Settings, by_scene, cell

EDIT: Settings = {"cfg": 2.0, "eta": "1", "start": 0.6}  # the templates', chosen by `bench proof`
LEVELS = tuple(level / 40 for level in range(8, 25))
# grow and blur, in pixels
HARD: tuple[int, float] = (4, 0.0)  # that of the word's masks against which all others are measured
SHAPES: tuple[tuple[int, float], ...] = ((3, 2.0), (3, 2.5), (2, 3.0))
JOINED: tuple[int, float] = (1, 2.0)  # of the edit's region where it joins the word's
FIGURES = ("success", "background", "truth", "naturalness")
PAIRED = ("background", "truth")  # in which a region is to be above the word's mask
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


PLAIN = "word, as the attention is"
AUTO: Settings = {"auto_threshold": True}
FINDERS = (
    Finder(PLAIN, by_word, {}, True),
    Finder("word, refined", by_word, {"refine": True}, True),
    Finder("word, auto threshold", by_word, AUTO, False),
    Finder("word, refined, auto threshold", by_word, {"refine": True} | AUTO, False),
    Finder("edit, refined", by_edit, {"auto_threshold": False}, True),
    Finder("edit, refined, auto threshold", by_edit, AUTO, False),
)
WORD, ACTS = "word, refined, auto threshold", "edit, refined, auto threshold"
CEILING = "ceiling"
UNION = "union of the two"
TRIED = SEEDS[:2]  # on validation scenes
READ = 0.5  # of the steps, in which the target's word is read
AT = (0.6, 0.7, 0.8)  # thresholds of its attention to choose from


def regions(studio: DemoStudio, options: argparse.Namespace) -> list[str]:
    apart, measure = studio.narrow(), Measure()
    few, many = (
        [inverted(studio, case, options.steps) for case in cases(count, first + 4000)]
        for count, first in ((options.scenes, scenes.VALIDATION), (options.test_scenes, scenes.TEST + 3000))
    )
    chosen = {finder.name: _with_level(finder, few) for finder in FINDERS}
    found = {finder.name: [finder.find(start, chosen[finder.name]) for start in many] for finder in FINDERS}
    return [
        f"{options.test_scenes} test scenes, {options.steps} steps, the UNet at its trained width "
        f"({apart:.0e} apart); thresholds and shapes chosen on {options.scenes} validation scenes. Mean and "
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
            value for start, one in zip(starts, soft) for value in iou(masks.threshold(one, level), start)
        )

    return finder.inputs | {"threshold": max(LEVELS, key=overlap)}


def iou(mask: Tensor, start: Start) -> list[float]:
    """Of each picture's mask with the thing's true outline."""
    return metrics.iou(mask > 0.5, _case(start).truth > 0.5).tolist()


def _outlines(
    starts: Sequence[Start], found: dict[str, list[tuple[Tensor, Tensor]]], chosen: dict[str, Settings]
) -> list[str]:
    lines = ["| region | threshold | IoU with the thing's outline |", "|---|---|---|"]
    for name, pairs in found.items():
        ious = [value for start, (mask, _) in zip(starts, pairs) for value in iou(mask, start)]
        lines.append(f"| {name} | {chosen[name].get('threshold', 'auto')} | {cell(ious)} |")
    ceiling = [value for start in starts for value in iou(_pooled(start), start)]
    return [*lines, f"| {CEILING}: the outline itself on the attention's grid | 0.5 | {cell(ceiling)} |"]


def _pooled(start: Start) -> Tensor:
    """The true outline at the size of the words' maps, more than half covered, drawn in whole blocks."""
    grid = start.inversion.trajectory.maps.shape[-2:]
    pooled = masks.threshold(masks.resize_mask(_case(start).truth, tuple(grid)), 0.5)
    return masks.enlarge(pooled, tuple(_case(start).truth.shape[-2:]), hard=True)


class Row(NamedTuple):
    """A line of the table of edits. masks: of each start; words: the level of the target's word, or None."""

    name: str
    shape: str
    masks: list[Tensor]
    level: float | None = None


def _edits(
    options: argparse.Namespace,
    few: Sequence[Start],
    many: Sequence[Start],
    found: dict[str, list[tuple[Tensor, Tensor]]],
    chosen: dict[str, Settings],
    measure: Measure,
) -> list[str]:
    """What the templates' edit makes of each region, and a sheet of the first scene of every swap.

    A region's grow and blur are those whose smaller gain over the word's refined mask with a hard edge, in
    background or in truth, is the largest on the validation scenes; so is the level of the target's word.
    """
    finders = {finder.name: finder for finder in FINDERS}
    tried = {name: [finders[name].find(start, chosen[name])[0] for start in few] for name in (WORD, ACTS)}
    shown = {name: [mask for mask, _ in found[name]] for name in (PLAIN, WORD, ACTS)}
    ways = (UNION, WORD, ACTS)

    def shaped(name: str, tight: dict[str, list[Tensor]], shape: tuple[int, float]) -> list[Tensor]:
        if name != UNION:
            return _shaped(tight[name], shape)
        return _union([_shaped(tight[WORD], shape), _shaped(tight[ACTS], JOINED)])

    hard = _edited(few, shaped(WORD, tried, HARD), TRIED, measure)[0]

    def gain(regions: Sequence[Tensor], said: str, level: float | None = None) -> float:
        rows = _edited(few, regions, TRIED, measure, level)[0]
        gains = [_mean(rows, figure) - _mean(hard, figure) for figure in PAIRED]
        print(f"validation: {said}: {gains}", flush=True)
        return min(gains)

    shapes = {
        name: max(SHAPES, key=lambda shape: gain(shaped(name, tried, shape), f"{name}, {shape}"))
        for name in ways
    }
    around = shaped(WORD, tried, shapes[WORD])
    level = max(AT, key=lambda level: gain(around, f"the target's word above {level}", level))
    soft, outlines = shaped(WORD, shown, shapes[WORD]), [(_case(start).truth > 0.5).float() for start in many]
    new = [(_new_outline(start) > 0.5).float() for start in many]
    rows = [
        Row(PLAIN, _said(HARD), _shaped(shown[PLAIN], HARD)),
        Row(WORD, _said(HARD), shaped(WORD, shown, HARD)),
        Row(f"{WORD}, shaped; the target's word above {level} joins", _said(shapes[WORD]), soft, level),
        *(Row(f"{name}, shaped", _said(shapes[name]), shaped(name, shown, shapes[name])) for name in ways),
        Row(f"{CEILING}: the old thing's outline", _said(shapes[WORD]), _shaped(outlines, shapes[WORD])),
        Row(
            f"{CEILING}: the old and the new thing's outlines",
            _said(shapes[WORD]),
            _shaped(_union([outlines, new]), shapes[WORD]),
        ),
    ]
    columns, bases = [[_case(start).pictures for start in many]], []
    above = [f"{figure} above {name}" for name in ("the first", "the second") for figure in PAIRED]
    lines = [
        f"| region | grow, blur | {' | '.join((*FIGURES, *above))} |",
        "|---" * (2 + len(FIGURES) + len(above)) + "|",
    ]
    for row in rows:
        figures, pictures, used = _edited(many, row.masks, SEEDS, measure, row.level)
        bases += [figures] if len(bases) < 2 else []
        lines.append(_line(row, figures, bases))
        print(lines[-1], flush=True)
        if not row.name.startswith(CEILING):
            columns += [used, pictures]
    _draw(options, columns)
    return lines


def _union(parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Several masks of each start as one."""
    return [torch.stack(masks).amax(0) for masks in zip(*parts)]


def _said(shape: tuple[int, float]) -> str:
    return f"{shape[0]}, {shape[1]:g}"


def _shaped(tight: Sequence[Tensor], shape: tuple[int, float]) -> list[Tensor]:
    grow, blur = shape
    return [masks.blur(masks.dilate(one, grow), blur) for one in tight]


def _new_outline(start: Start) -> Tensor:
    """Where the wanted thing would stand in the scene."""
    case = _case(start)
    drawn = (scenes.render(seed, case.wanted, case.background).mask for seed in case.seeds)
    return torch.stack([torch.from_numpy(mask.copy()) for mask in drawn]).float() / 255


def _edited(
    starts: Sequence[Start],
    regions: Sequence[Tensor],
    seeds: Sequence[int],
    measure: Measure,
    level: float | None = None,
) -> tuple[list[dict], list[Tensor], list[Tensor]]:
    """Figures, all scenes of one seed after the other; the first seed's pictures, and the masks used there.

    level: of the target's own word, whose place joins the region; None for none.
    """
    rows: list[list[dict]] = [[] for _ in seeds]
    pictures, used = [], []
    for start, region in zip(starts, regions):
        latent, mask = _edit(start, region, seeds, level)
        case, every = _case(start), start.studio.decode(latent)
        count = len(case.batch)
        figures = measure(case._replace(batch=case.batch * len(seeds), seeds=case.seeds * len(seeds)), every)
        for i, of_seed in enumerate(rows):
            of_seed += figures[i * count : (i + 1) * count]
        pictures.append(every[:count])
        used.append(mask[:count])
    return [row for of_seed in rows for row in of_seed], pictures, used


def _edit(start: Start, region: Tensor, seeds: Sequence[int], level: float | None) -> tuple[Tensor, Tensor]:
    """The templates' edit under each of successive seeds, and the masks it used."""
    studio, own = start.studio, None
    if level is not None:
        words = {"words": _case(start).wanted, "read": READ, "threshold": level}
        own = studio.target_words(positive=start.target, target_prompt=start.texts[1], **words)
    held = {"mask": region, "background_lock": 1.0}
    settings = EDIT | {"positive": start.target, "eta": studio.eta(**ETAS[str(EDIT["eta"])])}
    drawn = {"seed": seeds[0], "variants": len(seeds)}
    latent, _, used = studio.edit_all(start.inversion, edit=own, **settings, **drawn, **held)
    return latent, used


def _mean(rows: Sequence[dict], figure: str) -> float:
    return statistics.mean(row[figure] for row in rows)


def _line(row: Row, rows: list[dict], bases: Sequence[list[dict]]) -> str:
    """bases: the first two rows' figures, as far as they are known."""
    count = len(rows) // len(SEEDS)
    cells = [cell(by_scene(rows, figure, count)) for figure in FIGURES]
    for base, figure in product(bases, PAIRED):
        pairs = zip(by_scene(rows, figure, count), by_scene(base, figure, count))
        cells.append(cell([mine - theirs for mine, theirs in pairs]))
    cells += [""] * (len(PAIRED) * (2 - len(bases)))
    return f"| {row.name} | {row.shape} | {' | '.join(cells)} |"


def _draw(options: argparse.Namespace, columns: Sequence[Sequence[Tensor]]) -> None:
    """A line for each of ten scenes: heatmaps, masks and edits side by side."""
    rows = []
    for each in list(zip(*columns))[:SHOWN]:
        first = [part[0] for part in each]
        rows.append(
            torch.cat([part[..., None].expand(-1, -1, 3) if part.ndim == 2 else part for part in first], 1)
        )
    Image.fromarray((torch.cat(rows) * 255).byte().numpy()).save(options.out / "regions.jpg", quality=88)
