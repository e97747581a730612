"""Editing methods in transformers whose blocks attend to text and image in one sequence.

What is the source's there: queries, keys and values of the image's tokens. The text's own stay the target's.
Prompt-to-Prompt steers the columns of the words in the image's attention. Everything but these columns and
attention in regions stays the attention that the user runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

import torch
from comfy.patcher_extension import WrappersMP, add_wrapper
from torch import Tensor

from ...eta_core.masks import tile_batch
from ...eta_core.methods import CrossControl
from ...eta_core.methods.attention import outside_and_inside, split_heads, word_columns
from .attention import Attend, Key, chain_steered
from .families import JointNetwork
from .steered_rows import SOURCE, SteeredRows, on_grid

if TYPE_CHECKING:
    from .steering import StepMethods

Regions = tuple[Tensor, Tensor]
QUERIES = 1024  # whose columns are formed together, so that memory stays small


class JointCall(SteeredRows):
    """One call of such a network, and what is done to the rows of its branches."""

    def __init__(self, step: StepMethods, network: JointNetwork, rows: Mapping[str, int]):
        super().__init__(step, rows)
        self._network, self._image = network, network.grid[0] * network.grid[1]
        self._block: int | None = None  # how many joint blocks have attended; None outside the network

    def install(self, options: dict) -> None:
        super().install(options)
        branches = self._branches.values()
        injects = any(branch.injects_at(key) for branch in branches for key in self._network.layers)
        if injects or any(branch.control is not None for branch in branches):
            add_wrapper(WrappersMP.APPLY_MODEL, self._counting, options, is_model_options=True)
            chain_steered(options, self._attend)

    def _counting(self, executor, x: Tensor, *args, **kwargs):
        """The network, its blocks counted from the first on."""
        whole = tuple(x.shape[-2:]) == self._step.plan.size
        if not whole:
            self._step.run.complain()
        self._block = 0 if whole else None
        try:
            return executor(x, *args, **kwargs)
        finally:
            self._block = None

    def _attend(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, heads: int, *args, **kwargs) -> Tensor:
        text, options = k.shape[-2] - self._image, kwargs.get("transformer_options") or {}
        if self._block is None or text < 0 or q.shape[-2] != k.shape[-2]:
            return attend(q, k, v)  # not the network's, or the text among itself
        if text:
            self._block += 1
        key, place = ("joint", 0, self._block - 1), ("joint", self._block, text > 0)
        parts = self._parts(len(q), options)
        if key not in self._network.layers or not parts:
            self._step.run.complain()
            return attend(q, k, v)
        first = text if self._network.text_first else 0
        tokens = slice(first, first + self._image)
        masked = kwargs.get("mask") is not None or any(torch.is_tensor(each) for each in args)
        steered = _Layer(self, key, place, heads, text, tokens, masked, bool(kwargs.get("skip_reshape")))
        return steered.answer(attend, q, k, v, parts)


class _Layer:
    """One attention call of a steered network.

    text: how many keys are the text's; 0 where the image attends alone. tokens: where the image's stand.
    masked: whether the call has a mask. split: whether its heads are.
    """

    def __init__(
        self,
        call: JointCall,
        key: Key,
        place: tuple,
        heads: int,
        text: int,
        tokens: slice,
        masked: bool,
        split: bool,
    ):
        self._call, self._key, self._place, self._heads = call, key, place, heads
        self._text, self._tokens, self._masked, self._split = text, tokens, masked, split
        self._step, self._network = call._step, call._network

    def answer(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, parts: list) -> Tensor:
        if not self._split:
            v = v.flatten(2)  # SD3's values come with their heads apart
        mixed, regional = [q, k, v], []
        for name, cond, rows in parts:
            if name == SOURCE:
                self._keep(q[rows], k[rows], v[rows], cond)
                continue
            branch, kept = self._call._branches.get(name), self._call._of_source(self._place, cond)
            if branch is None or kept is None:
                continue
            wanted = branch.injections[self._key, cond]
            for i, source in enumerate(kept[:3]):
                if not wanted[i] or source is None:
                    continue
                if mixed[i] is (q, k, v)[i]:
                    mixed[i] = mixed[i].clone()
                own = mixed[i][rows][..., self._tokens, :]
                source = tile_batch(source, rows.stop - rows.start)
                if branch.share is not None and i > 0:
                    share = self._flat(branch.share, source)
                    source = own.lerp(source, share[:, None] if self._split else share)
                own.copy_(source)
            if branch.regions is not None and wanted.k and wanted.v:
                regional.append((rows, branch.regions))
        found = attend(*mixed)
        for rows, regions in regional:
            found = self._in_regions(attend, found, [each[rows] for each in mixed], rows, regions)
        for name, cond, rows in parts:
            branch = self._call._branches.get(name)
            if cond and self._text and branch is not None and branch.control is not None:
                own = [each[rows] for each in mixed]
                found = self._in_words(name, branch.control, found, own, rows)
        self._call._forget(self._place)
        return found

    def _keep(self, q: Tensor, k: Tensor, v: Tensor, cond: bool) -> None:
        """The source's image tokens, and all its keys where its words' columns are wanted."""
        halves = (True, False) if self._step.plan.one_row else (cond,)
        branches = self._call._branches.values()
        wanted = reduce(or_, (branch.injections[self._key, half] for branch in branches for half in halves))
        reads = cond and any(branch.control is not None for branch in branches)
        kept = [
            each[..., self._tokens, :] if inject or (reads and each is q) else None
            for each, inject in zip((q, k, v), wanted)
        ]
        self._call._keep(self._place, cond, [*kept, k if reads else None])

    def _flat(self, region: Tensor, like: Tensor) -> Tensor:
        """A region at the image's tokens, [rows, tokens, 1]."""
        return on_grid(region.to(like), self._network.grid, len(like))[..., None]

    def _in_regions(
        self, attend: Attend, found: Tensor, own: Sequence[Tensor], rows: slice, regions: Regions
    ) -> Tensor:
        """`found` with the image attending inside and outside its regions apart. All see the text."""
        q, k, v = own
        if self._text and not self._network.text_first:
            k, v = torch.roll(k, self._text, -2), torch.roll(v, self._text, -2)
        keys, queries = (self._flat(region, q)[..., 0] for region in regions)
        image = q[..., self._tokens, :]
        found = found.clone()
        found[rows, self._tokens] = outside_and_inside(attend, image, k, v, keys, queries, self._text)
        return found

    def _in_words(
        self, name: str, control: CrossControl, found: Tensor, own: Sequence[Tensor], rows: slice
    ) -> Tensor:
        """`found` with the words' columns under the source's control; they are recorded for a local blend."""
        source_rows, target_rows = control.shares.shape
        words, source_words = self._words(target_rows), self._words(source_rows)
        if words is None or source_words is None or self._masked:
            self._step.run.complain()
            return found
        kept = self._call._of_source(self._place, True)
        source_q, source_k = (kept[0], kept[3]) if kept is not None else (None, None)
        q, k, v = (self._heads_of(each) for each in (own[0][..., self._tokens, :], own[1], own[2]))
        if source_q is not None and source_k is not None:
            source_q, source_k = (tile_batch(self._heads_of(each), len(q)) for each in (source_q, source_k))
        maps, source_maps, first = [], [], self._tokens.start
        steers = control.steers and source_k is not None
        found = found.clone() if steers else found
        for start in range(0, self._call._image, QUERIES):
            some = slice(start, min(start + QUERIES, self._call._image))
            ours = word_columns(q[:, :, some], k, words)
            if source_q is not None and source_k is not None:
                source = word_columns(source_q[:, :, some], source_k, source_words)
                source_maps.append(source.mean(1, keepdim=True))
                if steers:
                    gained = control.change(source, ours)
                    change = (gained.to(v) @ v[:, :, words]).transpose(1, 2).flatten(2)
                    found[rows, first + some.start : first + some.stop] += change
                    ours = ours + gained
            maps.append(ours.mean(1, keepdim=True))
        self._record(name, maps, source_maps)
        return found

    def _record(self, name: str, maps: list[Tensor], source_maps: list[Tensor]) -> None:
        blend = self._step.run.blend_maps.get(name)
        read = self._call._armed and self._key in self._network.map_layers
        if read and blend is not None and blend.reads_words:
            grid = self._network.grid
            blend.add(torch.cat(source_maps, 2) if source_maps else None, torch.cat(maps, 2), grid, grid)

    def _words(self, rows: int) -> slice | None:
        """Where a prompt of so many rows stands among the keys; None where that is not known."""
        padded = max(rows, self._network.least_text)
        if padded != self._text:
            return None
        first = (0 if self._network.text_first else self._call._image) + padded - rows
        return slice(first, first + rows)

    def _heads_of(self, x: Tensor) -> Tensor:
        return x if self._split else split_heads(x, self._heads)
