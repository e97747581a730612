"""How near an edited picture comes to the right answer, which exists for a rendered scene.

A scene is drawn from its seed, so with another thing and the same seed everything else stays: that is the
counterfactual. An edit cannot know at which place, size and side the scene would show the wanted thing, so
the best match over small changes of these counts.

What this cannot say: a glyph always looks the same, so a way that keeps the old thing's structure, as one
would want for a photograph, loses here by construction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..demo import scenes

SIZES = (0.8, 0.9, 1.0, 1.1, 1.2)  # of the thing, against the scene's own
REACH = 12  # pixels it may have moved either way
CANVAS = 2 * scenes.SIZE  # a thing may stand partly outside the picture
MARGIN = (CANVAS - scenes.SIZE) // 2


class Counterfactual:
    """The scene of a seed with `wanted` as its thing, at every place, size and side that counts as right."""

    def __init__(self, seed: int, wanted: str, background: str):
        layout, ground = scenes.layout_of(seed, background)
        self._ground = torch.from_numpy(ground.copy()).double().movedim(-1, 0) / 255
        own = scenes.scaled_glyph(wanted, layout.size, layout.flip)
        left, top = layout.corner(own.size)
        centre = (left + own.width / 2, top + own.height / 2)
        self._variants = [
            _Variant(np.asarray(scenes.scaled_glyph(wanted, layout.size * size, flip)), centre)
            for size in SIZES
            for flip in (False, True)
        ]
        fields = torch.cat([torch.ones_like(self._ground[:1]), self._ground, _total(self._ground.square())])
        self._fixed = [variant.fixed(_spectrum(fields)) for variant in self._variants]

    def psnr(self, pictures: Tensor) -> list[float]:
        """dB against the best match, of each picture [B, H, W, 3] in 0..1."""
        return [self._psnr(picture.double().movedim(-1, 0)) for picture in pictures]

    def _psnr(self, picture: Tensor) -> float:
        """With the thing's colours c and alpha a over the ground g, and d = g - p: sum (d + a (c - g))^2 at
        every shift.
        """
        difference = self._ground - picture
        spectrum = _spectrum(torch.cat([difference, _total(difference * self._ground)]))
        changes = (v.changed(spectrum) + fixed for v, fixed in zip(self._variants, self._fixed))
        least = min(float(variant.near(change).min()) for variant, change in zip(self._variants, changes))
        error = (float(difference.square().sum()) + least) / picture.numel()
        return -10 * math.log10(max(error, 1e-12))


class _Variant:
    """A thing at one size and side; correlated with fields of the picture it gives sums for every shift at
    once.
    """

    def __init__(self, glyph: np.ndarray, centre: tuple[float, float]):
        alpha = torch.from_numpy(glyph[..., 3:].copy()).double().movedim(-1, 0) / 255
        colour = torch.from_numpy(glyph[..., :3].copy()).double().movedim(-1, 0) / 255
        height, width = alpha.shape[-2:]
        self._place = (int(centre[1] - height / 2) + MARGIN, int(centre[0] - width / 2) + MARGIN)
        square = alpha.square()
        self._of_fixed = _kernel(torch.cat([_total(square * colour.square()), -2 * square * colour, square]))
        self._of_change = _kernel(torch.cat([2 * alpha * colour, -2 * alpha]))

    def fixed(self, spectrum: Tensor) -> Tensor:
        """sum a^2 (c - g)^2 at every shift, from the spectra of 1, g and sum g^2."""
        return _correlated(spectrum, self._of_fixed)

    def changed(self, spectrum: Tensor) -> Tensor:
        """sum 2 d a (c - g) at every shift, from the spectra of d and sum d g."""
        return _correlated(spectrum, self._of_change)

    def near(self, sums: Tensor) -> Tensor:
        """The sums at the shifts that count as right."""
        top, left = self._place
        return sums[top - REACH : top + REACH + 1, left - REACH : left + REACH + 1]


def _total(planes: Tensor) -> Tensor:
    return planes.sum(0, keepdim=True)


def _spectrum(fields: Tensor) -> Tensor:
    """Fields of the picture's size, zero around it."""
    return torch.fft.rfft2(torch.nn.functional.pad(fields, (MARGIN,) * 4))


def _kernel(planes: Tensor) -> Tensor:
    return torch.fft.rfft2(planes, s=(CANVAS, CANVAS)).conj()


def _correlated(spectrum: Tensor, kernel: Tensor) -> Tensor:
    return torch.fft.irfft2((spectrum * kernel).sum(0), s=(CANVAS, CANVAS))


def truth(pictures: Tensor, seeds: Sequence[int], wanted: str, background: str) -> list[float]:
    """dB of each picture [B, H, W, 3] against its scene's counterfactual."""
    right = {seed: Counterfactual(seed, wanted, background) for seed in dict.fromkeys(seeds)}
    return [right[seed].psnr(picture[None])[0] for picture, seed in zip(pictures, seeds)]
