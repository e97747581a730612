"""EtaTune searches the eta curve that edits the most while the background keeps a limit.

It searches on the user's own model and pictures.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..eta_core.eta import EtaSchedule
from ..eta_core.evidence.metrics import background_psnr
from ..eta_core.evidence.tune import CURVES, PROBES, Trial, best, frontier, prefers_target, search
from . import host
from .edit_run import EditRun, prepare_run
from .inputs import guidance_input, seed_input
from .plot import line_plot, scatter_plot
from .types import (
    CATEGORY,
    EditPlan,
    EditSocket,
    EtaNode,
    EtaSocket,
    Example,
    ExamplesSocket,
    InversionSocket,
    schema,
)

LOSSLESS = 99.0  # dB that stand for a background without any difference
NO_NOISE = EtaSchedule(((0.0, 0.0),))


class EtaTuneExample(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaTuneExample",
            display_name="Eta Tune Example",
            category=CATEGORY,
            search=(
                "eta example",
                "tuning pair",
            ),
            description="One pair of prompts and its pictures for Eta Tune; chain several of them.",
            inputs=[
                io.Image.Input(
                    "image", tooltip="The picture that was inverted, with which the background is compared."
                ),
                InversionSocket.Input("inversion", tooltip="The inverted picture and its source prompt."),
                io.Conditioning.Input("positive", tooltip="The target prompt."),
                io.Mask.Input(
                    "mask",
                    tooltip=(
                        "Multiplies eta per pixel, as in EtaSampler. The background is where it is exactly 0."
                    ),
                ),
                EditSocket.Input(
                    "edit",
                    optional=True,
                    tooltip="Editing methods, as in EtaSampler. Without it: the target prompt alone.",
                ),
                ExamplesSocket.Input(
                    "examples", optional=True, tooltip="Further examples, from another of these nodes."
                ),
            ],
            outputs=[ExamplesSocket.Output(display_name="examples", tooltip="These examples, for EtaTune.")],
        )

    @classmethod
    def execute(cls, image, inversion, positive, mask, edit=None, examples=()) -> io.NodeOutput:
        return io.NodeOutput((*examples, Example(image, inversion, positive, mask, edit)))


class EtaTune(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaTune",
            display_name="Eta Tune",
            category=CATEGORY,
            search=(
                "optimize eta",
                "find eta",
                "tune schedule",
                "auto eta",
            ),
            description=(
                "Tries eta curves on your examples and hands out the one that edits the most while the "
                "background keeps a limit. Takes one edit of every example a trial."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model the inversions were made with."),
                io.Vae.Input("vae", tooltip="Decodes each trial, to measure its background."),
                ExamplesSocket.Input(
                    "examples", tooltip="One pair of prompts or a few, with their pictures."
                ),
                io.Conditioning.Input(
                    "negative", tooltip="The negative prompt, as in EtaSampler. Paper: empty."
                ),
                guidance_input("As in EtaSampler. 1 = none. Paper: 7.5."),
                seed_input("Seed of the fresh noise, as in EtaSampler."),
                io.Float.Input(
                    "background_limit",
                    default=25.0,
                    min=0.0,
                    max=LOSSLESS,
                    step=0.1,
                    tooltip=(
                        "PSNR outside the mask that every picture must keep, dB. 0 = no limit. The VAE's own "
                        "loss counts: SD1's alone takes photographs of 256 px to 23. Published on PIE-Bench, "
                        "of the whole frame: 27 at best, 18 where the background is lost."
                    ),
                ),
                io.Combo.Input(
                    "curve",
                    options=list(CURVES),
                    tooltip=(
                        "start, peak, power: the paper's kind, from 0 at a start to a peak at the noise end. "
                        "free: eta at five times of its own."
                    ),
                ),
                io.Int.Input(
                    "trials",
                    default=16,
                    min=4,
                    max=200,
                    tooltip=(
                        "Curves to try: no noise, the paper's two, the most noise, then where a gain is "
                        "likeliest. 16 is enough for start, peak, power; 30 for free."
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
                        "As in EtaSampler. 0 = off (paper); 1 holds the background whatever eta does, and "
                        "leaves little to search for."
                    ),
                ),
                io.Int.Input(
                    "noise_candidates",
                    default=10,
                    min=1,
                    max=1000,
                    optional=True,
                    tooltip="As in EtaSampler. Paper: 10; 1 = plain random noise.",
                ),
                io.Float.Input(
                    "noise_blend",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    tooltip="As in EtaSampler. 0 = none (paper).",
                ),
                io.Boolean.Input(
                    "parity", default=False, optional=True, tooltip="As in EtaSampler. Off = neutral."
                ),
            ],
            outputs=[
                EtaSocket.Output(
                    display_name="eta", tooltip="The best curve within the limit, for EtaSampler."
                ),
                io.Image.Output(
                    display_name="trade_off",
                    tooltip=(
                        "Every trial, edit against background, with the limit and the best, and the best "
                        "curve."
                    ),
                ),
                io.String.Output(
                    display_name="settings",
                    tooltip="The best curve as EtaSchedule's fields, and every trial's figures, as JSON.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model,
        vae,
        examples,
        negative,
        cfg,
        seed,
        background_limit,
        curve,
        trials,
        background_lock=0.0,
        noise_candidates=10,
        noise_blend=0.0,
        parity=False,
    ) -> io.NodeOutput:
        node_id = cls.hidden.unique_id
        if vae.latent_channels != host.latent_channels(model):
            raise ValueError(
                f"vae makes latents of {vae.latent_channels} channels, the model takes "
                f"{host.latent_channels(model)}: connect the VAE of this checkpoint"
            )
        settings = (cfg, seed, noise_candidates, noise_blend)
        tests = []
        for i, example in enumerate(examples):
            try:
                example, free = _fitted(example, node_id)
                run = prepare_run(
                    model,
                    example.inversion,
                    NO_NOISE,
                    example.positive,
                    negative,
                    *settings,
                    example.mask,
                    parity,
                    background_lock,
                    example.edit,
                    node_id=node_id,
                )
            except ValueError as error:
                raise ValueError(f"example {i + 1}: {error}") from error
            tests.append(_Measurement(run.sharing_source(), vae, example, free, negative))
        tick = host.progress(model, trials * sum(test.calls for test in tests))
        told: list[Trial] = []

        def measure(schedule: EtaSchedule) -> tuple[float, float]:
            edits, backgrounds = zip(*(test.measure(schedule, tick) for test in tests))
            found = float(torch.cat(edits).mean()), float(torch.cat(backgrounds).min())
            told.append(Trial(schedule, *found))
            host.say(
                f"trial {len(told)} of {trials}: edit {found[0]:.3f}, background {found[1]:.2f} dB", node_id
            )
            return found

        found = search(measure, background_limit, curve, trials)
        chosen = best(found, background_limit)
        if chosen is None:
            nearest = max(found, key=lambda trial: trial.background)
            raise ValueError(
                f"background_limit is {background_limit:g} dB, and none of {trials} curves keeps it: the "
                f"nearest comes to {nearest.background:.2f} "
                f"({_written(nearest.schedule)}). Lower background_limit, raise background_lock, or enlarge "
                "the mask where the new thing spills over"
            )
        host.say(
            f"best: edit {chosen.edit:.3f}, background {chosen.background:.2f} dB, "
            f"{_written(chosen.schedule)}",
            node_id,
        )
        drawn = _draw(found, chosen, background_limit)
        return io.NodeOutput(
            chosen.schedule,
            drawn,
            _as_json(found, chosen, background_limit),
            ui=ui.PreviewImage(drawn, cls=cls),
        )


def _fitted(example: Example, node_id: str | None) -> tuple[Example, Tensor]:
    """The example brought to its picture's size, and where that picture may change, [B or 1, H, W].

    Raises ValueError where nothing could be measured.
    """
    trajectory, edit = example.inversion.trajectory, example.edit or EditPlan()
    if host.text_fingerprint(example.positive) == host.text_fingerprint(example.inversion.positive):
        raise ValueError(
            "the target prompt is the source prompt, so that nothing is edited; change a word of positive"
        )
    if len(example.image) not in (1, trajectory.batch):
        raise ValueError(
            f"image has {len(example.image)} pictures, the inversion {trajectory.batch}: give one, or one "
            "for each picture"
        )
    image = host.as_encoded(example.image, "image", trajectory.picture_size, node_id)[..., :3].float().cpu()
    if not bool(torch.isfinite(image).all()):
        raise ValueError("image holds NaN or infinite values: connect the picture that was inverted")

    def fit(mask: Tensor) -> Tensor:
        return host.fit_mask(mask, trajectory.batch, trajectory.picture_size, node_id)

    mask, regions = (
        fit(example.mask),
        tuple(replace(region, mask=fit(region.mask)) for region in edit.regions),
    )
    free = reduce(torch.maximum, [mask, *(region.mask for region in regions)])
    if not bool((free <= 0).flatten(1).any(1).all()):
        raise ValueError(
            "the mask, with those of the edit's regions, is nowhere 0 in a picture, so that there is no "
            "background to measure; connect "
            "masks that leave some"
        )
    return replace(example, image=image, mask=mask, edit=replace(edit, regions=regions)), free


@dataclass(frozen=True, eq=False)
class _Measurement:
    """An example, edited and measured by one curve after another; free: where its picture may change."""

    run: EditRun
    vae: Any
    example: Example
    free: Tensor
    negative: list

    @property
    def probes(self) -> list[int]:
        """The points of the grid nearest to the times PROBES, noise end first."""
        grid = self.run.trajectory.grid
        nearest = {min(range(1, grid.steps + 1), key=lambda i: abs(grid.times[i] - time)) for time in PROBES}
        return sorted(nearest, reverse=True)

    @property
    def calls(self) -> int:
        return self.run.trajectory.grid.steps + len(self.probes)

    def measure(self, schedule: EtaSchedule, tick: Callable[[Tensor, Tensor], None]) -> tuple[Tensor, Tensor]:
        """How far the model sees the target prompt [B], and the background's PSNR [B] in dB."""
        model, z = self.run.model, self.run.with_eta(schedule).sample(tick).latent
        pictures = self.vae.decode(host.to_latent(model, z)["samples"]).float().cpu().clamp(0, 1)
        if not bool(torch.isfinite(pictures).all()):
            raise ValueError(
                "the VAE gave NaN or infinite pixels: start the host with --fp32-vae, or connect the VAE of "
                "this checkpoint"
            )
        image, free = (
            part.expand(len(pictures), *part.shape[1:]) for part in (self.example.image, self.free)
        )
        psnr = background_psnr(image, pictures[..., :3], free)
        return self._edit(z, tick), psnr.clamp(max=LOSSLESS)

    def _edit(self, z: Tensor, tick: Callable[[Tensor, Tensor], None]) -> Tensor:
        trajectory, grid, example = self.run.trajectory, self.run.trajectory.grid, self.example
        region = host.latent_mask(example.mask, len(z), trajectory.latent_size, trajectory.scale)
        prompts = {"source": example.inversion.positive, "target": example.positive}

        def loop(network, latent):
            def predict(x, sigma):
                found = network(dict.fromkeys(prompts, x), sigma)
                tick(x, found["target"])
                return found["source"], found["target"]

            return prefers_target(
                predict, latent, [grid.sigmas[i] for i in self.probes], region.to(latent)
            ).cpu()

        branches = [host.Branch(name, prompt, self.negative, 1.0) for name, prompt in prompts.items()]
        levels = [*(grid.levels[i] for i in self.probes), 0.0]
        seed = self.run.noise.seeds[0]
        return host.sample(self.run.model, branches, z, levels, seed, loop, len(prompts))


def _fields(schedule: EtaSchedule) -> dict:
    """EtaSchedule's fields that make this curve."""
    (start_t, start_eta), (end_t, end_eta) = schedule.points[0], schedule.points[-1]
    points = ", ".join(f"{t:g}:{eta:g}" for t, eta in schedule.points)
    return {
        "preset": "custom",
        "start_t": start_t,
        "start_eta": start_eta,
        "end_t": end_t,
        "end_eta": end_eta,
        "power": schedule.power,
        "curve": points,
    }


def _written(schedule: EtaSchedule) -> str:
    fields = _fields(schedule)
    return f"curve {fields['curve']}, power {fields['power']:g}"


def _as_json(trials: list[Trial], chosen: Trial, limit: float) -> str:
    rows = [
        {"curve": _written(trial.schedule), "edit": trial.edit, "background_psnr": trial.background}
        for trial in trials
    ]
    return json.dumps({"best": _fields(chosen.schedule), "background_limit": limit, "trials": rows}, indent=1)


def _draw(trials: list[Trial], chosen: Trial, limit: float) -> Tensor:
    """Edit against background, and the best curve beside it."""
    trade_off = scatter_plot(
        [(trial.background, trial.edit) for trial in trials],
        [(trial.background, trial.edit) for trial in frontier(trials)],
        (chosen.background, chosen.edit),
        limit,
        "background PSNR of the worst picture, dB",
        "how far the model sees the target prompt",
    )
    times = [i / 64 for i in range(65)]
    curve = line_plot(
        times, [chosen.schedule(t) for t in times], "time (0 image, 1 noise)", "eta of the best"
    )
    return torch.cat([trade_off, curve], 2)


NODES = [EtaTuneExample, EtaTune]
