"""A photograph edited in part: what stays exact outside the region, and how the seam looks.

Each scene is drawn large, a crop of it is edited at the model's own size, and put back by the host's
ImageCompositeMasked and by EtaStitch. Beside them: the whole picture edited
small, with the latent lock alone.
"""

from __future__ import annotations

import argparse
import json
import math
from statistics import median

import torch.nn.functional as F
from torch import Tensor

from eta_core.blend import RING, Seam, colour_map, distance
from eta_core.place import Place, resize

from ..demo.studio import DemoStudio
from .cases import cases, inverted

SCALE, SIDE = 4, 128  # a scene of SIDE pixels is enlarged by SCALE; the model works at SIDE
SEAM = {"grow": 4, "feather": 12, "match_colour": 1.0, "grain": 0.0}
WAYS = ("latent lock alone", "ImageCompositeMasked", "EtaStitch")


def full_size(studio: DemoStudio, options: argparse.Namespace) -> list[str]:
    """The table's lines; the raw figures go to options.out."""
    studio.narrow()
    rows = [
        row
        for case in cases(options.test_scenes, options.first_seed)
        for i in range(len(case.batch))
        for row in _scene(
            studio, case._replace(batch=case.batch[i : i + 1], seeds=case.seeds[i : i + 1]), options.steps
        )
    ]
    (options.out / "full_size.json").write_text(json.dumps(rows, indent=1))
    return _table(rows)


def _scene(studio: DemoStudio, case, steps: int) -> list[dict]:
    size = (SIDE * SCALE, SIDE * SCALE)
    source = (resize(case.pictures, size) * 255).round() / 255
    mask = F.interpolate((case.truth[:, None] > 0.5).float(), size)[:, 0]
    call = studio.host.call
    part, _, place = call(
        "EtaCrop",
        image=source,
        mask=mask,
        megapixels=SIDE**2 / 1024**2,
        multiple=8,
        context=0.5,
        shape="square",
    )
    edited, locked = (_edit(studio, case, steps, pixels) for pixels in (part, case.pictures))
    stitched, _ = call("EtaStitch", source=source, edited=edited, place=place, **SEAM)
    pictures = dict(zip(WAYS, (resize(locked, size), _composite(studio, source, edited, place), stitched)))
    ring = _ring_error(source, edited, place)
    return [
        {"way": way} | ring | _figures(source[0], picture[0], mask[0]) for way, picture in pictures.items()
    ]


def _edit(studio: DemoStudio, case, steps: int, pixels: Tensor) -> Tensor:
    """The case's swap, held to the word's own region by the latent lock."""
    start = inverted(studio, case, steps, pixels)
    return studio.decode(
        start.edit(
            studio.eta(preset="paper_gentle"),
            mask=start.mask(),
            background_lock=1.0,
            edit=start.method("Plug-and-Play"),
        )
    )


def _composite(studio: DemoStudio, source: Tensor, edited: Tensor, place: Place) -> Tensor:
    """The host's own way with the same crop: resize the part and lay it in under the mask."""
    (window,) = place.windows
    return studio.host.call(
        "ImageCompositeMasked",
        destination=source,
        source=resize(edited, (window.mask.shape[0], window.mask.shape[1])),
        x=window.left,
        y=window.top,
        resize_source=False,
        mask=window.mask[None],
    )[0]


def _figures(source: Tensor, picture: Tensor, mask: Tensor) -> dict[str, float]:
    """What differs outside the declared region, and gradients over the source's.

    edge: where touched pixels meet untouched ones. jump: the steepest shell of one pixel around the mask.
    """
    reach = Seam().reach
    away = distance(mask > 0, reach + RING)
    outside = away > reach
    seen = (picture * 255).round() != source * 255
    before, after = _gradient(source), _gradient(picture)
    shells = [(away > d) & (away <= d + 1) for d in range(reach + 1)]
    touched = (picture != source).any(-1)
    rim = (distance(touched, 1) <= 1) & (distance(~touched, 1) <= 1)
    return {
        "edge": float(after[rim].mean() / before[rim].mean().clamp(min=1e-6))
        if bool(rim.any())
        else math.nan,
        "differing": int((seen.any(-1) & outside).sum()),
        "jump": max(_over(after, before, shell) for shell in shells),
    }


def _over(after: Tensor, before: Tensor, where: Tensor) -> float:
    return float(after[where].mean() / before[where].mean().clamp(min=1e-6))


def _ring_error(source: Tensor, edited: Tensor, place: Place) -> dict[str, float]:
    """Mean colour difference of part and source on the ring, in levels, before and after the match."""
    (window,) = place.windows
    there = window.of(source)
    here = resize(edited, (there.shape[0], there.shape[1]))[0]
    reach = Seam().reach
    away = distance(window.mask > 0, reach + RING)
    ring = (away > reach) & (away <= reach + RING)
    wanted, given = there[ring], here[ring]
    matched = colour_map(wanted, given)(given)
    return {
        name: 255 * float((colours - wanted).abs().mean())
        for name, colours in (("ring_before", given), ("ring_after", matched))
    }


def _gradient(picture: Tensor) -> Tensor:
    """How much each pixel differs from its neighbours below and to the right [H, W]."""
    down = F.pad((picture[1:] - picture[:-1]).abs().sum(-1), (0, 0, 0, 1))
    return down + F.pad((picture[:, 1:] - picture[:, :-1]).abs().sum(-1), (0, 1))


def _table(rows: list[dict]) -> list[str]:
    lines = [
        f"{len(rows) // len(WAYS)} scenes at {SIDE * SCALE} pixels.",
        "",
        "Gradients are over the source's own at the same pixels, medians.",
        "",
        "| way | pixels that differ outside, at most | gradient at the edge | steepest around the mask |",
        "|---|---|---|---|",
    ]
    for way in WAYS:
        own = [row for row in rows if row["way"] == way]
        edge, jump = (median(row[name] for row in own) for name in ("edge", "jump"))
        lines.append(f"| {way} | {max(row['differing'] for row in own)} | {edge:.2f} | {jump:.2f} |")
    before, after = (median(row[name] for row in rows) for name in ("ring_before", "ring_after"))
    return [*lines, "", f"Colour error on the ring: {before:.1f} levels before the match, {after:.1f} after."]
