"""Where an edit takes place: the masks of an edit, and what they mean for its noise and for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from .hold import Hold
from .masks import least, resize_mask


class Limits(NamedTuple):
    """An area at the latent's size. region: what eta is multiplied by, None is 1; see NoiseSettings."""

    region: Tensor | None
    hold: Hold


@dataclass(frozen=True, eq=False)
class Area:
    """Where an edit takes place, in pixels.

    mask: [1 or B, H, W] in 0..1, or None for everywhere. others: masks of other prompts, their shares of the
    latent's pixels `weights` [1 or B, 1, h, w], and by what each multiplies eta. lock: how firmly the
    background outside all masks is held, 0..1. scale: pixels of the picture per latent pixel. size: height
    and width of the picture.
    """

    mask: Tensor | None
    others: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    eta_scales: tuple[float, ...]
    lock: float
    scale: int
    size: tuple[int, int]

    def joined(self, mask: Tensor) -> Area:
        """This area and `mask` [1 or B, H, W] beside it."""
        return self if self.mask is None else replace(self, mask=torch.maximum(self.mask, mask))

    @property
    def free(self) -> Tensor:
        """All masks together [1 or B, H, W]; 1 everywhere where there are none."""
        masks = self._masks
        return reduce(torch.maximum, masks) if masks else torch.ones(1, *self.size)

    @property
    def limits(self) -> Limits:
        return Limits(self._region, self._hold)

    @property
    def _masks(self) -> Sequence[Tensor]:
        return self.others if self.mask is None else (self.mask, *self.others)

    @property
    def _latent_size(self) -> tuple[int, int]:
        return self.size[0] // self.scale, self.size[1] // self.scale

    @property
    def _region(self) -> Tensor | None:
        mask = None if self.mask is None else resize_mask(self.mask, self._latent_size)[:, None]
        if not self.weights:
            return mask
        covered = reduce(torch.add, self.weights)
        base = torch.zeros_like(covered) if mask is None else mask
        scaled = (weight * scale for weight, scale in zip(self.weights, self.eta_scales, strict=True))
        return reduce(torch.add, scaled) + (1 - covered) * base

    @property
    def _hold(self) -> Hold:
        """A soft value of a mask lets its share of the edit through, whatever the number of steps.

        A latent pixel that a hard mask only partly covers is held by as much as lies outside, in every step:
        its share would show outside the mask.
        """
        regions = reduce(torch.add, self.weights) if self.weights else None
        if self.lock == 0:
            return Hold(regions=regions)
        covered = resize_mask(self.free, self._latent_size)[:, None]
        lock, edge = (self.lock * (1 - part) for part in (least(self.free, self.scale), covered))
        return Hold(lock, edge, regions)
