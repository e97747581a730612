"""From attention maps to a region: which pixels belong to a word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from .choices import one_of


class MapAverage:
    """The attention maps of every token over a whole inversion (paper, section 4.3).

    At each step the probabilities are averaged over layers and over the steps so far, and each token's map is
    divided by its maximum. The result is the mean of these over all steps.
    """

    def __init__(self):
        self._layers: list[Tensor] = []
        self._running: Tensor | None = None
        self._total: Tensor | None = None
        self._steps = 0

    def add(self, probabilities: Tensor) -> None:
        """One layer's probabilities, averaged over heads: [B, tokens, h, w]."""
        self._layers.append(probabilities)

    def reopen_step(self) -> None:
        """Drop what was added since the last closed step: its network call broke off."""
        self._layers.clear()

    def close_step(self) -> None:
        if not self._layers:
            return
        layers = torch.stack(self._layers).mean(0)
        self._running = layers if self._running is None else self._running + layers
        step = self._running / self._running.amax((-2, -1), keepdim=True).clamp(min=1e-12)
        self._total = step if self._total is None else self._total + step
        self._steps += 1
        self._layers.clear()

    def result(self) -> Tensor | None:
        """[B, tokens, h, w] in 0..1 on the CPU, or None when no layer was ever recorded."""
        return None if self._total is None else (self._total / self._steps).cpu()


def phrase_map(maps: Tensor, occurrences: Sequence[Sequence[int]], size: tuple[int, int]) -> Tensor:
    """One phrase's map [B, *size] in 0..1 from per-token maps [B, tokens, h, w], resized bicubic (paper).

    The tokens of one occurrence are averaged; repeated occurrences are joined by their maximum.
    """
    each = [
        F.interpolate(maps[:, list(positions)], size, mode="bicubic").clamp(0, 1).mean(1)
        for positions in occurrences
    ]
    return torch.stack(each).amax(0)


def join_phrases(phrase_maps: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Several phrases' maps [B, H, W] as one: the strongest weighted phrase wins at each pixel."""
    return torch.stack([m * w for m, w in zip(phrase_maps, weights)]).amax(0).clamp(0, 1)


def threshold(soft: Tensor, level: float | None) -> Tensor:
    """1 where `soft` [B, H, W] exceeds the level (paper: 0.2), else 0; level 0 leaves it soft.

    None: each picture's own level (`otsu`).
    """
    if level is None:
        return torch.stack([threshold(one, otsu(one)) for one in soft])
    return (soft > level).to(soft.dtype) if level > 0 else soft


def otsu(values: Tensor) -> float:
    """The level that parts values in 0..1 into the two groups that differ most (Otsu 1979), in 256 steps."""
    steps = torch.arange(256, dtype=torch.float64)
    counts = torch.bincount((values.flatten() * 255).round().long().cpu(), minlength=256).double()
    below, total_below = counts.cumsum(0), (counts * steps).cumsum(0)
    count, total = below[-1], total_below[-1]
    between = (total * below - count * total_below).square() / (below * (count - below)).clamp(min=1)
    return float(between.argmax() + 0.5) / 255


def contrast(values: Tensor) -> float:
    """How far the mean above `otsu` lies over the mean below it: near 0 where nothing stands out."""
    high = values > otsu(values)
    return float(values[high].mean() - values[~high].mean()) if bool(high.any() & (~high).any()) else 0.0


def dilate(mask: Tensor, pixels: int) -> Tensor:
    """Dilate [B, H, W] by a disc of radius `pixels`; negative erodes."""
    if pixels == 0:
        return mask
    if pixels < 0:
        return 1 - dilate(1 - mask, -pixels)
    hard = bool(((mask == 0) | (mask == 1)).all())
    return torch.stack([(_dilate_hard if hard else _dilate_soft)(one, pixels) for one in mask])


def _half_widths(pixels: int) -> list[int]:
    """Of a disc's rows, from its middle to its edge."""
    return [math.isqrt(pixels * pixels - dy * dy) for dy in range(pixels + 1)]


def _dilate_hard(mask: Tensor, pixels: int) -> Tensor:
    """A mask [H, W] of 0 and 1: where the disc covers any of it, by its convolution, whatever the radius."""
    size = [side + pixels for side in mask.shape]  # what wraps around falls outside
    disc = torch.zeros(size, dtype=torch.float64)
    for dy, width in enumerate(_half_widths(pixels)):
        row = torch.arange(-width, width + 1) % size[1]
        disc[dy % size[0], row] = disc[-dy % size[0], row] = 1
    spectrum = torch.fft.rfft2(mask.double(), size) * torch.fft.rfft2(disc)
    covered = torch.fft.irfft2(spectrum, size)[: mask.shape[0], : mask.shape[1]]
    return (covered > 0.5).to(mask)


def _dilate_soft(mask: Tensor, pixels: int) -> Tensor:
    """A mask [H, W] of any values: the largest value under the disc, one row of the disc after the other."""
    height = mask.shape[0]
    rows = F.pad(mask, (0, 0, pixels, pixels))
    found = mask
    for dy, width in enumerate(_half_widths(pixels)):
        both = torch.maximum(*(rows[start : start + height] for start in (pixels - dy, pixels + dy)))
        found = torch.maximum(found, _largest_near(both, width))
    return found


def _largest_near(rows: Tensor, width: int) -> Tensor:
    """The largest of 2 * width + 1 neighbours in each row, in about log2(width) passes."""
    length, span = rows.shape[1], 1
    spread = F.pad(rows, (width, width))
    while 2 * span <= 2 * width + 1:
        spread, span = torch.maximum(spread[:, :-span], spread[:, span:]), 2 * span
    return torch.maximum(spread[:, :length], spread[:, -length:])


def blur(mask: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of [B, H, W] with standard deviation `sigma` pixels; edges repeat the border."""
    if sigma <= 0:
        return mask
    radius = int(3 * sigma + 0.5)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=mask.dtype) / sigma) ** 2)
    taps = (taps / taps.sum()).to(mask.device)
    out = F.pad(mask[:, None], (radius, radius, radius, radius), mode="replicate")
    out = F.conv2d(F.conv2d(out, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))
    return out[:, 0].clamp(0, 1)


def label(region: Tensor) -> Tensor:
    """The connected parts of a region [H, W], corners counted: a number above 0 for each, 0 outside."""
    own = torch.arange(1, region.numel() + 1, dtype=torch.float64).view(region.shape) * region
    while True:
        spread = F.max_pool2d(own[None, None], 3, stride=1, padding=1)[0, 0] * region
        if torch.equal(spread, own):
            return own.long()
        own = spread


COMBINE = {
    "replace": lambda region, mask: mask,
    "intersect": torch.minimum,
    "union": torch.maximum,
    "subtract": lambda region, mask: (region - mask).clamp(min=0),
    "multiply": torch.mul,
}


def combine(region: Tensor, mask: Tensor, how: str) -> Tensor:
    """`region` and a user's `mask`, both [B, H, W] in 0..1, as one mask."""
    return COMBINE[how](region, mask).expand(max(len(region), len(mask)), -1, -1)


def enlarge(values: Tensor, size: tuple[int, int], hard: bool = False) -> Tensor:
    """[B, H, W] of the latent's size at the picture's: whole blocks where `hard`, smooth where not."""
    if tuple(values.shape[-2:]) == tuple(size):
        return values
    return F.interpolate(values[:, None], size, mode="nearest" if hard else "bilinear")[:, 0]


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, H, W] at another size: the mean of the covered pixels where it shrinks, else the nearest."""
    if tuple(mask.shape[-2:]) == tuple(size):
        return mask
    shrinks = size[0] <= mask.shape[-2] and size[1] <= mask.shape[-1]
    return F.interpolate(mask[:, None], size, mode="area" if shrinks else "nearest")[:, 0]


def least(mask: Tensor, scale: int) -> Tensor:
    """[B, H, W] at the latent's size, [B, 1, h, w]: the least of the pixels that each value covers."""
    return -F.max_pool2d(-mask[:, None], scale)


def _crowd(claims: list[Tensor], mask: Tensor) -> Tensor:
    """How many claims meet at a pixel, at least 1."""
    return reduce(torch.add, claims, torch.zeros_like(mask)).clamp(min=1.0)


def _over(before: list[Tensor], mask: Tensor) -> list[Tensor]:
    # Where several share a pixel, `mask` must take its part of all of them together.
    crowd = _crowd(before, mask)
    fewer = 1 + mask * (crowd - 1)
    return [*(claim * (1 - mask) / fewer for claim in before), mask * crowd / fewer]


def _under(before: list[Tensor], mask: Tensor) -> list[Tensor]:
    taken = reduce(torch.add, before, torch.zeros_like(mask))
    return [*before, mask * (1 - taken).clamp(0, 1)]


def _share(before: list[Tensor], mask: Tensor) -> list[Tensor]:
    return [*before, mask]


OVERLAP = {"over": _over, "under": _under, "share": _share}


def resolve(regions: Sequence[tuple[Tensor, str]]) -> list[Tensor]:
    """The weights of several edits from their masks; at each pixel they sum to at most 1.

    Each mask lies over, under or beside those before it, by its name of OVERLAP. Masks side by side have
    equal shares, whatever their order: their claims are brought to a sum of 1 once, in the end. Raises
    ValueError for another name.
    """
    claims: list[Tensor] = []
    for mask, overlap in regions:
        claims = one_of("overlap", overlap, OVERLAP)(claims, mask)
    return [claim / _crowd(claims, claim) for claim in claims]


def tile_batch(values: Tensor, rows: int) -> Tensor:
    """A batch [B, ...] repeated to `rows` rows, one variant after the other. [1, ...] counts for all
    pictures.
    """
    return values if len(values) == rows else values.repeat(rows // len(values), *[1] * (values.ndim - 1))


def compose(base: Tensor, others: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """`base` [V * B, C, H, W] with each of `others` in its place by weight [B or 1, 1, H, W]."""
    composed = base
    for other, weight in zip(others, weights):
        composed = composed + tile_batch(weight.to(base), len(base)) * (other - base)
    return composed
