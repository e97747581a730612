"""What an editor changed in a picture it gave back whole, perhaps shifted, zoomed and tinted.

First the way from source to edit (shift and zoom), then the colour drift, then the region that changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import masks
from .blend import BLOCK, RING, ColourMap, Seam, blend, colour_map
from .place import resize

WORKING = 768  # longest side at which the move is searched
LOOK = 384  # longest side at which the change is
CLOSED = 10  # gaps up to twice this are closed, in pixels of LOOK
COARSEST = 48  # longest side of the coarsest level of the search
ROUNDS = 12  # of the search at each level
MOST_STRETCH = 0.1  # shapes of source and edit may differ by this
ENOUGH = 0.25  # least share of the picture that must agree, or it is another picture
TRIMS = 12  # rounds of the trimmed fit
NOISE = 1.0 / 255  # colour differences below it say nothing
CLIPPED = 2.5 / 255  # so near to black or white a colour may have been cut
SEED, EDGE = 9.0, 4.5  # a region holds a difference of SEED deviations, and reaches as far as EDGE of them
SPECK = 4e-4  # regions below this share of the picture are noise


@dataclass(frozen=True)
class Move:
    """Where the source's pixels lie in the edit, once that has the source's size.

    In pixels from the middle: zoom * offset + shift.

    zoom: (down, across); shift: (down, across).
    """

    zoom: tuple[float, float] = (1.0, 1.0)
    shift: tuple[float, float] = (0.0, 0.0)

    def limits(self, size: tuple[int, int]) -> tuple[float, float]:
        """The largest shift in percent of the longer side, and the largest zoom in percent."""
        return 100 * max(map(abs, self.shift)) / max(size), 100 * max(abs(z - 1) for z in self.zoom)


@dataclass(frozen=True, eq=False)
class Kept:
    """One picture kept. picture, aligned [H, W, C]; mask, shown [H, W]; agree: the share of unchanged pixels.

    shown: how much of the edit shows; where it is 0, `picture` is the source bit by bit.
    """

    picture: Tensor
    mask: Tensor
    aligned: Tensor
    shown: Tensor
    move: Move
    agree: float


def keep(
    source: Tensor,
    edited: Tensor,
    seam: Seam,
    mask: Tensor | None = None,
    limit: float = 5.0,
    align: bool = True,
) -> Kept:
    """The source [H, W, C] with what `edited` [h, w, C] changed in it, or what lies in `mask` [H, W].

    align: look for a shift and zoom first. Raises ValueError beyond `limit` percent of either, and where the
    two are not one picture.
    """
    height, width = source.shape[:2]
    stretch = edited.shape[0] * width / (edited.shape[1] * height)
    if abs(stretch - 1) > MOST_STRETCH:
        raise ValueError(
            f"the edit is {edited.shape[1]}x{edited.shape[0]}, the source {width}x{height}: their shapes "
            f"differ by {100 * abs(stretch - 1):.0f} percent; crop or pad one of them"
        )
    if edited.shape[0] > height or edited.shape[1] > width:
        edited = resize(edited[None], (height, width))[0]
    move, agree = find_move(source, edited) if align else (Move(), 1.0)
    _check(move, agree, (height, width), limit)
    aligned, inside = follow(edited[..., :3], move, (height, width))
    if mask is None:
        mask, drift = find_change(source, aligned, inside)
        for start in range(0, height, BLOCK):
            rows = aligned[start : start + BLOCK]
            rows.copy_(drift(rows).clamp_(0, 1))
    mask = mask * inside
    del inside  # of a large photograph, memory that counts
    picture = source.clone()
    shown = _blended(picture, source, aligned, mask, seam) if bool(mask.any()) else torch.zeros_like(mask)
    return Kept(picture, mask, aligned, shown, move, agree)


def _blended(picture: Tensor, source: Tensor, aligned: Tensor, mask: Tensor, seam: Seam) -> Tensor:
    """Blends inside the rectangle that the seam and its ring reach, and returns the weight of the whole."""
    room = seam.reach + RING
    spans = []
    for along in ((mask > 0).any(1), (mask > 0).any(0)):
        places = along.nonzero()
        spans.append(slice(max(0, int(places[0]) - room), int(places[-1]) + 1 + room))
    at = tuple(spans)
    shown = torch.zeros_like(mask)
    shown[at] = blend(picture[at], source[at], aligned[at], mask[at], seam)
    return shown


def _check(move: Move, agree: float, size: tuple[int, int], limit: float) -> None:
    if agree < ENOUGH:
        raise ValueError(
            f"only {100 * agree:.0f} percent of the edit agrees with the source, at least {100 * ENOUGH:.0f} "
            "must: is it an edit of this picture? Connect a mask and switch align off to keep it all the same"
        )
    shift, zoom = move.limits(size)
    if max(shift, zoom) > limit:
        raise ValueError(
            f"the edit is shifted by {shift:.1f} percent and zoomed by {zoom:.1f} percent, more than "
            f"the limit of {limit:g}: raise limit if that is meant"
        )


def find_move(source: Tensor, edited: Tensor) -> tuple[Move, float]:
    """The shift and zoom between two pictures [H, W, C] of one shape, and the share of pixels that agree.

    Gauss-Newton from coarse to fine (Lucas and Kanade 1981) on local contrast, so that a tint does not count;
    pixels that disagree lose their say (Geman-McClure), so that the edit does not count.
    """
    height, width = source.shape[:2]
    first = _at_most(source, WORKING)
    pair = first, _sized(edited[..., :3].float().movedim(-1, 0)[None], (first.shape[-2], first.shape[-1]))
    params = torch.zeros(4, dtype=torch.float64)
    longest = max(pair[0].shape[-2:])
    side, sides = float(longest), []
    while side > COARSEST:
        sides.append(round(side))
        side /= 2
    agree = 0.0
    for side in reversed(sides):
        level = [_local_contrast(_at_most_planes(picture, side)) for picture in pair]
        params, agree = _search(level[0], level[1], params)
    zoom, shift = 1 + params[:2], params[2:] * torch.tensor([height, width]).double() / 2
    return Move((float(zoom[0]), float(zoom[1])), (float(shift[0]), float(shift[1]))), agree


def follow(edited: Tensor, move: Move, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The edit [H, W, C] as it lies on the source: [*size, C], and where it has pixels [*size]. Bicubic."""
    height, width = size
    y, x = (
        zoom * (2 * torch.arange(side) + 1 - side) / side + 2 * shift / side
        for zoom, shift, side in zip(move.zoom, move.shift, size)
    )
    planes = edited.movedim(-1, 0)[None]
    result = edited.new_empty(height, width, edited.shape[-1])
    for start in range(0, height, BLOCK):  # a grid of the whole picture would be as large as the picture
        rows = y[start : start + BLOCK]
        grid = torch.stack(torch.broadcast_tensors(x[None], rows[:, None]), -1)[None].to(edited)
        part = F.grid_sample(planes, grid, mode="bicubic", padding_mode="border", align_corners=False)
        result[start : start + BLOCK] = part[0].movedim(0, -1).clamp_(0, 1)
    inside = (y.abs() <= 1)[:, None] & (x.abs() <= 1)[None]
    return result, inside


def find_change(source: Tensor, edited: Tensor, inside: Tensor) -> tuple[Tensor, ColourMap]:
    """The region [H, W] of 0 and 1 that differs between two aligned pictures, and the edit's colour drift.

    `inside` [H, W]: where the edit has pixels at all. The drift is that of the pixels that did not change.
    """
    before, after = (_at_most(picture, LOOK)[0].movedim(0, -1) for picture in (source, edited))
    size = (before.shape[0], before.shape[1])
    seen = F.interpolate(inside[None, None].float(), size, mode="area")[0, 0] == 1
    drift = _fit_gains(before[seen], after[seen])
    floor = NOISE
    for _ in range(3):  # a full matrix at once would bend towards the edit's own colours
        difference = _difference(before, after, drift)
        floor = NOISE + 1.5 * _deviation(difference[seen & (difference <= difference[seen].median())])
        same = seen & (difference < 3 * floor)
        drift = _fit_colours(before[same], after[same])
    difference = _difference(before, after, drift)
    score = (difference / (floor + _tolerance(before))) * seen
    region = _grown_from(score > SEED, score > EDGE)
    region = _closed(_without_specks(region), CLOSED)
    region = _without_holes(region).float()
    soft = F.interpolate(region[None, None], source.shape[:2], mode="bilinear")[0, 0]
    return (soft > 0.5).float(), drift


def _deviation(values: Tensor) -> float:
    return float(values.median()) * 1.4826 if values.numel() else 0.0


def _fit_gains(wanted: Tensor, given: Tensor) -> ColourMap:
    """A gain and an offset of each colour, given -> wanted [N, 3], of the half of the pixels that agree best.

    Trimmed least squares (Rousseeuw 1984), started from the medians.
    """
    wanted, given = wanted.double(), given.double()
    gain, before, after = torch.ones(3).double(), given.median(0).values, wanted.median(0).values
    for _ in range(TRIMS):
        misfit = ((given - before) * gain + after - wanted).abs().sum(-1)
        best = misfit <= misfit.median()
        before, after = given[best].mean(0), wanted[best].mean(0)
        spread = (given[best] - before).square().mean(0)
        cross = ((given[best] - before) * (wanted[best] - after)).mean(0)
        gain = (cross + 1e-5) / (spread + 1e-5)
    return ColourMap(torch.diag(gain), before, after)


def _fit_colours(wanted: Tensor, given: Tensor) -> ColourMap:
    """The affine map given -> wanted of paired colours [N, 3], by least squares."""
    if len(given) < 64:
        return colour_map(wanted, given)
    given, wanted = given.double(), wanted.double()
    before, after = given.mean(0), wanted.mean(0)
    spread = (given - before).T @ (given - before) / len(given) + 1e-5 * torch.eye(3).double()
    cross = (given - before).T @ (wanted - after) / len(given) + 1e-5 * torch.eye(3).double()
    return ColourMap(torch.linalg.solve(spread, cross), before, after)


def _difference(before: Tensor, after: Tensor, drift: ColourMap) -> Tensor:
    """Colour difference [H, W] once the drift is undone, smoothed over a pixel or two.

    A tint can push colours against black and white; what was lost there is no change.
    """
    misfit = before - drift(after)
    lost = ((after >= 1 - CLIPPED) & (misfit > 0)) | ((after <= CLIPPED) & (misfit < 0))
    return masks.blur(misfit.masked_fill(lost, 0).square().sum(-1).sqrt()[None], 1.0)[0]


def _tolerance(picture: Tensor) -> Tensor:
    """What a misfit of a fifth of a pixel and the loss of fine detail explain [H, W]."""
    grey = picture.mean(-1)
    edges = F.pad((grey[1:] - grey[:-1]).abs(), (0, 0, 0, 1)) + F.pad(
        (grey[:, 1:] - grey[:, :-1]).abs(), (0, 1)
    )
    return 0.2 * masks.blur(edges[None], 1.5)[0]


def _grown_from(seeds: Tensor, region: Tensor) -> Tensor:
    """The parts of a region that hold a seed."""
    labels = masks.label(region)
    held = labels[seeds & region].unique()
    return torch.isin(labels, held[held > 0])


def _closed(region: Tensor, radius: int) -> Tensor:
    """The region with its gaps closed; beyond the border there is nothing to close with."""
    padded = F.pad(region.float(), (radius,) * 4)[None]
    closed = masks.dilate(masks.dilate(padded, radius), -radius)[0]
    return closed[radius:-radius, radius:-radius] > 0


def _without_holes(region: Tensor) -> Tensor:
    """The region with what it encloses."""
    around = F.pad(~region, (1, 1, 1, 1), value=True)
    labels = masks.label(around)
    return (labels != labels[0, 0])[1:-1, 1:-1]


def _without_specks(region: Tensor) -> Tensor:
    labels = masks.label(region)
    numbers, sizes = labels.unique(return_counts=True)
    large = numbers[(sizes >= SPECK * region.numel()) & (numbers > 0)]
    return torch.isin(labels, large)


def _at_most(picture: Tensor, side: int) -> Tensor:
    return _at_most_planes(picture[..., :3].float().movedim(-1, 0)[None], side)


def _at_most_planes(planes: Tensor, side: int) -> Tensor:
    """[1, C, H, W] shrunk to a longest side."""
    height, width = planes.shape[-2:]
    ratio = side / max(height, width)
    if ratio >= 1:
        return planes
    size = (max(8, round(height * ratio)), max(8, round(width * ratio)))
    return _sized(planes, size)


def _sized(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Plane by plane, for the host's layout makes torch copy what it resizes."""
    each = [F.interpolate(plane, size, mode="bilinear", antialias=True) for plane in planes.split(1, 1)]
    return torch.cat(each, 1)


def _local_contrast(planes: Tensor) -> Tensor:
    """Grey without its local mean, over its local deviation [H, W]: the same under any tint."""
    grey = planes.mean(1)
    detail = grey - _smooth(grey, 3.0)
    return (detail / (_smooth(detail.square(), 6.0).sqrt() + 0.01))[0]


def _smooth(values: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur of [B, H, W] of values of any range; edges repeat the border."""
    radius = int(3 * sigma + 0.5)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    taps = taps / taps.sum()
    out = F.pad(values[:, None], (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(out, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))[:, 0]


def _search(source: Tensor, edited: Tensor, params: Tensor) -> tuple[Tensor, float]:
    """`params` (zoom - 1, shift; down, across; in half sides) brought closer, and the share that agrees."""
    height, width = source.shape
    y = (2 * torch.arange(height) + 1 - height) / height
    x = (2 * torch.arange(width) + 1 - width) / width
    yy, xx = torch.broadcast_tensors(y[:, None], x[None])
    agree = 0.0
    for _ in range(ROUNDS):
        zoom_y, zoom_x, shift_y, shift_x = (float(p) for p in params)
        at_y, at_x = (1 + zoom_y) * yy + shift_y, (1 + zoom_x) * xx + shift_x
        grid = torch.stack((at_x, at_y), -1)[None]
        moved = F.grid_sample(edited[None, None], grid, mode="bicubic", align_corners=False)[0, 0]
        seen = (at_y.abs() < 1) & (at_x.abs() < 1)
        down, across = torch.gradient(moved)
        down, across = down * height / 2, across * width / 2  # per half side
        misfit = moved - source
        scale = 0.3 + float(misfit[seen].abs().median())
        say = seen / (1 + (misfit / scale).square()).square()
        steps = torch.stack((down * yy, across * xx, down, across))[:, seen].double()
        weighted = steps * say[seen]
        system = weighted @ steps.T + 1e-6 * torch.eye(4).double()
        step = torch.linalg.solve(system, -(weighted @ misfit[seen].double()))
        params = params + step
        agree = float((misfit[seen].abs() < 0.5).float().mean()) if bool(seen.any()) else 0.0
        if float(step.abs().max()) * max(height, width) / 2 < 0.003:
            break
    return params, agree
