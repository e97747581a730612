"""EtaKeep's search on planted edits, and what large pictures take: python dev.py bench keep"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from eta_core.blend import Seam
from eta_core.keep import Move, follow, keep
from eta_core.place import Fit, crop, place, resize, stitch

from ..demo import scenes
from ..demo.studio import DemoStudio, pixels_of
from .meters import ProcessMeter

SIDE = 512  # pixels to which a scene is enlarged
MOST_SHIFT, MOST_ZOOM = 12.0, 0.03
GAIN, OFFSET = (0.92, 1.05, 0.95), (0.02, -0.02, 0.03)  # the editor's tint
SEEN = 6 / 255  # a smaller difference is no planted change
LARGE = (4000, 6000)


class Planted(NamedTuple):
    """A source, its edit as an editor gives it back, the region that changed, and how it was moved."""

    source: Tensor
    edited: Tensor
    region: Tensor
    zoom: float
    shift: tuple[float, float]


def search(studio: DemoStudio, options: argparse.Namespace) -> list[str]:
    """The tables' lines."""
    contents: dict[str, Callable[[Tensor], Tensor]] = {
        "another scene, in negative": lambda other: 1 - other,
        "another scene": lambda other: other,
    }
    lines = [
        f"{options.test_scenes} scenes at {SIDE} pixels, an ellipse of each replaced, then shifted by up to "
        f"{MOST_SHIFT:g} pixels, zoomed by up to {100 * MOST_ZOOM:g} %, tinted and rounded to 8 bits.",
        "",
        "| in the ellipse | zoom, largest error | shift, largest error | IoU, least / median "
        "| region over the true one, at most | pixels that differ beyond the seam |",
        "|---|---|---|---|---|---|",
    ]
    for name, content in contents.items():
        rows = [_measured(each) for each in _planted(options.test_scenes, content)]
        zoom, shift, iou, over, beyond = ([row[i] for row in rows] for i in range(5))
        lines.append(
            f"| {name} | {100 * max(zoom):.3f} % | {max(shift):.3f} px | {min(iou):.3f} / {median(iou):.3f} "
            f"| {max(over):.2f} | {max(beyond)} |"
        )
    return [*lines, "", *_large()]


def _planted(count: int, content: Callable[[Tensor], Tensor]) -> Iterator[Planted]:
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    for i in range(count):
        source, other = _scene(i), _scene(i + count)
        down, across, high, wide = (draw(*span) for span in ((160, 352), (160, 352), (45, 105), (45, 105)))
        ellipse = ((y - down) / high) ** 2 + ((x - across) / wide) ** 2 < 1
        edit = torch.where(ellipse[..., None], content(other), source)
        zoom = 1 + draw(-MOST_ZOOM, MOST_ZOOM)
        shift = (draw(-MOST_SHIFT, MOST_SHIFT), draw(-MOST_SHIFT, MOST_SHIFT))
        back = Move((1 / zoom, 1 / zoom), (-shift[0] / zoom, -shift[1] / zoom))
        tinted = follow(edit, back, (SIDE, SIDE))[0] * torch.tensor(GAIN) + torch.tensor(OFFSET)
        edited = (tinted.clamp(0, 1) * 255).round() / 255
        yield Planted(source, edited, (edit - source).abs().amax(-1) > SEEN, zoom, shift)


def _scene(number: int) -> Tensor:
    thing = scenes.THINGS[number % len(scenes.THINGS)]
    where = scenes.BACKGROUNDS[number % len(scenes.BACKGROUNDS)]
    picture = pixels_of([scenes.render(scenes.TEST + number, thing, where)])
    return (resize(picture, (SIDE, SIDE))[0] * 255).round() / 255


def _measured(planted: Planted) -> tuple[float, float, float, float, int]:
    """Errors of zoom and shift, the region's IoU, its size over the true one, and what differs beyond it."""
    kept = keep(planted.source, planted.edited, Seam())
    found, truth = kept.mask > 0, planted.region
    return (
        max(abs(zoom - planted.zoom) for zoom in kept.move.zoom),
        max(abs(a - b) for a, b in zip(kept.move.shift, planted.shift)),
        float((found & truth).sum() / (found | truth).sum()),
        float(found.sum() / truth.sum()),
        int((kept.picture != planted.source).any(-1)[kept.shown == 0].sum()),
    )


def _large() -> Iterator[str]:
    """Time and peak memory of 24 megapixels."""
    yield f"{LARGE[1]}x{LARGE[0]} pixels of enlarged noise; memory in float32 pictures of that size."
    yield ""
    yield "| | seconds | peak, the source counted |"
    yield "|---|---|---|"
    jobs = {
        "EtaCrop and EtaStitch, a region of 1000x800": lambda source: _stitched(source, (800, 1000)),
        "the same, a region of 5600x3600": lambda source: _stitched(source, (3600, 5600)),
        "EtaKeep, an edit of 1224x816": _kept,
    }
    meter = ProcessMeter()
    for name, job in jobs.items():
        noise = torch.rand(1, 200, 300, 3, generator=torch.Generator().manual_seed(1))
        before = meter.settled()
        source = resize(noise, LARGE)
        whole = source.nbytes / 2**20
        meter.settled()
        start = time.perf_counter()
        job(source)
        yield f"| {name} | {time.perf_counter() - start:.1f} | {(meter.peak() - before) / whole:.2f} |"
        del source


def _stitched(source: Tensor, region: tuple[int, int]) -> Tensor:
    mask = torch.zeros(1, *LARGE)
    top, left = ((side - part) // 2 for side, part in zip(LARGE, region))
    mask[:, top : top + region[0], left : left + region[1]] = 1
    where = place(mask, Fit())
    del mask
    parts, _ = crop(source, where)
    return stitch(source, parts.mul_(0.9), where, Seam())[0]


def _kept(source: Tensor) -> Tensor:
    edited = resize(source, (816, 1224))[0]
    edited[300:500, 400:700] = 1 - edited[300:500, 400:700]
    return keep(source[0], edited, Seam()).picture
