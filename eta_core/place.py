"""The part of a photograph around a region, and its way back: crop, edit at the model's size, put back.

Outside the region, the mask and `reach` pixels around it, the picture put back is the source bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import masks
from .blend import Seam, blend

MARGIN = 48  # least pixels of context around a region, so that the seam's reach and its ring fit
COARSE = 256  # regions are told apart on a mask of at most this side
MOST_STRETCH = 0.02  # an edited part's shape may differ from the crop's by this


@dataclass(frozen=True, eq=False)
class Window:
    """A rectangle of picture `picture` of the batch. mask [height, width] in 0..1: its region."""

    picture: int
    top: int
    left: int
    mask: Tensor

    def of(self, pictures: Tensor) -> Tensor:
        """This window of pictures [B, H, W, ...]: a view [height, width, ...]."""
        height, width = self.mask.shape
        return pictures[self.picture, self.top : self.top + height, self.left : self.left + width]


@dataclass(frozen=True, eq=False)
class Place:
    """Where edited parts belong. source: (B, H, W); size: the parts' (height, width) for the model."""

    source: tuple[int, int, int]
    size: tuple[int, int]
    windows: tuple[Window, ...]


@dataclass(frozen=True)
class Fit:
    """How parts are cut. pixels: their area at the model's size; multiple: of both sides.

    context: room around the region, in parts of its larger side. shape: "region", "picture" or "square".
    apart: each region of a picture is a part of its own.
    """

    pixels: int = 1024 * 1024
    multiple: int = 8
    context: float = 0.5
    shape: str = "region"
    apart: bool = False


SHAPES = ("region", "picture", "square")
Box = tuple[int, int, int, int]  # top, left, height, width


def place(mask: Tensor, fit: Fit) -> Place:
    """The windows around the regions of a mask [B, H, W] in 0..1. Raises ValueError where one is empty."""
    batch, height, width = mask.shape
    regions = [(i, region) for i in range(batch) for region in (_apart(mask[i]) if fit.apart else [mask[i]])]
    boxes = [_box(region, i) for i, region in regions]
    boxes = [_roomy(box, fit.context, (height, width)) for box in boxes]
    size = _model_size(_shape(boxes, (height, width), fit.shape), fit)
    boxes = [_shaped(box, size, (height, width)) for box in boxes]
    windows = [
        Window(i, top, left, region[top : top + high, left : left + wide].clone())
        for (i, region), (top, left, high, wide) in zip(regions, boxes)
    ]
    return Place((batch, height, width), size, tuple(windows))


def crop(pictures: Tensor, where: Place) -> tuple[Tensor, Tensor]:
    """The parts [N, h, w, C] of pictures [B, H, W, C] at the model's size, and their masks [N, h, w]."""
    parts = [resize(window.of(pictures)[None], where.size) for window in where.windows]
    regions = [resize_region(window.mask[None], where.size) for window in where.windows]
    return torch.cat(parts), torch.cat(regions)


def stitch(source: Tensor, parts: Tensor, where: Place, seam: Seam) -> tuple[Tensor, Tensor]:
    """The source [B, H, W, C] with the edited parts in place, and how much of them shows [V * B, H, W].

    parts: [V * N, h, w, C], N parts of one variant after the other; every variant gives B pictures.
    Raises ValueError where source, parts and place do not belong together or the seam has no room.
    """
    batch, height, width = where.source
    if tuple(source.shape[:3]) != where.source:
        raise ValueError(
            f"source is {_by(source.shape[1:3])}, {len(source)} pictures; the crop was made of "
            f"{_by((height, width))}, {batch}: connect the picture that went into EtaCrop, at its own size"
        )
    variants, rest = divmod(len(parts), len(where.windows))
    if rest or not variants:
        raise ValueError(
            f"there are {len(parts)} edited parts for {len(where.windows)} places: give one part for each "
            "place, or whole variants of them"
        )
    stretch = parts.shape[1] * where.size[1] / (parts.shape[2] * where.size[0])
    if abs(stretch - 1) > MOST_STRETCH:
        raise ValueError(
            f"the edited part is {_by(parts.shape[1:3])}, the crop {_by(where.size)}: the shape must be the "
            "same; do not crop between EtaCrop and EtaStitch"
        )
    for window in where.windows:
        _check_room(window, (height, width), seam)
    result = source.repeat(variants, 1, 1, 1)
    shown = None
    for i, part in enumerate(parts):
        variant, number = divmod(i, len(where.windows))
        window = where.windows[number]
        at = Window(variant * batch + window.picture, window.top, window.left, window.mask)
        edited = resize(part[None], (window.mask.shape[0], window.mask.shape[1]))[0]
        # Statistics come from the source, so that the order of overlapping parts does not matter to them.
        weight = blend(at.of(result), window.of(source), edited, window.mask, seam)
        del edited  # the size of its window: of a large photograph, the whole
        shown = torch.zeros(result.shape[:3]) if shown is None else shown
        torch.maximum(at.of(shown), weight, out=at.of(shown))
        del weight
    assert shown is not None  # there is a part at least
    return result, shown


def resize(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, H, W, C] at another size, bicubic, without aliasing where it shrinks; in 0..1."""
    if tuple(pictures.shape[1:3]) == tuple(size):
        return pictures.clone()
    shrinks = size[0] < pictures.shape[1] or size[1] < pictures.shape[2]
    result = pictures.new_empty(len(pictures), *size, pictures.shape[-1])
    for channel, plane in zip(result.unbind(-1), pictures.unbind(-1)):  # one at a time, to keep memory small
        channel.copy_(F.interpolate(plane[:, None], size, mode="bicubic", antialias=shrinks)[:, 0])
    return result.clamp_(0, 1)


def resize_region(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask [B, H, W] at another size; a hard one stays hard, and no part of it gets lost."""
    soft = F.interpolate(mask[:, None], size, mode="bilinear", antialias=True)[:, 0].clamp_(0, 1)
    hard = bool(((mask == 0) | (mask == 1)).all())
    return (soft > 1e-3).to(mask.dtype) if hard else soft


def _box(region: Tensor, picture: int) -> Box:
    rows, columns = (region > 0).any(1).nonzero(), (region > 0).any(0).nonzero()
    if not len(rows):
        raise ValueError(
            f"the mask of picture {picture + 1} is empty: paint a region, or lower its threshold"
        )
    top, left = int(rows[0]), int(columns[0])
    return top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left


def _roomy(box: Box, context: float, size: tuple[int, int]) -> Box:
    """The box with context around it, cut at the picture's border."""
    top, left, high, wide = box
    room = max(MARGIN, round(context * max(high, wide)))
    start = max(0, top - room), max(0, left - room)
    end = min(size[0], top + high + room), min(size[1], left + wide + room)
    return start[0], start[1], end[0] - start[0], end[1] - start[1]


def _shape(boxes: list[Box], size: tuple[int, int], shape: str) -> float:
    """Height over width of the parts; of several regions, that of the largest."""
    if shape == "square":
        return 1.0
    largest = max(boxes, key=lambda box: box[2] * box[3])
    high, wide = size if shape == "picture" else largest[2:]
    return high / wide


def _model_size(shape: float, fit: Fit) -> tuple[int, int]:
    shape = min(max(shape, 1 / 4), 4.0)  # beyond it no model is at home; the window is widened instead
    sides = (fit.pixels * shape) ** 0.5, (fit.pixels / shape) ** 0.5
    high, wide = (max(fit.multiple, round(side / fit.multiple) * fit.multiple) for side in sides)
    return high, wide


def _shaped(box: Box, shape: tuple[int, int], size: tuple[int, int]) -> Box:
    """The box widened to a shape. At a border it moves inside; where the picture ends, it is cut."""
    top, left, high, wide = box
    new_high = min(size[0], max(high, round(wide * shape[0] / shape[1])))
    new_wide = min(size[1], max(wide, round(high * shape[1] / shape[0])))
    new_top = min(max(0, top - (new_high - high) // 2), size[0] - new_high)
    new_left = min(max(0, left - (new_wide - wide) // 2), size[1] - new_wide)
    return new_top, new_left, new_high, new_wide


def _apart(mask: Tensor) -> list[Tensor]:
    """The connected regions of a mask [H, W] as masks of their own, told apart on a coarse copy."""
    height, width = mask.shape
    cell = -(-max(height, width) // COARSE)
    coarse = F.max_pool2d(mask[None, None], cell, ceil_mode=True)[0, 0] > 0
    labels = masks.label(coarse)
    fine = labels.repeat_interleave(cell, 0).repeat_interleave(cell, 1)[:height, :width]
    found = [mask * (fine == number) for number in labels.unique().tolist() if number]
    return found or [mask]


def _check_room(window: Window, size: tuple[int, int], seam: Seam) -> None:
    """Raises ValueError where the seam would be cut by a side of the window inside the picture."""
    high, wide = window.mask.shape
    top, left, height, width = _box(window.mask, window.picture)
    free = [
        (top, window.top),
        (left, window.left),
        (high - top - height, size[0] - window.top - high),
        (wide - left - width, size[1] - window.left - wide),
    ]
    room = min((inside for inside, beyond in free if beyond), default=seam.reach)
    if room < seam.reach:
        raise ValueError(
            f"grow + feather is {seam.reach} pixels, but the crop has only {room} around the region: lower "
            "them, or raise EtaCrop's context"
        )


def _by(size) -> str:
    return f"{size[1]}x{size[0]}"
