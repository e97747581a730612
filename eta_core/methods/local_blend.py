"""Prompt-to-Prompt's local blend: the picture is held on the source where neither prompt's words look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from ..hold import for_one_step, step_share
from ..masks import enlarge, tile_batch


@dataclass(frozen=True, eq=False)
class LocalBlend:
    """Settings of a local blend (Hertz et al. 2022, section 3.2; the authors' program).

    source, target: rows of the words' tokens in each conditioning. threshold: share of each map's maximum
    that counts as the word's (reference: 0.3). start: share of the steps after which it acts. mask
    [B or 1, 1, H, W]: instead of the words, 1 = free. Raises ValueError without words and mask, and for a
    threshold outside 0..1.
    """

    source: tuple[int, ...]
    target: tuple[int, ...]
    threshold: float = 0.3
    start: float = 0.2
    mask: Tensor | None = None

    def __post_init__(self):
        if self.mask is None and not self.source and not self.target:
            raise ValueError(
                "the local blend has no words: name words of either prompt in blend_words, or switch it off"
            )
        if not 0 <= self.threshold < 1:
            raise ValueError(
                f"blend_threshold = {self.threshold:g}: it runs from 0 to below 1 (reference: 0.3)"
            )

    @property
    def reads_words(self) -> bool:
        return self.mask is None

    def acts(self, done: int, steps: int) -> bool:
        return done >= int(self.start * steps)

    def region(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Where the picture is free, [B, 1, H, W] in 0..1, from the words' maps, each [B, h, w]."""
        if self.mask is not None:
            return self.mask
        regions = []
        for words in maps:
            spread = F.interpolate(F.max_pool2d(words[:, None], 3, 1, 1), size, mode="nearest")
            regions.append(spread > self.threshold * spread.amax((-2, -1), keepdim=True))
        return torch.stack(regions).any(0).float()


class BlendMaps:
    """The attention of a blend's words in both branches, summed over layers and steps of one sampling."""

    def __init__(self, blend: LocalBlend):
        self._blend = blend
        self._source: list[Tensor] = []  # of the steps so far, summed; behind it this step's layers
        self._target: list[Tensor] = []
        self._closed = 0, 0

    @property
    def reads_words(self) -> bool:
        return self._blend.reads_words

    def add(
        self, source: Tensor | None, target: Tensor, grid: tuple[int, int], wanted: tuple[int, int]
    ) -> None:
        """Add one layer's maps [B, heads, Q, rows], brought from its `grid` to the `wanted` one."""
        if source is not None and self._blend.source:
            self._source.append(_of_words(source, self._blend.source, grid, wanted))
        if self._blend.target:
            self._target.append(_of_words(target, self._blend.target, grid, wanted))

    def reopen_step(self) -> None:
        """Drop what was added since the last `hold_mask`: its network call broke off."""
        for maps, closed in zip((self._source, self._target), self._closed):
            del maps[closed:]

    def hold_mask(self, done: int, steps: int, size: tuple[int, int]) -> Tensor | None:
        """The hold mask [B, 1, H, W] after the step, 1 = held on the source; None where nothing is held."""
        self._source, self._target = (_summed(maps) for maps in (self._source, self._target))
        self._closed = len(self._source), len(self._target)
        found = [maps[0] for maps in (self._source, self._target) if maps]
        if not self._blend.acts(done, steps) or (self._blend.reads_words and not found):
            return None
        rows = max(map(len, found), default=0)
        held = 1 - self._blend.region([tile_batch(maps, rows) for maps in found], size)
        return for_one_step(held, step_share(steps - 1 - done, steps - int(self._blend.start * steps)))


def _of_words(maps: Tensor, words: Sequence[int], grid: tuple[int, int], wanted: tuple[int, int]) -> Tensor:
    # Word by word: indexing by a list would bring it to the GPU, and wait for it, in every layer.
    whole = reduce(torch.add, (maps[..., word].sum(1) for word in words))
    return enlarge(whole.unflatten(-1, grid), wanted)


def _summed(maps: list[Tensor]) -> list[Tensor]:
    """Their sum alone. Summed up once a step and not once a layer, which is faster on a GPU."""
    return maps if len(maps) < 2 else [torch.stack(maps).sum(0)]
