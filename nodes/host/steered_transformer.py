"""Editing methods in transformers, whose image attends to the text in one sequence with it or by calls of
their own.

What is the source's there: queries, keys and values of the image's tokens. The text's own, padding and
reference pictures stay the target's. Prompt-to-Prompt steers the columns of the words in the image's
attention. Everything but these columns and attention in regions stays the attention that the user runs, and
blocks that are not steered see nothing of this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial, reduce
from operator import or_
from typing import TYPE_CHECKING

import torch
from comfy.patcher_extension import WrappersMP, add_wrapper
from torch import Tensor

from ...eta_core.masks import tile_batch
from ...eta_core.methods import CrossControl
from ...eta_core.methods.attention import (
    change_of,
    columns,
    log_sum,
    of_all_heads,
    outside_and_inside,
    split_heads,
)
from .attention import Attend, Key, chain_steered, outside_the_blocks_memory
from .families import SteeredTransformer
from .families.steered import Place
from .steered_rows import SOURCE, SteeredRows, on_grid

if TYPE_CHECKING:
    from .steering import StepMethods

Regions = tuple[Tensor, Tensor]
QUERIES = 1024  # whose columns are formed together, so that memory stays small


class TransformerCall(SteeredRows):
    """One call of such a network, and what is done to the rows of its branches."""

    def __init__(self, step: StepMethods, network: SteeredTransformer, rows: Mapping[str, int], short: bool):
        super().__init__(step, rows, short)
        self._network = network
        branches = self._branches.values()
        self._injected = {key for key in network.layers if any(branch.injects_at(key) for branch in branches)}
        controls = [branch.control for branch in branches if branch.control is not None]
        steers = any(control.steers for control in controls)
        self._worded = set(network.layers if steers else network.map_layers if controls else ())
        self._block: Key | None = None  # the steered block at work
        self._text, self._references, self._met = 0, False, False

    def install(self, options: dict) -> None:
        super().install(options)
        if self._injected or self._worded:
            add_wrapper(WrappersMP.APPLY_MODEL, self._watching, options, is_model_options=True)
            chain_steered(options, self._attend)

    def _watching(self, executor, x: Tensor, t, c_concat=None, c_crossattn=None, *args, **kwargs):
        """The network, with hooks on its steered blocks for the length of this call."""
        hooks = []
        if tuple(x.shape[-2:]) == self._step.plan.size:
            self._text = 0 if c_crossattn is None else c_crossattn.shape[1]
            self._references, self._met = bool(kwargs.get("ref_latents")), False
            for key, block in self._network.blocks_of(executor.class_obj.diffusion_model):
                if key in self._injected or key in self._worded:
                    hooks.append(block.register_forward_pre_hook(partial(self._enter, key)))
                    hooks.append(block.register_forward_hook(self._leave))
        try:
            answer = executor(x, t, c_concat, c_crossattn, *args, **kwargs)
        finally:
            self._block = None
            for hook in hooks:
                hook.remove()
        if self._armed and not self._met:
            self._step.run.complain()
        return answer

    def _enter(self, key: Key, block, inputs) -> None:
        self._block = key

    def _leave(self, block, inputs, output) -> None:
        self._block = None

    def _attend(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, heads: int, *args, **kwargs) -> Tensor:
        key = self._block
        if key is None:
            return attend(q, k, v)
        place = self._network.place(q.shape[-2], k.shape[-2], self._text, self._references)
        parts = self._parts(len(q), kwargs.get("transformer_options") or {})
        if place is None or not parts:
            self._step.run.complain()
            return attend(q, k, v)
        self._met = True
        injects = place.among_itself and key in self._injected
        if not injects and not (place.text.stop and key in self._worded):
            return attend(q, k, v)
        masked = kwargs.get("mask") is not None or any(torch.is_tensor(each) for each in args)
        steered = _Layer(self, key, place, heads, masked, bool(kwargs.get("skip_reshape")))
        return steered.answer(attend, q, k, v, parts)


class _Layer:
    """One attention call of a steered network.

    masked: whether the call has a mask. split: whether its heads are.
    """

    def __init__(self, call: TransformerCall, key: Key, place: Place, heads: int, masked: bool, split: bool):
        self._call, self._key, self._place, self._heads = call, key, place, heads
        self._masked, self._split = masked, split
        self._kept = (key, place.text.stop > 0)
        self._step, self._network, self._tokens = call._step, call._network, place.image

    def answer(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, parts: list) -> Tensor:
        if not self._split:
            v = v.flatten(2)  # SD3's values come with their heads apart
        mixed, regional = [q, k, v], []
        for name, cond, rows in parts:
            if name == SOURCE:
                self._keep(q[rows], k[rows], v[rows], cond)
                continue
            branch, kept = self._call._branches.get(name), self._call._of_source(self._kept, cond, q)
            if branch is None or kept is None or not self._place.among_itself:
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
            if cond and self._reads and branch is not None and branch.control is not None:
                own = [each[rows] for each in mixed]
                found = self._in_words(name, branch.control, found, own, rows)
        self._call._forget(self._kept)
        return found

    @property
    def _reads(self) -> bool:
        """Whether the words' columns are wanted in this call."""
        return self._place.text.stop > 0 and self._key in self._call._worded

    def _keep(self, q: Tensor, k: Tensor, v: Tensor, cond: bool) -> None:
        """The source's image tokens, and what its words' columns are made of where these are wanted."""
        halves = (True, False) if self._step.plan.one_row else (cond,)
        branches = self._call._branches.values()
        wanted = reduce(or_, (branch.injections[self._key, half] for branch in branches for half in halves))
        exchanged = [
            each[..., self._tokens, :] if inject and self._place.among_itself else None
            for each, inject in zip((q, k, v), wanted)
        ]
        rows = {len(branch.control.shares) for branch in branches if branch.control is not None}
        looks = self._looks(q, k, rows.pop()) if cond and self._reads and rows else None
        self._call._keep(self._kept, cond, [*exchanged, *(looks or ())])

    def _looks(self, q: Tensor, k: Tensor, rows: int) -> tuple[Tensor, ...] | None:
        """What the columns of a prompt of so many rows are made of; see attention.columns.

        None, with a complaint, where it is not known where the prompt stands, or the call has a mask.
        """
        words = self._network.words(rows, self._place.text)
        if words is None or self._masked:
            self._step.run.complain()
            return None
        q = self._heads_of(q[..., self._tokens, :])
        k = of_all_heads(self._heads_of(k), q).contiguous()
        whole = torch.cat([log_sum(q[:, :, some], k) for some in self._some()], 2)
        return q, k[:, :, words].clone(), whole  # a view would keep all keys

    def _some(self) -> Iterator[slice]:
        """The image's places, QUERIES at once."""
        for start in range(0, self._network.image, QUERIES):
            yield slice(start, min(start + QUERIES, self._network.image))

    def _flat(self, region: Tensor, like: Tensor) -> Tensor:
        """A region at the image's tokens, [rows, tokens, 1]."""
        return on_grid(region.to(like), self._network.grid, len(like))[..., None]

    def _in_regions(
        self, attend: Attend, found: Tensor, own: Sequence[Tensor], rows: slice, regions: Regions
    ) -> Tensor:
        """`found` with the image attending inside and outside its regions apart.

        Both sides see what is no image.
        """
        if self._masked:
            self._step.run.complain()
            return found
        q, k, v = own[0], *map(self._image_last, own[1:])
        keys, queries = (self._flat(region, q)[..., 0] for region in regions)
        image, others = q[..., self._tokens, :], k.shape[-2] - self._network.image
        found = found.clone()
        found[rows, self._tokens] = outside_and_inside(attend, image, k, v, keys, queries, others)
        return found

    def _image_last(self, x: Tensor) -> Tensor:
        """Keys or values with the image's behind all others. Attention does not mind their order."""
        first, last = self._tokens.start, self._tokens.stop
        if last == x.shape[-2]:
            return x
        return torch.cat([x[..., :first, :], x[..., last:, :], x[..., self._tokens, :]], -2)

    def _in_words(
        self, name: str, control: CrossControl, found: Tensor, own: Sequence[Tensor], rows: slice
    ) -> Tensor:
        """`found` with the words' columns under the source's control; they are recorded for a local blend."""
        target_rows, records = control.shares.shape[1], self._records(name)
        if not (control.steers or records):
            return found
        looks, kept = self._looks(own[0], own[1], target_rows), self._call._of_source(self._kept, True, found)
        if looks is None:
            return found
        source = [tile_batch(each, len(looks[0])) for each in (kept or ())[3:] if each is not None]
        words = self._network.words(target_rows, self._place.text)
        values = of_all_heads(self._heads_of(own[2]), looks[0])[:, :, words].float()
        steers = control.steers and bool(source)
        maps, source_maps, first = [], [], self._tokens.start
        found = found.clone() if steers else found
        for some in self._some():
            ours = _columns(looks, some)
            theirs = _columns(source, some) if source else None
            if theirs is not None and steers:
                gained = control.change(theirs, ours)
                change = change_of(gained, values).to(found)
                found[rows, first + some.start : first + some.stop] += change
                ours = ours + gained
            if records:
                maps.append(ours.mean(1, keepdim=True))
                source_maps += [] if theirs is None else [theirs.mean(1, keepdim=True)]
        if records:
            grid = self._network.grid
            blend = self._step.run.blend_maps[name]
            with outside_the_blocks_memory():
                blend.add(torch.cat(source_maps, 2) if source_maps else None, torch.cat(maps, 2), grid, grid)
        return found

    def _records(self, name: str) -> bool:
        """Whether a branch's local blend reads the words' maps here."""
        blend = self._step.run.blend_maps.get(name)
        read = self._call._armed and self._key in self._network.map_layers
        return read and blend is not None and blend.reads_words

    def _heads_of(self, x: Tensor) -> Tensor:
        return x if self._split else split_heads(x, self._heads)


def _columns(looks: Sequence[Tensor], some: slice) -> Tensor:
    """The columns at some of the image's places."""
    q, k, whole = looks
    return columns(q[:, :, some], k, whole[:, :, some])
