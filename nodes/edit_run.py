"""One edit of an inversion, from a node's inputs to the edited latent.

The walk: EtaInversion made a trajectory of the picture's latent. `prepare_run` brings the target prompts, the
masks and eta together and checks that they fit. `EditRun.sample` then takes the target from the trajectory's
noise end to its image end: at each step it asks the network once for all branches, and eta_core.edit does the
rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..eta_core.area import Area
from ..eta_core.edit import Predict, Prediction, sample_target
from ..eta_core.eta import EtaSchedule
from ..eta_core.flow_edit import sample_delta
from ..eta_core.masks import compose, resize_mask, resolve, tile_batch
from ..eta_core.methods import Method, PlugAndPlay
from ..eta_core.noise import (
    EtaNoise,
    FreshNoise,
    NoiseSettings,
    RecordedNoise,
    ReferenceEtaNoise,
    ReferenceRecordedNoise,
)
from ..eta_core.schedule import Step
from ..eta_core.trajectory import Trajectory
from . import host
from .target_words import TargetWords
from .types import EditPlan, Inversion

TARGET = "target"
Tick = Callable[[Tensor, Tensor], None]
NO_ETA = EtaSchedule(((0.0, 0.0),))
ONE_BY_ONE = (
    "Out of memory: the edit begins again, one variant after the other and one branch after the other. The "
    "result is the same, and takes longer"
)


class Edited(NamedTuple):
    """The edited latent [V * B, C, H, W] in the model's space, and the mask that was used in the end
    [V * B, H, W], in pixels.
    """

    latent: Tensor
    mask: Tensor


@dataclass(frozen=True, eq=False)
class EditRun:
    """One edit, ready to sample.

    branches: the source's first, then the target's and those of the area's other masks. strategy: where the
    fresh noise comes from. first: the trajectory's point at which it begins. words: of the target, whose
    place joins the area. known: the denoised source by step index, where samplings share it (see
    `sharing_source`). alone: see host.Network.
    """

    model: object
    trajectory: Trajectory
    branches: list[host.Branch]
    area: Area
    methods: host.MethodPlan
    noise: NoiseSettings
    strategy: type[FreshNoise]
    first: int
    words: TargetWords | None = None
    known: dict[int, Tensor] | None = None
    alone: bool = False

    def sharing_source(self) -> EditRun:
        """This edit for many samplings: together with its copies `with_eta` it computes each step's source
        once.
        """
        return replace(self, known={})

    def with_eta(self, eta: EtaSchedule) -> EditRun:
        """The same edit under another curve."""
        return replace(self, noise=replace(self.noise, eta=eta))

    def of_source(self, positive: list, cfg: float) -> EditRun:
        """The source branch of an edit-friendly inversion running freely, with the edit's own noise."""
        source, target = self.branches[0], host.Branch(TARGET, positive, self.branches[1].negative, cfg)
        plain = host.plan_methods(self.model, {}, self.first, self.trajectory.latent_size)
        still = replace(self.noise, eta=NO_ETA, seeds=self.noise.seeds[:1], region=None)
        everywhere = replace(self.area, mask=None, others=(), weights=(), eta_scales=(), lock=0.0)
        branches = [source, target]
        return replace(
            self, branches=branches, area=everywhere, methods=plain, noise=still, words=None, known=None
        )

    def sample(self, tick: Tick | None = None) -> Edited:
        """The edit of every variant. tick(x, denoised) follows each step."""
        grid, several = self.trajectory.grid, len(self.noise.seeds) > 1
        if several and (self.words is not None or host.counts_rows(self.model, self.branches)):
            return self._one_by_one(tick)

        def loop(predict: Predict, x: Tensor) -> Tensor:
            noise = self.strategy(self.noise, x)
            return sample_target(predict, grid, noise, self.area.limits.hold, self.first) / grid.scales[0]

        try:
            return self._in_host(loop, tick)
        except host.MEMORY_ERRORS as error:
            if not several or not host.is_out_of_memory(error):
                raise
        host.make_room(ONE_BY_ONE)
        return replace(self, alone=True)._one_by_one(tick)

    def _one_by_one(self, tick: Tick | None) -> Edited:
        """The same, each variant sampled alone."""
        seeds = self.noise.seeds
        report = host.progress(self.model, self.first * len(seeds)) if tick is None else tick
        each = (replace(self, noise=replace(self.noise, seeds=(seed,))) for seed in seeds)
        return Edited(*map(torch.cat, zip(*(run.sample(report) for run in each))))

    def sample_delta(self) -> Edited:
        """The same without an inversion: the trajectory is a path that `noised_path` made, for one seed."""
        grid, hold = self.trajectory.grid, self.area.limits.hold
        return self._in_host(lambda predict, x: sample_delta(predict, x, grid, hold, self.first), None)

    def _in_host(self, loop: Callable[[Predict, Tensor], Tensor], tick: Tick | None) -> Edited:
        """What `loop`, given the network and the trajectory, makes of them inside the host's sampling."""
        grid = self.trajectory.grid
        report = host.progress(self.model, self.first) if tick is None else tick
        rows = 1 + len(self.noise.seeds) * (len(self.branches) - 1)

        def run(network: host.Network, latent: Tensor) -> Edited:
            predictor = _Predictor(self, network, report)
            edited = loop(predictor, self.trajectory.x.to(latent))
            free = predictor.area.free.expand(self.trajectory.batch, -1, -1)
            return Edited(edited, tile_batch(free, len(edited)))

        return host.sample(
            self.model,
            self.branches,
            self.trajectory.source,
            grid.levels[self.first :: -1],
            self.noise.seeds[0],
            run,
            rows,
            self.alone,
        )

    @property
    def eta_taken(self) -> list[tuple[float, float]]:
        """(time, eta) of every step, noise end first."""
        steps = self.trajectory.grid.downward(self.first)
        return [(step.time, self.noise.eta(step.time) if self.noise.acts(step) else 0.0) for step in steps]


class _Predictor:
    """eta_core.edit's `predict` for one sampling: one request to the network a step, for every branch.

    area: the edit's, as far as its words have been read.
    """

    def __init__(self, run: EditRun, network: host.Network, tick: Tick):
        self._run, self._network, self._tick = run, network, tick
        self._methods = run.methods.start()
        self._targets = [branch.name for branch in run.branches[1:]]
        self.area = run.area
        self._words = None
        if run.words is not None:
            self._words = run.words.start(run.model, run.branches[1], run.trajectory)

    def __call__(self, step: Step, source: Tensor, x: Tensor, needs_source: bool) -> Prediction:
        done = self._run.first - step.index
        methods = self._methods.step(done)
        known = (self._run.known or {}).get(step.index)
        asks = methods.reads_source or (needs_source and known is None)
        inputs = {host.SOURCE: source} if asks else {}
        inputs |= dict.fromkeys(self._targets, x)
        words = self._words if self._words and self._words.reads(done, self._run.first) else None

        def patch(options: dict, rows: Mapping[str, int], short: bool) -> dict:
            options = methods.patch(options, rows, short) if methods.act else options
            return words.patch(options, rows, short) if words else options

        found = self._network(inputs, step.sigma, patch if methods.act or words else None)
        if asks and self._run.known is not None:
            self._run.known[step.index] = found[host.SOURCE]
        others = [found[name] for name in self._targets[1:]]
        target = compose(found[TARGET], others, self._run.area.weights)
        self._tick(x, target)
        if words:
            self.area = self.area.joined(words.found())
        limits = self.area.limits if words else None
        return Prediction(found.get(host.SOURCE, known), target, tuple(methods.hold_masks()), limits)


class _Target(NamedTuple):
    positive: list
    cfg: float
    methods: Sequence[Method]


def prepare_run(
    model,
    inversion: Inversion,
    eta: EtaSchedule,
    positive: list,
    negative: list,
    cfg: float,
    seed: int,
    noise_candidates: int = 10,
    noise_blend: float = 0.0,
    mask: Tensor | None = None,
    parity: bool = False,
    background_lock: float = 0.0,
    edit: EditPlan | None = None,
    variants: int = 1,
    start: float = 1.0,
    source_cfg: float = 0.0,
    *,
    node_id: str | None = None,
) -> EditRun:
    """EtaSampler's inputs as a run. Raises ValueError for inputs that do not fit each other."""
    plan, trajectory = edit or EditPlan(), inversion.trajectory
    host.check_same_model(model, trajectory.signature, node_id)

    _check_words(plan.words, mask, positive, parity)
    fitted: dict[int, Tensor] = {}  # so that a mask is resized, and warned of, once

    def in_pixels(given: Tensor) -> Tensor:
        if id(given) not in fitted:
            fitted[id(given)] = host.fit_mask(given, trajectory.batch, trajectory.picture_size, node_id)
        return fitted[id(given)]

    def fit(given: Tensor) -> Tensor:
        return resize_mask(in_pixels(given), trajectory.latent_size)[:, None]

    if background_lock > 0 and mask is None and not plan.regions:
        raise ValueError(
            f"background_lock is {background_lock:g} but no mask says what the background is: connect a "
            "mask, or set it to 0"
        )
    area = Area(
        None if mask is None else in_pixels(mask),
        tuple(in_pixels(region.mask) for region in plan.regions),
        tuple(resolve([(fit(region.mask), region.overlap) for region in plan.regions])),
        tuple(region.eta_scale for region in plan.regions),
        background_lock,
        trajectory.scale,
        trajectory.picture_size,
    )
    region = area.limits.region
    if region is not None and not bool(region.any()):
        host.warn("the mask is empty, or every eta_scale 0: no fresh noise comes in anywhere", node_id)
    first = trajectory.grid.first_step(start)
    methods = _of_reference(plan, trajectory, first) if parity else plan.methods
    targets = {TARGET: _Target(positive, cfg, methods)}
    for i, chosen in enumerate(plan.regions):
        targets[f"edit {i + 1}"] = _Target(chosen.positive, chosen.cfg, chosen.methods)
    for name, target in targets.items():
        host.check_covered(target.positive, f"the prompt of the {name}", node_id)
        _check_methods(target.methods, inversion, target.positive, node_id)
        host.check_same_picture(inversion.positive, target.positive, node_id)
        host.check_same_encoder(inversion.positive, target.positive)
    source = _source_branch(inversion, targets.values(), negative, source_cfg or cfg, parity)
    negative = _negative(inversion, negative, node_id)
    steered = [target for target in targets.values() if target.methods]
    branches = [host.Branch(name, target.positive, negative, target.cfg) for name, target in targets.items()]
    return EditRun(
        model,
        trajectory,
        [source, *branches],
        area,
        host.plan_methods(
            model,
            {name: [method.fitted(fit) for method in target.methods] for name, target in targets.items()},
            trajectory.grid.steps if parity else first,
            trajectory.latent_size,
            guided=any(not math.isclose(target.cfg, 1.0) for target in steered),
            references=any(
                "reference_latents" in extra
                for branch in (source, *branches)
                for _, extra in (*branch.positive, *(branch.negative or ()))
            ),
            node_id=node_id,
        ),
        NoiseSettings(
            eta,
            tuple((seed + i) % 2**64 for i in range(variants)),
            noise_candidates,
            noise_blend,
            region,
            choose_in_region=not parity,
        ),
        _strategy(trajectory, parity),
        first,
        plan.words,
    )


def _strategy(trajectory: Trajectory, parity: bool) -> type[FreshNoise]:
    if trajectory.inverter != "edit_friendly":
        return ReferenceEtaNoise if parity else EtaNoise
    return ReferenceRecordedNoise if parity else RecordedNoise


def _of_reference(plan: EditPlan, trajectory: Trajectory, first: int) -> tuple[Method, ...]:
    """The methods as the authors' program has them in an edit that begins at the trajectory's point `first`.

    Its thresholds are fractions of all steps. Plug-and-Play counts the skipped ones as done, the other
    methods begin to count at the edit's first. Plug-and-Play that stands alone takes the authors' giver.
    """
    alone = len(plan.methods) == 1 and not plan.regions and trajectory.inverter != "edit_friendly"

    def theirs(method: PlugAndPlay) -> PlugAndPlay:
        giver = "empty prompt" if alone else method.giver
        return replace(method, giver=giver, skipped=trajectory.grid.steps - first)

    return tuple(theirs(method) if isinstance(method, PlugAndPlay) else method for method in plan.methods)


def _source_branch(
    inversion: Inversion, targets: Iterable[_Target], negative: list, cfg: float, parity: bool
) -> host.Branch:
    """The prompt and the guidance under which the source branch is asked.

    cfg: its guidance after an edit-friendly inversion; elsewhere the first target's. Raises ValueError where
    a method that takes one row of the source under the empty prompt stands beside others, which read its own
    prompt.
    """
    targets = list(targets)
    methods = [method for target in targets for method in target.methods]
    one_row = [method for method in methods if isinstance(method, PlugAndPlay) and method.takes_one_row()]
    recorded = inversion.trajectory.inverter == "edit_friendly"
    if not one_row:
        cfg = inversion.trajectory.cfg if recorded and parity else cfg if recorded else targets[0].cfg
        replaced = inversion.positive if inversion.trajectory.inverter == "negative_prompt" else negative
        return host.Branch(host.SOURCE, inversion.positive, replaced, cfg)
    if len(methods) > 1 or recorded:
        beside = "an edit_friendly inversion" if recorded else "other methods"
        raise ValueError(
            f"EtaPlugAndPlay's giver 'empty prompt' cannot be used with {beside}, which read the source "
            "under its own prompt: set giver to 'own rows'"
        )
    empty = one_row[0].empty
    return host.Branch(host.SOURCE, empty if isinstance(empty, list) else negative, negative, 1.0)


def _negative(inversion: Inversion, negative: list, node_id: str | None) -> list:
    """The negative prompt of the sampling.

    Negative-prompt inversion (Miyake et al. 2023, arXiv 2305.16807) inverts as ddim does. It changes the
    sampling: the source prompt takes the negative prompt's place, so that the source branch has no guidance.
    """
    if inversion.trajectory.inverter != "negative_prompt":
        return negative
    host.say(
        "negative is not read: this inversion (negative_prompt) puts the source prompt in its place", node_id
    )
    return inversion.positive


def _check_words(words: TargetWords | None, mask: Tensor | None, positive: list, parity: bool) -> None:
    """ValueError where words of the target cannot join the mask of this edit."""
    if words is None:
        return
    if parity:
        raise ValueError(
            "parity is on, and the paper's program leaves the mask as it is: switch parity off, or "
            "disconnect Eta Target Words"
        )
    if mask is None:
        raise ValueError(
            "Eta Target Words joins what it finds to the mask, and none is connected: without one the whole "
            "picture is free; connect a mask, or disconnect Eta Target Words"
        )
    if words.prompt != host.text_fingerprint(positive):
        raise ValueError(
            "Eta Target Words was made for another target prompt than this positive: connect the same target "
            "prompt to both"
        )


def _check_methods(
    methods: Sequence[Method], inversion: Inversion, positive: list, node_id: str | None
) -> None:
    """ValueError where a method was made for another inversion, a warning where for another target prompt."""
    rows = [host.rows_of_text([entry]) for entry in positive]
    for method in methods:
        found = method.check_prompts(inversion.trajectory.fingerprint, host.text_fingerprint(positive), rows)
        if found:
            host.warn(found, node_id)
