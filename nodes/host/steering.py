"""Attention and features of the target branches, steered by the source branch while the network runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from itertools import accumulate
from operator import or_
from typing import TypeVar

import torch
import torch.nn.functional as F
from comfy.patcher_extension import WrappersMP, add_wrapper
from torch import Tensor

from ...eta_core.masks import enlarge, for_rows
from ...eta_core.methods import Borrow, LocalBlend, MasaCtrl, Method, PlugAndPlay, PromptToPrompt
from ...eta_core.methods.attention import outside_and_inside, probabilities, replaced, transfer
from .attention import (
    Attend,
    Key,
    attention_layers,
    chain,
    chunks_of,
    feature_block,
    fills_picture,
    fold,
    map_grid,
    map_layers,
    plain_attention,
)
from .messages import warn

SOURCE = "source"
Kind = TypeVar("Kind")


class Steering:
    """The methods of the target branches, at work inside the network calls of one sampling.

    Each step: begin(), then install() into the options of each call. The source's rows are read where they are met and
    borrowed by target rows of the same call or of the step's later ones. `guided`: steered branches have a guidance, so the
    source's negative rows are wanted too.
    """

    def __init__(
        self,
        model,
        methods: Mapping[str, Sequence[Method]],
        steps: int,
        size: tuple[int, int],
        guided: bool = True,
        node_id=None,
    ):
        self._branches = {name: BranchMethods(chosen, steps) for name, chosen in methods.items() if chosen}
        self._layers = attention_layers(model)
        if self._branches and not self._layers:
            raise ValueError(
                f"{type(model.model).__name__} has no UNet cross-attention, which Prompt-to-Prompt, MasaCtrl and Plug-and-Play steer: "
                "disconnect `edit`, or use an SD1, SD2 or SDXL model"
            )
        self._map_layers = set(map_layers(self._layers, size)) if self._branches else set()
        self._grid = map_grid(self._layers, size)
        self._size, self._guided, self._node_id = size, guided, node_id
        self._done, self._rows, self._together, self._armed = 0, {}, False, True
        self._kept: dict = {}
        self._warned = False

    def reads(self, done: int) -> bool:
        """Whether any method wants the source branch in the step after `done` finished ones."""
        return any(branch.reads(done) for branch in self._branches.values())

    def begin(self, done: int) -> bool:
        """Open a step; whether anything is steered or recorded in it."""
        self._done = done
        self._kept.clear()
        return any(
            [branch.begin(done, self._layers) for branch in self._branches.values()]
        )  # every one must begin

    def blends(self) -> Iterator[Tensor]:
        """The local blends' masks after this step, [B, 1, H, W]."""
        for branch in self._branches.values():
            region = branch.blend_region(self._done, self._size)
            if region is not None:
                yield region

    def install(self, options: dict, rows: Mapping[str, int]) -> dict:
        """Add a call's patches to `options`; rows: how many rows of each branch it has, in order."""
        options["sampler_pre_cfg_function"] = [*options.get("sampler_pre_cfg_function", []), self._disarm]
        ends = list(accumulate(rows.values()))
        self._rows = {name: slice(end - count, end) for (name, count), end in zip(rows.items(), ends)}
        self._together = {SOURCE, *self._branches} <= set(rows)
        self._armed = True
        if SOURCE in rows and self._guided:
            options["disable_cfg1_optimization"] = True
        branches = self._branches.values()
        chain(
            options,
            "attn1",
            [key for key in self._layers if any(b.borrows_at(key) for b in branches)],
            self._self,
        )
        if any(b.weight is not None for b in branches):
            chain(options, "attn2", list(self._layers), self._cross)
        elif any(b.records for b in branches):
            chain(options, "attn2", [key for key in self._layers if key in self._map_layers], self._cross)
        if any(b.features for b in branches):
            add_wrapper(WrappersMP.DIFFUSION_MODEL, self._with_features, options, is_model_options=True)
        return options

    def _disarm(self, args: dict) -> list:
        """Guidance such as PAG or SAG calls the network again: steered by the source's own such call, and not recorded."""
        self._armed = False
        return args["conds_out"]

    # --- rows --------------------------------------------------------------------------------------------------------

    def _parts(self, count: int, extra_options: dict) -> Iterator[tuple[str, int, slice]]:
        """(branch, kind, rows) of a call of `count` rows, the source's first; empty where the rows are others."""
        chunks = chunks_of(count, extra_options)
        if not chunks or chunks[0].rows.stop != max(rows.stop for rows in self._rows.values()):
            return
        for name in sorted(self._rows, key=lambda name: name != SOURCE):
            for chunk in chunks:
                first, rows = chunk.rows.start, self._rows[name]
                yield name, chunk.kind, slice(first + rows.start, first + rows.stop)

    def _keep(self, place: tuple, kind: int, values) -> None:
        self._kept[place, kind, self._armed] = values

    def _of_source(self, place: tuple, kind: int):
        return self._kept.get((place, kind, self._armed))

    def _forget(self, place: tuple) -> None:
        """Free what the source left at a place when every branch was in its call."""
        if self._together:
            self._kept = {key: value for key, value in self._kept.items() if key[0] != place}

    def _usual(self, q: Tensor, extra_options: dict) -> bool:
        usual = fills_picture(q, extra_options, self._size) and any(self._parts(len(q), extra_options))
        if not usual:
            self._complain()
        return usual

    def _complain(self) -> None:
        if not self._warned:
            warn(
                "another pack or an area changes the attention's shape (areas, ToMe, HyperTile, added tokens): the editing method is "
                "left out there",
                self._node_id,
            )
        self._warned = True

    # --- self-attention ----------------------------------------------------------------------------------------------

    def _self(self, key: Key, attend: Attend, q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
        if not self._usual(q, extra_options):
            return attend(q, k, v)
        own, mixed, regional, place = (q, k, v), [q, k, v], [], ("attn1", key)
        for name, kind, rows in self._parts(len(q), extra_options):
            if name == SOURCE:
                wanted = reduce(or_, (branch.borrows[key, kind] for branch in self._branches.values()))
                self._keep(place, kind, [t[rows] if taken else None for t, taken in zip(own, wanted)])
                continue
            branch, kept = self._branches.get(name), self._of_source(place, kind)
            if branch is None or kept is None or not any(branch.borrows[key, kind]):
                continue
            taken = [i for i, taken in enumerate(branch.borrows[key, kind]) if taken]
            if any(kept[i].shape[1:] != own[i].shape[1:] for i in taken):
                self._complain()
                continue
            for i in taken:
                mixed[i] = mixed[i].clone() if mixed[i] is own[i] else mixed[i]
                mixed[i][rows] = for_rows(kept[i], rows.stop - rows.start)
            if branch.regions is not None and branch.borrows[key, kind].k and branch.borrows[key, kind].v:
                regional.append((rows, branch.regions))
        answer = attend(*mixed)
        grid = tuple(extra_options["activations_shape"][-2:])
        for rows, regions in regional:
            answer = answer.clone()
            keys, queries = (_on_grid(region.to(q), grid, rows.stop - rows.start) for region in regions)
            answer[rows] = outside_and_inside(
                plain_attention(extra_options), *(t[rows] for t in mixed), keys, queries
            )
        self._forget(place)
        return answer

    # --- cross-attention ---------------------------------------------------------------------------------------------

    def _cross(
        self, key: Key, attend: Attend, q: Tensor, k: Tensor, v: Tensor, extra_options: dict
    ) -> Tensor:
        answer, place = attend(q, k, v), ("attn2", key)
        if not self._usual(q, extra_options):
            return answer
        heads, grid = extra_options["n_heads"], tuple(extra_options["activations_shape"][-2:])
        for name, kind, rows in self._parts(len(q), extra_options):
            if kind != 0:
                continue
            if name == SOURCE:
                self._keep(place, kind, (q[rows], k[rows]))
            elif (branch := self._branches.get(name)) is not None and branch.prompt is not None:
                source_tokens, tokens = branch.prompt.shares.shape
                kept = self._of_source(place, kind)
                if k.shape[1] % tokens or (kept is not None and kept[1].shape[1] % source_tokens):
                    self._complain()
                    continue
                source = None if kept is None else fold(probabilities(*kept, heads), source_tokens)
                maps = fold(probabilities(q[rows], k[rows], heads), tokens)
                if branch.weight is not None and source is not None:
                    steered = branch.steered(for_rows(source, rows.stop - rows.start), maps)
                    answer = answer.clone()
                    answer[rows] = replaced(answer[rows], steered - maps, v[rows][:, :tokens], heads)
                    maps = steered
                if self._armed and branch.records and key in self._map_layers:
                    branch.record(source, maps, grid, self._grid)
        self._forget(place)
        return answer

    # --- features ----------------------------------------------------------------------------------------------------

    def _with_features(self, executor, *args, **kwargs):
        """The network with a hook on its feature layer for the length of this call."""
        unet = executor.class_obj
        if tuple(args[0].shape[-2:]) != self._size:
            self._complain()
            return executor(*args, **kwargs)
        extra_options = next(
            a for a in (*args, *kwargs.values()) if isinstance(a, dict) and "cond_or_uncond" in a
        )
        hook = unet.output_blocks[feature_block(unet)][0].out_layers.register_forward_hook(
            lambda module, inputs, features: self._features(features, extra_options)
        )
        try:
            return executor(*args, **kwargs)
        finally:
            hook.remove()

    def _features(self, features: Tensor, extra_options: dict) -> Tensor:
        mixed, place = features, ("features",)
        for name, kind, rows in self._parts(len(features), extra_options):
            if name == SOURCE:
                self._keep(place, kind, features[rows])
                continue
            branch, kept = self._branches.get(name), self._of_source(place, kind)
            if branch is None or kept is None or not branch.features:
                continue
            if kept.shape[1:] != features.shape[1:]:
                self._complain()
                continue
            mixed = mixed.clone() if mixed is features else mixed
            mixed[rows] = for_rows(kept, rows.stop - rows.start)
        self._forget(place)
        return mixed


class BranchMethods:
    """The methods of one target branch, and what they do in the step that is open."""

    def __init__(self, methods: Sequence[Method], steps: int):
        self._methods, self._steps = tuple(methods), steps
        self.prompt: PromptToPrompt | None = self._one(PromptToPrompt)
        self.blend: LocalBlend | None = self.prompt.blend if self.prompt else None
        masa = self._one(MasaCtrl)
        self.regions = masa.regions if masa else None
        self.borrows: dict[tuple[Key, int], Borrow] = {}
        self.weight: Tensor | None = None
        self.features = False
        self._sums: list[Tensor | float] = []

    def _one(self, kind: type[Kind]) -> Kind | None:
        return next((method for method in self._methods if isinstance(method, kind)), None)

    def reads(self, done: int) -> bool:
        return any(method.reads(done, self._steps) for method in self._methods)

    def begin(self, done: int, layers: Mapping) -> bool:
        """Open a step; whether this branch is steered or recorded in it."""
        steps = self._steps
        if done == 0:
            self._sums = [0.0, 0.0]
        self.borrows = {
            (key, kind): reduce(or_, (method.borrows(done, steps, layer, kind) for method in self._methods))
            for key, layer in layers.items()
            for kind in (0, 1)
        }
        self.weight = (
            self.prompt.weight(done, steps) if self.prompt and self.prompt.steers_cross(done, steps) else None
        )
        injection = self._one(PlugAndPlay)
        self.features = injection is not None and injection.features.covers(done, steps)
        return self.reads(done) or self.records

    @property
    def records(self) -> bool:
        return self.blend is not None and self.blend.mask is None

    def borrows_at(self, key: Key) -> bool:
        return any(any(self.borrows[key, kind]) for kind in (0, 1))

    def steered(self, source: Tensor, target: Tensor) -> Tensor:
        """The branch's cross-attention maps in this step."""
        shares, weight, scale = (t.to(target) for t in (self.prompt.shares, self.weight, self.prompt.scale))
        return transfer(source, target, shares, weight, scale)

    def record(
        self, source: Tensor | None, target: Tensor, grid: tuple[int, int], wanted: tuple[int, int]
    ) -> None:
        """Add one layer's maps [B, heads, Q, tokens] of the blend's words, from its `grid` to the `wanted` one."""
        for i, (maps, words) in enumerate(((source, self.blend.source), (target, self.blend.target))):
            if maps is not None and words:
                maps = maps[..., list(words)].sum((1, 3)).unflatten(-1, grid)
                self._sums[i] = self._sums[i] + enlarge(maps, wanted)

    def blend_region(self, done: int, size: tuple[int, int]) -> Tensor | None:
        if self.blend is None or not self.blend.acts(done, self._steps):
            return None
        found = [words for words in self._sums if torch.is_tensor(words)]
        if not found and self.records:
            return None
        rows = max(map(len, found), default=0)
        return self.blend.region([for_rows(words, rows) for words in found], size)


def _on_grid(region: Tensor, grid: tuple[int, int], rows: int) -> Tensor:
    """A region [B or 1, 1, H, W] on a layer's grid, flat: [rows, h * w]."""
    return for_rows(F.interpolate(region, grid, mode="area").flatten(1), rows)
