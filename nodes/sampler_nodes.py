"""EtaSampler, and its parts for the host's SamplerCustomAdvanced."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from comfy_api.latest import io
from torch import Tensor

from ..eta_core.edit import Steering
from ..eta_core.edit import edit as run_edit
from ..eta_core.eta import EtaSchedule
from ..eta_core.masks import compose, resolve
from ..eta_core.methods import PromptToPrompt
from ..eta_core.trajectory import Trajectory
from . import host
from .types import CATEGORY, Edit, EditSocket, EtaSocket, Inversion, InversionSocket, search_aliases


class EtaSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EtaSampler",
            display_name="Eta Sampler",
            category=CATEGORY,
            **search_aliases("edit image", "image editing", "eta-ddim", "swap object", "prompt edit"),
            description="Samples the target prompt from an inversion, with fresh noise by eta where the mask allows it.",
            inputs=[
                io.Model.Input("model", tooltip="The model the inversion was made with."),
                InversionSocket.Input("inversion", tooltip="The inverted picture and its source prompt."),
                EtaSocket.Input(
                    "eta",
                    tooltip="How much fresh noise over time. More = more edit (in RF-Inversion eta means the opposite).",
                ),
                io.Conditioning.Input(
                    "positive", tooltip="The target prompt: the source prompt with the words changed."
                ),
                io.Conditioning.Input("negative", tooltip="The negative prompt of both branches. Paper: empty."),
                io.Float.Input(
                    "cfg",
                    default=7.5,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance of both branches; 1 = none. Paper: 7.5.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip=("Seed of the fresh noise; the same on every device, and for every picture of a batch."),
                ),
                io.Int.Input(
                    "noise_candidates",
                    default=10,
                    min=1,
                    max=1000,
                    tooltip=(
                        "Noises drawn a step, of which the nearest to the source's own is taken. 1 = plain random noise, without the source branch. Paper: 10."
                    ),
                ),
                io.Float.Input(
                    "noise_blend",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip=(
                        "How much of the source's own noise is mixed in. 0 = none (paper), 1 = keeps the most of the source."
                    ),
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="Multiplies eta per pixel. Without it eta acts everywhere."
                ),
                io.Boolean.Input(
                    "parity",
                    default=False,
                    optional=True,
                    tooltip=(
                        "On: the noise is chosen over the whole picture, as the paper's program does. Off: inside the mask, where it is used."
                    ),
                ),
                io.Float.Input(
                    "background_lock",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip=(
                        "Holds the picture outside the mask on the source's trajectory at every step. 0 = off (paper), 1 = exactly the source."
                    ),
                ),
                EditSocket.Input(
                    "edit",
                    optional=True,
                    tooltip=(
                        "Editing methods (Prompt-to-Prompt, MasaCtrl, Plug-and-Play) and further prompts in regions of their own. Without it: the "
                        "target prompt alone."
                    ),
                ),
                io.Int.Input(
                    "variants",
                    default=1,
                    min=1,
                    max=64,
                    optional=True,
                    tooltip=(
                        "Edits with seed, seed + 1, ... beside one shared source branch; the latent is then a batch. 1 = neutral."
                    ),
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The edited picture."),
                io.Latent.Output(
                    display_name="reconstruction",
                    tooltip="The source latent: the source branch lands on it exactly. What is lost is the VAE's.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model,
        inversion: Inversion,
        eta: EtaSchedule,
        positive,
        negative,
        cfg,
        seed,
        noise_candidates,
        noise_blend,
        mask=None,
        parity=False,
        background_lock=0.0,
        edit=None,
        variants=1,
    ) -> io.NodeOutput:
        edit, node_id, trajectory = edit or Edit(), cls.hidden.unique_id, inversion.trajectory
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
                "negative is not read: this inversion (negative_prompt) puts the source prompt in its place", node_id
            )
            negative = inversion.positive
        targets = {TARGET: (positive, cfg, edit.methods)} | {
            f"edit {i + 1}": (chosen.positive, chosen.cfg, chosen.methods) for i, chosen in enumerate(edit.regions)
        }
        for name, (prompt, _, methods) in targets.items():
            host.check_covered(prompt, f"the prompt of the {name}", node_id)
            _check_methods(methods, inversion, prompt, node_id)
            host.check_same_picture(inversion.positive, prompt, node_id)
        methods = {name: [method.fitted(fit) for method in chosen] for name, (_, _, chosen) in targets.items()}
        steered = [name for name, chosen in methods.items() if chosen]
        run = _Run(
            trajectory,
            branches=[
                host.Branch(host.SOURCE, inversion.positive, negative, cfg),
                *(host.Branch(name, prompt, negative, guidance) for name, (prompt, guidance, _) in targets.items()),
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
        return io.NodeOutput(
            host.to_latent(model, run(model, seed)),
            host.to_latent(model, trajectory.source),
            ui={"eta_taken": run.eta_taken},
        )


TARGET = "target"


@dataclass(frozen=True, eq=False)
class _Run:
    """One edit, ready to run: the branches, the first of them the source, and what ties them together."""

    trajectory: Trajectory
    branches: list[host.Branch]
    weights: list[Tensor]
    attention: host.Steering
    steering: Steering
    lock: list[Tensor]

    def __call__(self, model, seed: int) -> Tensor:
        """The edited latent in the model's scaled space."""
        trajectory, grid = self.trajectory, self.trajectory.grid
        tick = host.progress(model, grid.steps)
        targets = [branch.name for branch in self.branches[1:]]

        def loop(network, latent):
            def predict(step, source, x):
                steered = self.attention.begin(grid.steps - step.index)
                xs = ({} if source is None else {host.SOURCE: source}) | {name: x for name in targets}
                found = network(xs, step.sigma, self.attention.install if steered else None)
                denoised = compose(found[TARGET], [found[name] for name in targets[1:]], self.weights)
                tick(x, denoised)
                return found.get(host.SOURCE), denoised

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
        return host.sample(model, self.branches, trajectory.source, grid.model_sigmas[::-1], seed, loop, rows)

    @property
    def eta_taken(self) -> list[tuple[float, float]]:
        """(time, eta) of every step, noise end first."""
        steering = self.steering
        return [(step.time, steering.eta(step.time) * steering.acts(step)) for step in self.trajectory.grid.downward()]

    def _with_regions(self, blend: Tensor) -> Tensor:
        """A local blend holds the source only where no other edit has its region."""
        return torch.maximum(blend, sum(self.weights).to(blend)) if self.weights else blend


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
                "EtaPromptToPrompt was made for another target prompt than EtaSampler's: words may be mixed up", node_id
            )


class EtaSamplerSelect(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EtaSamplerSelect",
            display_name="Eta Sampler Select",
            category=CATEGORY,
            **search_aliases("eta-ddim sampler", "ddim eta", "stochastic ddim"),
            description="eta-DDIM as a SAMPLER for SamplerCustomAdvanced, with eta over time and per pixel. Eta 0 is DDIM (Euler).",
            inputs=[
                EtaSocket.Input("eta", tooltip="How much fresh noise over time. 0 everywhere = DDIM."),
                io.Mask.Input(
                    "mask", optional=True, tooltip="Multiplies eta per pixel. Without it eta acts everywhere."
                ),
            ],
            outputs=[io.Sampler.Output(display_name="sampler", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, eta: EtaSchedule, mask=None) -> io.NodeOutput:
        return io.NodeOutput(host.eta_sampler(eta, mask))


class EtaSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EtaSigmas",
            display_name="Eta Inversion Sigmas",
            category=CATEGORY,
            **search_aliases("inversion sigmas", "noise levels"),
            description="The noise levels of an inversion, noise end first, for SamplerCustomAdvanced: plays it back from its latent.",
            inputs=[InversionSocket.Input("inversion", tooltip="The inversion to play back.")],
            outputs=[io.Sigmas.Output(display_name="sigmas", tooltip="Noise end first.")],
        )

    @classmethod
    def execute(cls, inversion: Inversion) -> io.NodeOutput:
        return io.NodeOutput(torch.tensor(inversion.trajectory.grid.model_sigmas[::-1], dtype=torch.float32))


NODES = [EtaSampler, EtaSamplerSelect, EtaSigmas]
