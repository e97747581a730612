"""An edited picture laid into its source: only inside a region and its declared seam, without a trace."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import masks

RING = 16  # pixels around the region on which colours and grain are compared
FEWEST = 64  # pixels of the ring that say something about a covariance
MOST_GAIN = 2.0  # colours are stretched or pressed by no more than this
FLAT = 1e-5  # a variance below it is a flat colour: nothing to stretch
MAD = 1.4826  # median absolute value -> standard deviation of a normal distribution
BLOCK = 64  # rows blended at a time, to keep memory small


@dataclass(frozen=True)
class Seam:
    """How an edit meets its source. grow, feather: pixels around the mask that the edit may touch.

    colour: 0..1, how far its colours are matched to the source's on the ring around it. grain: 0..1, how much
    of the source's fine grain it gets.
    """

    grow: int = 4
    feather: int = 12
    colour: float = 1.0
    grain: float = 0.0

    @property
    def reach(self) -> int:
        return self.grow + self.feather


@dataclass(frozen=True, eq=False)
class ColourMap:
    """colour -> (colour - before) @ matrix + after, of colours [..., 3]."""

    matrix: Tensor
    before: Tensor
    after: Tensor

    def __call__(self, colours: Tensor) -> Tensor:
        shift = self.after - self.before @ self.matrix
        return colours @ self.matrix.to(colours) + shift.to(colours)

    def part(self, strength: float) -> ColourMap:
        """This map at a strength of 0 (changes nothing) to 1."""
        same = torch.eye(3, dtype=self.matrix.dtype)
        return ColourMap(
            torch.lerp(same, self.matrix, strength),
            self.before,
            torch.lerp(self.before, self.after, strength),
        )


def blend(target: Tensor, source: Tensor, edited: Tensor, mask: Tensor, seam: Seam) -> Tensor:
    """Lays edited [H, W, C] into target [H, W, C], in place, and returns how much of it shows [H, W].

    source [H, W, C]: what colours and grain are compared with. mask [H, W] in 0..1. Where the result is 0,
    further than the seam's reach from the mask, `target` keeps its very bits.
    """
    weight, rings, wanted, given = torch.empty_like(mask), [], [], []
    for rows, shows, ring in _weight_and_ring(mask, seam):
        weight[rows] = shows
        wanted.append(source[rows, :, :3][ring])
        given.append(edited[rows, :, :3][ring])
        rings += [ring] if seam.grain else []
    match = colour_map(torch.cat(wanted), torch.cat(given)).part(seam.colour)
    sigma = seam.grain * _missing_grain(source, edited, torch.cat(rings)) if seam.grain else 0.0
    noise = torch.Generator().manual_seed(0)
    for start in range(0, len(target), BLOCK):
        rows = slice(start, start + BLOCK)
        shows = weight[rows, :, None]
        if not bool(shows.any()):
            continue
        before = target[rows, :, :3]
        after = match(edited[rows, :, :3]) if seam.colour else edited[rows, :, :3].clone()
        if sigma:
            after += sigma * torch.randn(after.shape[:2], generator=noise)[..., None].to(after)
        after = torch.lerp(before, after.clamp_(0, 1).to(before), shows.to(before))
        before.copy_(torch.where(shows > 0, after, before))
    return weight


def _weight_and_ring(mask: Tensor, seam: Seam) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows, how much of the edit shows in them [h, W], and which pixels lie just outside of that [h, W].

    Block by block: the distances of a whole large picture would take as much memory as the picture.
    """
    halo = seam.reach + RING
    for start in range(0, len(mask), BLOCK):
        stop = min(start + BLOCK, len(mask))
        around = mask[max(0, start - halo) : stop + halo]
        inner = slice(min(start, halo), min(start, halo) + stop - start)
        away = distance(around > 0, halo)
        ring = (away > seam.reach) & (away <= halo)
        yield slice(start, stop), _weight(around, away, seam)[inner], ring[inner]


def distance(region: Tensor, most: int) -> Tensor:
    """Pixels from each pixel to the nearest of a region [H, W], Euclidean; most + 1 where it is further."""
    far = float(most + 1)
    square = torch.minimum(_from_left(region), _from_left(region.flip(1)).flip(1)).clamp_(max=far).square_()
    nearest = square.clone()
    for step in range(1, min(most, len(region) - 1) + 1):
        torch.minimum(nearest[step:], square[:-step] + step * step, out=nearest[step:])
        torch.minimum(nearest[:-step], square[step:] + step * step, out=nearest[:-step])
    return nearest.sqrt_().clamp_(max=far)


def _from_left(region: Tensor) -> Tensor:
    """Pixels from each pixel to the last of the region before it in its row."""
    here = torch.arange(region.shape[1], dtype=torch.float32)
    return here - torch.where(region, here, -math.inf).cummax(1).values


def colour_map(wanted: Tensor, given: Tensor) -> ColourMap:
    """The map that gives colours `given` [N, 3] the mean and covariance of `wanted` [M, 3].

    The linear Monge-Kantorovich map (Pitie and Kokaram 2007), the one that moves colours least. Few or flat
    colours are only moved.
    """
    same = torch.eye(3, dtype=torch.float64)
    if not len(given) or not len(wanted):
        return ColourMap(same, torch.zeros(3).double(), torch.zeros(3).double())
    wanted, given = wanted.double(), given.double()
    before, after = given.mean(0), wanted.mean(0)
    if min(len(given), len(wanted)) < FEWEST:
        return ColourMap(same, before, after)
    spread, goal = (torch.cov(colours.T) + FLAT * same for colours in (given, wanted))
    root, back = _power(spread, 0.5), _power(spread, -0.5)
    matrix = back @ _power(root @ goal @ root, 0.5) @ back
    values, axes = torch.linalg.eigh((matrix + matrix.T) / 2)
    return ColourMap((axes * values.clamp(1 / MOST_GAIN, MOST_GAIN)) @ axes.T, before, after)


def _power(matrix: Tensor, power: float) -> Tensor:
    values, axes = torch.linalg.eigh((matrix + matrix.T) / 2)
    return (axes * values.clamp(min=1e-12) ** power) @ axes.T


def _weight(mask: Tensor, away: Tensor, seam: Seam) -> Tensor:
    """The mask, grown by `grow`, then falling to 0 within `feather` pixels.

    By the smooth step of order 7, flat at both ends to the third derivative: the seam's end cannot be seen.
    """
    if not seam.reach:
        return mask
    ramp = ((seam.reach + 1 - away) / (seam.feather + 1)).clamp_(0, 1)
    ramp = ramp**4 * (35 - ramp * (84 - ramp * (70 - 20 * ramp))) * (away <= seam.reach)
    if bool(((mask == 0) | (mask == 1)).all()):
        return ramp
    return torch.maximum(mask, ramp * masks.dilate(mask[None], seam.reach)[0])


def _missing_grain(source: Tensor, edited: Tensor, ring: Tensor) -> float:
    """Standard deviation of the grain that the edit lacks on the ring."""
    there, here = (_grain(picture, ring) for picture in (source, edited))
    return max(0.0, there**2 - here**2) ** 0.5


def _grain(picture: Tensor, ring: Tensor) -> float:
    """Standard deviation of fine noise (Immerkaer 1996's operator, by the median: texture hardly counts)."""
    inner = ring[1:-1, 1:-1]
    if not bool(inner.any()):
        return 0.0
    taps = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 6
    grey = picture[..., :3].float().mean(-1)
    return MAD * float(F.conv2d(grey[None, None], taps[None, None])[0, 0][inner].abs().median())
