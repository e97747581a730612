"""One edit of an inversion, from a node's inputs to a run in the host's sampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..eta_core.edit import Steering
from ..eta_core.edit import edit as run_edit
from ..eta_core.eta import EtaSchedule
from ..eta_core.masks import compose, resolve
from ..eta_core.methods import PromptToPrompt
from ..eta_core.trajectory import Trajectory
from . import host
from .types import Edit, Inversion

TARGET = "target"


@dataclass(frozen=True, eq=False)
class Run:
    """One edit, ready to run: the branches, the first of them the source, and what ties them together.

    again: it is one of several that differ in eta alone, for all of which the denoised source of a step is the same; `known` keeps it.
    """

    model: object
    trajectory: Trajectory
    branches: list[host.Branch]
    weights: list[Tensor]
    attention: host.Steering
    steering: Steering
    lock: list[Tensor]
    again: bool = False
    known: dict[int, Tensor] = field(default_factory=dict)

    def with_eta(self, eta: EtaSchedule) -> Run:
        """The same edit by another curve."""
        return replace(self, steering=replace(self.steering, eta=eta), again=True)

    def __call__(self, tick: Callable[[Tensor, Tensor], None] | None = None) -> Tensor:
        """The edited latent in the model's scaled space; tick(x, denoised) is called after each step."""
        trajectory, grid = self.trajectory, self.trajectory.grid
        tick = host.progress(self.model, grid.steps) if tick is None else tick
        targets = [branch.name for branch in self.branches[1:]]

        def loop(network, latent):
            def predict(step, source, x):
                done = grid.steps - step.index
                steered = self.attention.begin(done)
                ask = source is not None and (self.attention.reads(done) or step.index not in self.known)
                xs = ({host.SOURCE: source} if ask else {}) | {name: x for name in targets}
                found = network(xs, step.sigma, self.attention.install if steered else None)
                if ask and self.again:
                    self.known[step.index] = found[host.SOURCE]
                denoised = compose(found[TARGET], [found[name] for name in targets[1:]], self.weights)
                tick(x, denoised)
                return found[host.SOURCE] if ask else self.known.get(step.index), denoised

            x = run_edit(
                predict,
                trajectory.x.to(latent),
                grid,
                self.steering.to(latent),
                reads=lambda step: self.attention.reads(grid.steps - step.index),
                free=lambda step: (*self.lock, *map(self._with_regions, self.attention.blends())),
            )
            return x / grid.scales[0]

        rows = 1 + len(self.steering.seeds) * len(targets)
        return host.sample(
            self.model,
            self.branches,
            trajectory.source,
            grid.model_sigmas[::-1],
            self.steering.seeds[0],
            loop,
            rows,
        )

    @property
    def eta_taken(self) -> list[tuple[float, float]]:
        """(time, eta) of every step, noise end first."""
        steering = self.steering
        return [
            (step.time, steering.eta(step.time) * steering.acts(step))
            for step in self.trajectory.grid.downward()
        ]

    def _with_regions(self, blend: Tensor) -> Tensor:
        """A local blend holds the source only where no other edit has its region."""
        return torch.maximum(blend, sum(self.weights).to(blend)) if self.weights else blend


def prepare(
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
    edit: Edit | None = None,
    variants: int = 1,
    *,
    node_id: str | None = None,
) -> Run:
    """EtaSampler's inputs as a run. Raises ValueError for inputs that do not fit each other."""
    edit, trajectory = edit or Edit(), inversion.trajectory
    host.check_same_model(model, trajectory.signature, node_id)
    size = tuple(trajectory.x.shape[-2:])

    def fit(mask):
        return host.latent_mask(mask, trajectory.batch, size, trajectory.scale, node_id)

    weights = resolve([(fit(chosen.mask), chosen.overlap) for chosen in edit.regions])
    region, free = _regions(None if mask is None else fit(mask), weights, edit.regions)
    if background_lock > 0 and free is None:
        raise ValueError(
            f"background_lock is {background_lock:g} but no mask says what the background is: connect a mask, or set it to 0"
        )
    if region is not None and not bool(region.any()):
        host.warn("the mask is empty, or every eta_scale 0: no fresh noise comes in anywhere", node_id)
    if trajectory.inverter == "negative_prompt":
        host.say(
            "negative is not read: this inversion (negative_prompt) puts the source prompt in its place",
            node_id,
        )
        negative = inversion.positive
    targets = {TARGET: (positive, cfg, edit.methods)} | {
        f"edit {i + 1}": (chosen.positive, chosen.cfg, chosen.methods)
        for i, chosen in enumerate(edit.regions)
    }
    for name, (prompt, _, methods) in targets.items():
        host.check_covered(prompt, f"the prompt of the {name}", node_id)
        _check_methods(methods, inversion, prompt, node_id)
        host.check_same_picture(inversion.positive, prompt, node_id)
    methods = {name: [method.fitted(fit) for method in chosen] for name, (_, _, chosen) in targets.items()}
    steered = [name for name, chosen in methods.items() if chosen]
    return Run(
        model,
        trajectory,
        branches=[
            host.Branch(host.SOURCE, inversion.positive, negative, cfg),
            *(
                host.Branch(name, prompt, negative, guidance)
                for name, (prompt, guidance, _) in targets.items()
            ),
        ],
        weights=weights,
        attention=host.Steering(
            model,
            methods,
            trajectory.grid.steps,
            size,
            guided=any(not math.isclose(targets[name][1], 1.0) for name in steered),
            node_id=node_id,
        ),
        steering=Steering(
            eta,
            tuple((seed + i) % 2**64 for i in range(variants)),
            noise_candidates,
            noise_blend,
            region,
            choose_in_region=not parity,
            recorded=trajectory.inverter == "edit_friendly",
        ),
        lock=[1 - background_lock * (1 - free)] if background_lock > 0 else [],
    )


def _regions(mask: Tensor | None, weights: list[Tensor], regions) -> tuple[Tensor | None, Tensor | None]:
    """Where eta acts and how strongly, and where the picture may change at all; None is everywhere."""
    if not weights:
        return mask, mask
    covered = sum(weights)
    base = torch.zeros_like(covered) if mask is None else mask
    eta = sum(weight * chosen.eta_scale for weight, chosen in zip(weights, regions)) + (1 - covered) * base
    return eta, torch.maximum(base, covered)


def _check_methods(methods, inversion: Inversion, positive: list, node_id) -> None:
    """ValueError where Prompt-to-Prompt was aligned for another inversion; a warning for another target prompt."""
    for method in methods:
        if not isinstance(method, PromptToPrompt):
            continue
        if method.source_prompt != inversion.trajectory.fingerprint:
            raise ValueError(
                "EtaPromptToPrompt was made for another source prompt than this inversion's: connect the same inversion to both"
            )
        if len(positive) != 1 or positive[0][0].shape[1] != method.shares.shape[1]:
            raise ValueError(
                f"EtaPromptToPrompt was made for a target prompt of {method.shares.shape[1]} rows, EtaSampler's positive has "
                f"{[cond.shape[1] for cond, _ in positive]}: connect the same target prompt to both"
            )
        if method.target_prompt != host.text_fingerprint(positive):
            host.warn(
                "EtaPromptToPrompt was made for another target prompt than EtaSampler's: words may be mixed up",
                node_id,
            )
