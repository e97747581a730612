"""Editing methods at work inside the network calls of one sampling.

Four objects, each living as long as its name says: MethodPlan (the edit), MethodRun (one sampling),
StepMethods (one step), UNetCall or TransformerCall (one network call). A method is asked only through
eta_core.methods.Method; none is known here by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import NamedTuple, TypeVar

import torch
from comfy.patcher_extension import WrappersMP, add_wrapper
from torch import Tensor

from ...eta_core.masks import tile_batch
from ...eta_core.methods import BlendMaps, CrossControl, Injection, Layer, Method
from ...eta_core.methods.attention import change_of, outside_and_inside, probabilities, split_heads
from .attention import (
    Attend,
    Key,
    chain,
    fills_picture,
    fold,
    outside_the_blocks_memory,
    plain_attention,
)
from .families import SteeredTransformer, UNet, steered_network
from .families.unet import feature_block
from .messages import warn
from .steered_rows import SOURCE, SteeredRows, on_grid
from .steered_transformer import TransformerCall

Regions = tuple[Tensor, Tensor]
Value = TypeVar("Value")
LEFT_OUT = (
    "another pack or an area changes the attention's shape (areas, ToMe, HyperTile, added tokens): the "
    "editing method is left out there"
)


@dataclass(frozen=True, eq=False)
class MethodPlan:
    """The methods of every target branch of an edit.

    steps: of the sampling. size: height and width of the latent. guided: a steered branch has a guidance, so
    that the source's negative rows are needed too. one_row: the source has one row, which gives to both
    halves of the guidance. told: warnings that were given, each once an edit, however often it is sampled.
    """

    methods: Mapping[str, Sequence[Method]]
    network: UNet | SteeredTransformer | None
    steps: int
    size: tuple[int, int]
    guided: bool
    one_row: bool
    node_id: str | None
    told: set[str] = field(default_factory=set)

    def start(self) -> MethodRun:
        """The methods for one sampling."""
        return MethodRun(self)


def plan_methods(
    model,
    methods: Mapping[str, Sequence[Method]],
    steps: int,
    size: tuple[int, int],
    guided: bool = True,
    references: bool = False,
    node_id: str | None = None,
) -> MethodPlan:
    """A plan for the branches that have methods. references: whether a prompt shows the network pictures.

    Raises ValueError for a model that they cannot steer.
    """
    methods = {name: tuple(chosen) for name, chosen in methods.items() if chosen}
    network = steered_network(model, size) if methods else None
    if methods and network is None:
        raise ValueError(
            f"the attention of {type(model.model).__name__} cannot be steered by Prompt-to-Prompt, MasaCtrl "
            "and Plug-and-Play: disconnect `edit`, or use a model of a family that they steer (SD1, SD2, "
            "SDXL, SD3, Flux, Qwen-Image, Z-Image, Krea 2, Chroma, Anima, Wan)"
        )
    if references and isinstance(network, SteeredTransformer) and not network.shows_references:
        raise ValueError(
            f"a prompt shows reference pictures, which the editing methods cannot tell from the picture in "
            f"{type(model.model).__name__}: disconnect `edit`, or the references"
        )
    blends = [method.local_blend() for chosen in methods.values() for method in chosen]
    if is_compiled(model) and any(blend is not None and blend.reads_words for blend in blends):
        raise ValueError(
            "torch.compile is on this model, and Prompt-to-Prompt's local blend reads the attention of "
            "layers "
            "that change from step to step, which compiled code cannot follow: connect the model from before "
            "torch.compile, give the blend a mask, or switch local_blend off"
        )
    one_row = any(method.takes_one_row() for chosen in methods.values() for method in chosen)
    return MethodPlan(methods, network, steps, size, guided and not one_row, one_row, node_id)


def is_compiled(model) -> bool:
    """Whether the host's torch.compile, or another pack's, is on a MODEL."""
    return (
        "torch.compile" in model.wrappers.get(WrappersMP.APPLY_MODEL, {})
        or type(model.get_model_object("diffusion_model")).__name__ == "OptimizedModule"
    )


class MethodRun:
    """The methods in one sampling, and what they gather over its steps."""

    def __init__(self, plan: MethodPlan):
        self.plan = plan
        self.blend_maps: dict[str, BlendMaps] = {}
        for name, chosen in plan.methods.items():
            for blend in filter(None, (method.local_blend() for method in chosen)):
                self.blend_maps[name] = BlendMaps(blend)

    def step(self, done: int) -> StepMethods:
        """The methods in the step after `done` finished ones."""
        return StepMethods(self, done)

    def complain(self) -> None:
        """Warn, once an edit, that a method is left out."""
        if LEFT_OUT not in self.plan.told:
            warn(LEFT_OUT, self.plan.node_id)
        self.plan.told.add(LEFT_OUT)


@dataclass(frozen=True, eq=False)
class _Branch:
    """What the methods of one target branch do in one step."""

    injections: Mapping[tuple[Key, bool], Injection]
    features: bool
    control: CrossControl | None
    regions: Regions | None
    share: Tensor | None

    def injects_at(self, key: Key) -> bool:
        return any(any(self.injections[key, cond]) for cond in (True, False))


class _Projections(NamedTuple):
    """Queries, keys and values of some rows of a layer's call, as projected."""

    q: Tensor
    k: Tensor
    v: Tensor


def _branch(methods: Sequence[Method], network: UNet | SteeredTransformer, done: int, steps: int) -> _Branch:
    in_blocks = isinstance(network, SteeredTransformer)
    features = any(method.injects_features(done, steps) for method in methods)

    def injected(layer: Layer, cond: bool) -> Injection:
        asked = (method.injection(done, steps, layer, cond) for method in methods)
        return reduce(or_, asked, Injection(v=in_blocks and features and layer.late))

    return _Branch(
        {
            (key, cond): injected(layer, cond)
            for key, layer in network.layers.items()
            for cond in (True, False)
        },
        features and not in_blocks,
        _first(method.cross_control(done, steps) for method in methods),
        _first(method.attention_regions() for method in methods),
        _first(method.source_share() for method in methods),
    )


def _first(found: Iterable[Value | None]) -> Value | None:
    return next((each for each in found if each is not None), None)


class StepMethods:
    """The methods in one step, and the source's rows that its calls keep for the targets.

    reads_source: whether any method needs the source branch at this step.
    """

    def __init__(self, run: MethodRun, done: int):
        self.run, self.plan, self.done = run, run.plan, done
        plan = self.plan
        self.reads_source = any(
            method.reads_source(done, plan.steps) for chosen in plan.methods.values() for method in chosen
        )
        self.branches: dict[str, _Branch] = {}
        if plan.network is not None:
            self.branches = {
                name: _branch(chosen, plan.network, done, plan.steps) for name, chosen in plan.methods.items()
            }
        self.kept: dict[tuple, tuple[Tensor | None, ...]] = {}

    def patch(self, options: dict, rows: Mapping[str, int], short: bool) -> dict:
        """`options` of a network call with the methods added. rows: the number of rows of each branch.

        short: keep what the source leaves in main memory. What a call that broke off left is dropped.
        """
        if SOURCE in rows:
            self.kept.clear()
        for name in rows.keys() & self.run.blend_maps.keys():
            self.run.blend_maps[name].reopen_step()
        if self.plan.network is not None:
            if isinstance(self.plan.network, SteeredTransformer):
                TransformerCall(self, self.plan.network, rows, short).install(options)
            else:
                UNetCall(self, self.plan.network, rows, short).install(options)
        return options

    @property
    def act(self) -> bool:
        """Whether anything is steered or recorded at this step."""
        return self.reads_source or any(branch.control is not None for branch in self.branches.values())

    def hold_masks(self) -> Iterator[Tensor]:
        """The local blends' hold masks after this step, [B, 1, H, W]."""
        for maps in self.run.blend_maps.values():
            mask = maps.hold_mask(self.done, self.plan.steps, self.plan.size)
            if mask is not None:
                yield mask


class UNetCall(SteeredRows):
    """One call of a UNet, and what is done to the rows of its branches."""

    def __init__(self, step: StepMethods, network: UNet, rows: Mapping[str, int], short: bool):
        super().__init__(step, rows, short)
        self._network = network

    def install(self, options: dict) -> None:
        super().install(options)
        branches, layers = self._branches.values(), self._network.layers
        chain(
            options, "attn1", [key for key in layers if any(b.injects_at(key) for b in branches)], self._self
        )
        controls = [branch.control for branch in branches if branch.control is not None]
        if any(control.steers for control in controls):
            chain(options, "attn2", list(layers), self._cross)
        elif controls:
            chain(options, "attn2", self._network.map_layers, self._cross)
        if any(branch.features for branch in branches):
            add_wrapper(WrappersMP.DIFFUSION_MODEL, self._with_features, options, is_model_options=True)

    def _usual(self, q: Tensor, extra_options: dict) -> bool:
        """Whether the call's queries are the whole picture's and its rows are ours; complains where not."""
        whole = fills_picture(q, extra_options, self._step.plan.size)
        usual = whole and bool(self._parts(len(q), extra_options))
        if not usual:
            self._step.run.complain()
        return usual

    # --- self-attention ---------------------------------------------------------------------------

    def _self(self, key: Key, attend: Attend, q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
        if not self._usual(q, extra_options):
            return attend(q, k, v)
        mixed, place = [q, k, v], ("attn1", key)
        grid = tuple(extra_options["activations_shape"][-2:])
        regional: list[tuple[slice, Regions]] = []
        for name, cond, rows in self._parts(len(q), extra_options):
            if name == SOURCE:
                halves = (True, False) if self._step.plan.one_row else (cond,)
                branches = self._branches.values()
                wanted = reduce(or_, (branch.injections[key, half] for branch in branches for half in halves))
                taken = zip((q, k, v), wanted, strict=True)
                self._keep(place, cond, (tensor[rows] if inject else None for tensor, inject in taken))
                continue
            branch, kept = self._branches.get(name), self._of_source(place, cond, q)
            if branch is None or kept is None:
                continue
            injected = self._injected(branch.injections[key, cond], kept, q, k, v)
            for i, source in injected.items():
                source = tile_batch(source, rows.stop - rows.start)
                if branch.share is not None and i > 0:
                    share = on_grid(branch.share.to(q), grid, len(source))[..., None]
                    source = mixed[i][rows].lerp(source, share)
                mixed[i] = torch.cat([mixed[i][: rows.start], source, mixed[i][rows.stop :]])
            if branch.regions is not None and {1, 2} <= set(injected):
                regional.append((rows, branch.regions))
        answer = attend(*mixed)
        for rows, regions in regional:
            answer = answer.clone()
            keys, queries = (on_grid(region.to(q), grid, rows.stop - rows.start) for region in regions)
            q, k, v = (tensor[rows] for tensor in mixed)
            answer[rows] = outside_and_inside(plain_attention(extra_options), q, k, v, keys, queries)
        self._forget(place)
        return answer

    def _injected(
        self, wanted: Injection, kept: tuple[Tensor | None, ...], q: Tensor, k: Tensor, v: Tensor
    ) -> dict[int, Tensor]:
        """The source's tensors to inject, by their place in (q, k, v). None where their shapes differ."""
        found = {
            i: source
            for i, (inject, source) in enumerate(zip(wanted, kept, strict=True))
            if inject and source is not None
        }
        if any(source.shape[1:] != (q, k, v)[i].shape[1:] for i, source in found.items()):
            self._step.run.complain()
            return {}
        return found

    # --- cross-attention --------------------------------------------------------------------------

    def _cross(
        self, key: Key, attend: Attend, q: Tensor, k: Tensor, v: Tensor, extra_options: dict
    ) -> Tensor:
        answer, place = attend(q, k, v), ("attn2", key)
        if not self._usual(q, extra_options):
            return answer
        for name, cond, rows in self._parts(len(q), extra_options):
            if not cond:
                continue
            if name == SOURCE:
                self._keep(place, cond, (q[rows], k[rows]))
                continue
            branch = self._branches.get(name)
            if branch is not None and branch.control is not None:
                source = self._of_source(place, cond, q)
                own = _Projections(q[rows], k[rows], v[rows])
                change = self._controlled(name, branch.control, key, own, source, extra_options)
                if change is not None:
                    answer = answer.clone()
                    answer[rows].add_(change)
        self._forget(place)
        return answer

    def _controlled(
        self,
        name: str,
        control: CrossControl,
        key: Key,
        own: _Projections,
        source: tuple[Tensor | None, ...] | None,
        extra_options: dict,
    ) -> Tensor | None:
        """What one branch's answer gains under the source's control, or None where it stays as it is.

        The maps are recorded for the branch's local blend. source: the source's q and k, where they are
        known.
        """
        heads, (source_rows, text_rows) = extra_options["n_heads"], control.shares.shape
        source_q, source_k = source or (None, None)
        if own.k.shape[1] % text_rows or (source_k is not None and source_k.shape[1] % source_rows):
            self._step.run.complain()
            return None
        source_maps, gained = None, None
        if source_q is not None and source_k is not None:
            source_maps = fold(probabilities(source_q, source_k, heads), source_rows)
        maps = fold(probabilities(own.q, own.k, heads), text_rows)
        if control.steers and source_maps is not None:
            gained = control.change(tile_batch(source_maps, len(maps)), maps)
        blend_maps = self._step.run.blend_maps.get(name)
        if (
            self._armed
            and blend_maps is not None
            and blend_maps.reads_words
            and key in self._network.map_layers
        ):
            grid = tuple(extra_options["activations_shape"][-2:])
            steered = maps if gained is None else maps + gained
            with outside_the_blocks_memory():
                blend_maps.add(source_maps, steered, grid, self._network.grid)
        return None if gained is None else change_of(gained, split_heads(own.v[:, :text_rows], heads))

    # --- features ---------------------------------------------------------------------------------

    def _with_features(self, executor, *args, **kwargs):
        """The network with a hook on its feature layer for the length of this call."""
        network = executor.class_obj
        if tuple(args[0].shape[-2:]) != self._step.plan.size:
            self._step.run.complain()
            return executor(*args, **kwargs)
        given = (*args, *kwargs.values())
        extra_options = next(a for a in given if isinstance(a, dict) and "cond_or_uncond" in a)
        hook = network.output_blocks[feature_block(network)][0].out_layers.register_forward_hook(
            lambda module, inputs, features: self._features(features, extra_options)
        )
        try:
            return executor(*args, **kwargs)
        finally:
            hook.remove()

    def _features(self, features: Tensor, extra_options: dict) -> Tensor:
        mixed, place = features, ("features",)
        for name, cond, rows in self._parts(len(features), extra_options):
            if name == SOURCE:
                self._keep(place, cond, (features[rows],))
                continue
            branch, kept = self._branches.get(name), self._of_source(place, cond, features)
            source = kept[0] if kept is not None else None
            if branch is None or source is None or not branch.features:
                continue
            if source.shape[1:] != features.shape[1:]:
                self._step.run.complain()
                continue
            mixed = mixed.clone() if mixed is features else mixed
            mixed[rows] = tile_batch(source, rows.stop - rows.start)
        self._forget(place)
        return mixed
