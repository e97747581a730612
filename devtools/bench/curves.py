"""Success against background PSNR over each method's strength: this pack beside the host's own means."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from PIL import Image

from ..demo import judge
from ..demo.studio import DemoStudio
from .cases import CFG, Start, cases, inverted, judged, stock_img2img
from .chart import chart

OURS, HOSTS = "this pack", "ComfyUI"
NO_MASK, MASK, SOFT = "without a mask", "in the automatic mask", "in the automatic mask, soft"
SOFTENED = {
    "grow": 0,
    "blur": 4.0,
}  # of six ways tried on validation scenes the best for DifferentialDiffusion
# Denoise of the host's masked ways whose knob is cfg: on validation scenes all three made every edit with it.
WEAK = 0.2
FEWER = 0.9  # of the edits must succeed where one figure has to stand for a curve


class Curve(NamedTuple):
    """`run(start, mask, value)` makes the edited latent; the values go from the weakest edit to the
    strongest.
    """

    whose: str
    name: str
    mask: str
    knob: str
    values: tuple[float, ...]
    run: Callable[[Start, torch.Tensor | None, float], torch.Tensor | dict]

    @property
    def title(self) -> str:
        return f"{self.name}: {self.knob} {self.values[0]:g} to {self.values[-1]:g}"


# --- how each is done -----------------------------------------------------------------------------


def over_cfg(start: Start, mask: torch.Tensor | None, cfg: float) -> torch.Tensor | dict:
    return start.edit(start.studio.eta(preset="constant", end_eta=0.0), cfg=cfg, **locked(mask))


def over_eta(start: Start, mask: torch.Tensor | None, eta: float) -> torch.Tensor | dict:
    return start.edit(start.studio.eta(preset="linear", end_eta=eta), **locked(mask))


def eta_without_lock(start: Start, mask: torch.Tensor | None, eta: float) -> torch.Tensor | dict:
    return start.edit(start.studio.eta(preset="linear", end_eta=eta), mask=mask, parity=True)


def over_cross_replace(start: Start, mask: torch.Tensor | None, end: float) -> torch.Tensor | dict:
    edit = start.method("Prompt-to-Prompt", cross_replace_end=end)
    return start.edit(start.studio.eta(preset="paper_gentle"), edit=edit, **locked(mask))


def over_features(start: Start, mask: torch.Tensor | None, end: float) -> torch.Tensor | dict:
    edit = start.method("Plug-and-Play", feature_end=end)
    return start.edit(start.studio.eta(preset="paper_gentle"), edit=edit, **locked(mask))


def features_over_cfg(start: Start, mask: torch.Tensor | None, cfg: float) -> torch.Tensor | dict:
    edit = start.method("Plug-and-Play")
    return start.edit(start.studio.eta(preset="paper_gentle"), edit=edit, cfg=cfg, **locked(mask))


def locked(mask: torch.Tensor | None) -> torch.Tensor | dict:
    return {} if mask is None else {"mask": mask, "background_lock": 1.0}


def img2img(start: Start, mask: torch.Tensor | None, denoise: float, cfg: float = CFG) -> torch.Tensor | dict:
    call, latent = start.studio.host.call, start.latent
    if mask is not None:
        latent = call("SetLatentNoiseMask", samples=latent, mask=mask)[0]
    return stock_img2img(start.studio, start.target, latent, start.steps, denoise, cfg)


def differential(start: Start, mask: torch.Tensor, denoise: float, cfg: float = CFG) -> dict:
    (model,) = start.studio.host.call("DifferentialDiffusion", model=start.studio.model)
    return img2img(start._replace(studio=start.studio.on(model)), mask, denoise, cfg)


def unsample(
    start: Start, mask: torch.Tensor | None, denoise: float, cfg: float = CFG
) -> torch.Tensor | dict:
    """FlipSigmas: the last part of the noise levels upwards with the source prompt, downwards with the
    target's.
    """
    call, model = start.studio.host.call, start.studio.model
    steps = start.steps
    (down,) = call("BasicScheduler", model=model, scheduler="ddim_uniform", steps=steps, denoise=denoise)
    (up,) = call("FlipSigmas", sigmas=down)
    latent = start.latent
    for prompt, guidance, sigmas in ((start.source, 1.0, up), (start.target, cfg, down)):
        (guider,) = call(
            "CFGGuider", model=model, positive=prompt, negative=start.studio.negative, cfg=guidance
        )
        latent = call(
            "SamplerCustomAdvanced",
            noise=call("DisableNoise")[0],
            guider=guider,
            sampler=call("KSamplerSelect", sampler_name="euler")[0],
            sigmas=sigmas,
            latent_image=latent,
        )[0]
    if mask is None:
        return latent
    place = {"x": 0, "y": 0, "resize_source": False}
    return call("LatentCompositeMasked", destination=start.latent, source=latent, mask=mask, **place)[0]


def unsample_over_cfg(start: Start, mask: torch.Tensor | None, cfg: float) -> torch.Tensor | dict:
    return unsample(start, mask, 1.0, cfg)


def at_weak(run: Callable) -> Callable[[Start, torch.Tensor, float], torch.Tensor | dict]:
    """The host's masked ways over cfg as well, as this pack's are."""
    return lambda start, mask, cfg: run(start, mask, WEAK, cfg)


CFGS, ETAS = (1.0, 1.5, 2.0, 4.0, 7.5), (0.2, 0.4, 0.7, 1.0)
KEPT, DENOISE = (1.0, 0.8, 0.4, 0.1), (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
CURVES = (
    Curve(OURS, "eta 0 (Direct Inversion)", NO_MASK, "cfg", CFGS, over_cfg),
    Curve(OURS, "eta everywhere", NO_MASK, "eta", ETAS, over_eta),
    Curve(OURS, "Prompt-to-Prompt", NO_MASK, "cross_replace_end", KEPT, over_cross_replace),
    Curve(OURS, "Plug-and-Play", NO_MASK, "feature_end", KEPT, over_features),
    Curve(HOSTS, "KSampler img2img", NO_MASK, "denoise", DENOISE, img2img),
    Curve(HOSTS, "FlipSigmas", NO_MASK, "denoise", DENOISE, unsample),
    Curve(HOSTS, "FlipSigmas", NO_MASK, "cfg", CFGS, unsample_over_cfg),
    Curve(OURS, "eta 0, lock", MASK, "cfg", CFGS, over_cfg),
    Curve(OURS, "eta, no lock (the paper)", MASK, "eta", ETAS, eta_without_lock),
    Curve(OURS, "eta, lock", MASK, "eta", ETAS, over_eta),
    Curve(OURS, "Prompt-to-Prompt, lock", MASK, "cross_replace_end", KEPT, over_cross_replace),
    Curve(OURS, "Plug-and-Play, lock", MASK, "feature_end", KEPT, over_features),
    Curve(OURS, "Plug-and-Play, lock", MASK, "cfg", CFGS, features_over_cfg),
    Curve(HOSTS, "SetLatentNoiseMask, KSampler", MASK, "denoise", DENOISE, img2img),
    Curve(HOSTS, "DifferentialDiffusion, KSampler", SOFT, "denoise", DENOISE, differential),
    Curve(HOSTS, "FlipSigmas, pasted in", MASK, "denoise", DENOISE, unsample),
    Curve(HOSTS, f"SetLatentNoiseMask, KSampler, denoise {WEAK:g}", MASK, "cfg", CFGS, at_weak(img2img)),
    Curve(
        HOSTS, f"DifferentialDiffusion, KSampler, denoise {WEAK:g}", SOFT, "cfg", CFGS, at_weak(differential)
    ),
    Curve(HOSTS, f"FlipSigmas, pasted in, denoise {WEAK:g}", MASK, "cfg", CFGS, at_weak(unsample)),
)
MOST = max(len(curve.values) for curve in CURVES)


# --- the run --------------------------------------------------------------------------------------


class Point(NamedTuple):
    value: float
    success: float  # share of the pictures
    psnr: float  # dB, mean over the pictures


def curves(studio: DemoStudio, options: argparse.Namespace) -> list[str]:
    apart = studio.narrow()
    judges, rows, ceiling, sheet = judge.load(), {}, [], []
    begun = time.perf_counter()
    for case in cases(options.scenes, options.first_seed):
        start = inverted(studio, case, options.steps)
        masks = {NO_MASK: None, MASK: start.mask(), SOFT: start.mask(**SOFTENED)}
        ceiling += [row["background_psnr"] for row in judged(judges, case, studio.decode(start.latent))]
        strips = []
        for i, curve in enumerate(CURVES):
            made = [studio.decode(curve.run(start, masks[curve.mask], value)) for value in curve.values]
            for value, pictures in zip(curve.values, made):
                rows.setdefault((i, value), []).extend(judged(judges, case, pictures))
            blank = [torch.ones_like(case.pictures[0])] * (MOST - len(made))
            strips.append(torch.cat([case.pictures[0], *(pictures[0] for pictures in made), *blank], 1))
        print(f"{case.thing} -> {case.wanted}: {time.perf_counter() - begun:.0f} s", flush=True)
        sheet.append(torch.cat(strips))
        keep(options, rows, ceiling)  # a run that is cut short leaves what it has
    Image.fromarray((torch.cat(sheet, 1) * 255).byte().numpy()).save(
        options.out / "curves-sheet.jpg", quality=85
    )
    points = [
        [
            Point(value, mean(rows[i, value], "success"), mean(rows[i, value], "background_psnr"))
            for value in curve.values
        ]
        for i, curve in enumerate(CURVES)
    ]
    draw(points, statistics.mean(ceiling)).save(options.out / "curves.png", optimize=True)
    return [
        f"{len(ceiling)} unseen scenes, {options.steps} steps, the UNet at its trained width ({apart:.0e} of "
        "its deviation from the checkpoint's). VAE "
        f"round trip: {statistics.mean(ceiling):.2f} dB. Cells: success in % / background PSNR in dB, from "
        "the weakest edit to the strongest.",
        "",
        *table(points),
    ]


def mean(rows: list[dict], name: str) -> float:
    return statistics.mean(row[name] for row in rows)


def keep(
    options: argparse.Namespace, rows: dict[tuple[int, float], list[dict]], ceiling: list[float]
) -> None:
    raw = [
        {"whose": curve.whose, "name": curve.name, "mask": curve.mask, "knob": curve.knob}
        | {"rows": {f"{value:g}": rows[i, value] for value in curve.values}}
        for i, curve in enumerate(CURVES)
    ]
    (options.out / "curves.json").write_text(
        json.dumps({"steps": options.steps, "vae": ceiling, "curves": raw})
    )


def table(points: list[list[Point]]) -> list[str]:
    lines = []
    for where in (NO_MASK, MASK):
        lines += [
            f"| {where} | knob | weakest |{' |' * (MOST - 2)} strongest | best |",
            "|---" * (MOST + 3) + "|",
        ]
        for curve, found in zip(CURVES, points):
            if curve.mask.startswith(where):
                cells = [f"{100 * p.success:.0f} / {p.psnr:.1f}" for p in found] + [""] * (MOST - len(found))
                name = f"**{curve.name}**" if curve.whose == OURS else curve.name
                knob = f"{curve.knob} {', '.join(f'{value:g}' for value in curve.values)}"
                lines.append(f"| {name} | {knob} | {' | '.join(cells)} | {best(found)} |")
        lines.append("")
    return lines


def best(points: list[Point]) -> str:
    """The background of the point that keeps it best among those that succeed often enough."""
    enough = [p.psnr for p in points if p.success >= FEWER]
    return f"{max(enough):.1f}" if enough else "-"


def draw(points: list[list[Point]], ceiling: float) -> Image.Image:
    panels = {
        where: {
            (curve.whose, curve.title): [(p.psnr, 100 * p.success) for p in found]
            for curve, found in zip(CURVES, points)
            if curve.mask.startswith(where)
        }
        for where in (NO_MASK, MASK)
    }
    return chart(
        panels, "background PSNR, dB (right: more of the rest kept)", "success, %", ceiling, "VAE round trip"
    )
