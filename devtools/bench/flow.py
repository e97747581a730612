"""The embedded flow model at work: python -m devtools.bench.flow [edits] [inverters] [steered] [words], in
the environment of dev.py

inverters: how far each plays back beside the picture, at equal network evaluations, on both embedded models.
edits: swaps in unseen scenes by each way, against the right answer: success, background, truth, ...
steered: what a network call costs with steered blocks, beside one of as many rows without.
words: the region of a word, read in all blocks or in fewer at a step.
Tables and a sheet of the edits go to --out (bench-output).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from eta_core.invert import evaluations

from ..demo import scenes
from ..demo.flow_network import DEPTH
from ..demo.studio import DemoStudio, FlowDemoStudio, open_flow_studio, pixels_of
from ..environment import ROOT
from .cases import Start, cases, inverted
from .cost import counted, measure
from .meters import ProcessMeter
from .proof import FIGURES, Measure, cell
from .regions import iou

STEPS, CFG = 20, 4.0
INVERTERS = ("ddim", "warm", "fireflow", "fixed_point", "midpoint")
BUDGETS = (10, 20, 40)  # network evaluations
WORD_LEVEL = 0.3  # the threshold of the highest IoU on 20 validation scenes
SOFT = {"grow": 0, "blur": 4.0}  # DifferentialDiffusion's best of six shapes tried on other scenes
LOCKED = {"background_lock": 1.0}


def steps_for(inverter: str, budget: int) -> int:
    """The most steps that an inverter takes with at most `budget` evaluations."""
    return max(n for n in range(1, budget + 1) if evaluations(inverter, n, 2) <= budget)


def drift(studio: DemoStudio | FlowDemoStudio, inverter: str, steps: int, count: int) -> float:
    """Root mean square error of the latent played back, over the picture's deviation; mean of scenes."""
    found = []
    for i in range(count):
        scene = scenes.render(scenes.VALIDATION + 7 * i)
        latent, prompt = studio.encode(pixels_of([scene])), studio.prompt(scene.prompt)
        inversion = studio.invert(
            positive=prompt, latent_image=latent, steps=steps, inverter=inverter, iterations=2
        )
        back = studio.edit(inversion, positive=prompt, cfg=1.0, eta=studio.eta(end_eta=0.0))
        source = latent["samples"]
        found.append(float((back - source).square().mean().sqrt() / source.std()))
    return float(np.mean(found))


def inverters(studios: dict[str, DemoStudio | FlowDemoStudio], count: int) -> str:
    lines = ["| model | inverter | " + " | ".join(f"{n} evaluations" for n in BUDGETS) + " |"]
    lines.append("|---" * (2 + len(BUDGETS)) + "|")
    for name, studio in studios.items():
        for inverter in INVERTERS:
            steps = [steps_for(inverter, budget) for budget in BUDGETS]
            cells = [f"{drift(studio, inverter, n, count):.3f} ({n} steps)" for n in steps]
            lines.append(f"| {name} | {inverter} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def eta(start: Start, preset: str) -> object:
    return start.studio.eta(preset=preset, end_eta=0.0)


def region(start: Start, **settings) -> torch.Tensor:
    given = {"refine": True, "auto_threshold": True, "image": start.case.pictures, "grow": 3, "blur": 2.0}
    return start.mask(**given | settings)


def sampler(preset: str = "constant", method: str = "", locked: bool = False, **settings):
    """EtaSampler, with a method, in the words' region with the lock."""

    def way(start: Start) -> torch.Tensor:
        place = {"mask": region(start)} | LOCKED if locked else {}
        edit = {"edit": start.method(method)} if method else {}
        return start.edit(eta(start, preset), cfg=CFG, **settings | place | edit)

    return way


def flow_edit(shape: dict | None = None, **settings):
    """EtaFlowEdit, where a shape is given in the words' region."""

    def way(start: Start) -> torch.Tensor:
        place = {} if shape is None else {"mask": region(start, **shape)}
        same = dict(source=start.source, positive=start.target, steps=STEPS, scheduler="simple")
        return start.studio.flow_edit(start.latent, **same | {"cfg": CFG, "start": 0.85} | settings | place)

    return way


def flipped(start: Start, denoise: float = 0.7) -> torch.Tensor:
    """The host's FlipSigmas: upwards with the source prompt, downwards with the target's."""
    call, model = start.studio.host.call, start.studio.model
    (down,) = call("BasicScheduler", model=model, scheduler="simple", steps=STEPS, denoise=denoise)
    (up,) = call("FlipSigmas", sigmas=down)
    (euler,) = call("KSamplerSelect", sampler_name="euler")
    latent = start.latent
    for prompt, cfg, sigmas in ((start.source, 1.0, up), (start.target, CFG, down)):
        (latent, _) = call(
            "SamplerCustom",
            model=model,
            add_noise=False,
            noise_seed=0,
            cfg=cfg,
            positive=prompt,
            negative=start.studio.negative,
            sampler=euler,
            sigmas=sigmas,
            latent_image=latent,
        )
    return latent["samples"]


def differential(start: Start, denoise: float = 0.85) -> torch.Tensor:
    """The host's DifferentialDiffusion in the same region, softened."""
    call = start.studio.host.call
    (model,) = call("DifferentialDiffusion", model=start.studio.model)
    (latent,) = call("SetLatentNoiseMask", samples=start.latent, mask=region(start, **SOFT))
    same = {"seed": 0, "steps": STEPS, "cfg": CFG, "scheduler": "simple", "denoise": denoise}
    return start.studio.on(model).ksampler(positive=start.target, latent_image=latent, **same)


WAYS: dict[str, Callable[[Start], torch.Tensor]] = {
    "eta 0": sampler(),
    "flow_gentle": sampler("flow_gentle"),
    "flow_strong": sampler("flow_strong"),
    "eta 0, mask and lock": sampler(locked=True),
    "flow_gentle, mask and lock": sampler("flow_gentle", locked=True),
    "flow_strong, mask and lock": sampler("flow_strong", locked=True),
    "Prompt-to-Prompt": sampler(method="Prompt-to-Prompt"),
    "MasaCtrl": sampler(method="MasaCtrl"),
    "Plug-and-Play": sampler(method="Plug-and-Play"),
    "Eta Flow Edit": flow_edit(),
    "Eta Flow Edit, mask and lock": flow_edit({}),
    "Eta Flow Edit, mask of DifferentialDiffusion": flow_edit(SOFT),
    "FlipSigmas, denoise 0.7": flipped,
    "DifferentialDiffusion, denoise 0.85, mask": differential,
}


def edits(studio: FlowDemoStudio, swaps: int, out: Path) -> str:
    judge, found, sheet = Measure(), {name: [] for name in WAYS}, []
    for case in cases(swaps, scenes.TEST):
        start = inverted(studio, case, STEPS)  # pyright: ignore[reportArgumentType]: the two studios are alike
        row = [case.pictures[0]]
        for name, way in WAYS.items():
            pictures = studio.decode(way(start))
            found[name] += judge(case, pictures)
            row.append(pictures[0])
        sheet.append(torch.cat(row, 1))
    Image.fromarray((torch.cat(sheet) * 255).round().byte().numpy()).save(out / "flow.png")
    lines = [f"| way | {' | '.join(FIGURES)} |", "|---" * (1 + len(FIGURES)) + "|"]
    for name, rows in found.items():
        cells = (cell([row[figure] for row in rows]) for figure in FIGURES)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


EVERYWHERE = {"start": 0.0, "start_layer": 0.0}
COLUMNS = {"cross_replace_end": 1.0, "self_replace_end": 0.0, "local_blend": False}
NONE = "no block"


def steered(studio: FlowDemoStudio, rounds: int) -> str:
    studio, counter = counted(studio)
    start = inverted(studio, cases(10, scenes.TEST)[0], STEPS)
    half = torch.zeros(studio.picture.shape[:3])
    half[..., : half.shape[-1] // 2] = 1
    ways = {
        NONE: start.method("MasaCtrl", start=0.0, start_layer=0.99),  # the source is asked and read nowhere
        "MasaCtrl, the last block": start.method("MasaCtrl", start=0.0, start_layer=1 - 1 / DEPTH),
        "MasaCtrl, every block": start.method("MasaCtrl", **EVERYWHERE),
        "MasaCtrl, every block, free_mask": start.method("MasaCtrl", **EVERYWHERE, free_mask=half),
        "MasaCtrl, every block, two masks": start.method(
            "MasaCtrl", **EVERYWHERE, source_mask=half, target_mask=half
        ),
        "Plug-and-Play, every step": start.method("Plug-and-Play", feature_end=1.0, attention_end=1.0),
        "Prompt-to-Prompt, the words": start.method("Prompt-to-Prompt", **COLUMNS),
        "Prompt-to-Prompt, the words and the local blend": start.method(
            "Prompt-to-Prompt", **COLUMNS | {"local_blend": True}
        ),
    }
    jobs = {
        name: lambda edit=edit: start.edit(eta(start, "constant"), cfg=CFG, edit=edit)
        for name, edit in ways.items()
    }
    measure(counter, jobs, 1, ProcessMeter())  # warms up
    costs = measure(counter, jobs, rounds, ProcessMeter())
    lines = ["| steered | calls | rows | CPU seconds | per call | MB above |", "|---|---|---|---|---|---|"]
    for name, cost in costs.items():
        lines.append(
            f"| {name} | {cost.calls} | {cost.rows} | {cost.least:.2f} | {cost.per_call(costs[NONE]):.2f} | "
            f"{cost.megabytes:.0f} |"
        )
    return "\n".join(lines)


def words(studio: FlowDemoStudio, count: int) -> str:
    """IoU of `count` things with their true outlines, in %, by how many blocks are read at a step."""
    joint, drawn = studio.host.module("host.families.joint"), cases(count, scenes.TEST + 6000)
    most, of_all = joint.MOST_READ, {}
    lines = ["| blocks read at a step | refine | IoU % | above all blocks' |", "|---|---|---|---|"]
    try:
        for blocks in (DEPTH, DEPTH // 2, 1):
            joint.MOST_READ = blocks
            starts = [inverted(studio, case, STEPS) for case in drawn]
            for refine in (False, True):
                found = [value for start in starts for value in _overlap(start, refine)]
                change = [mine - theirs for mine, theirs in zip(found, of_all.setdefault(refine, found))]
                lines.append(f"| {blocks} of {DEPTH} | {refine} | {cell(found)} | {cell(change)} |")
    finally:
        joint.MOST_READ = most
    return "\n".join(lines)


def _overlap(start: Start, refine: bool) -> list[float]:
    mask = start.mask(threshold=WORD_LEVEL, grow=0, refine=refine, image=start.case.pictures)
    return [100 * value for value in iou(mask, start)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", metavar="|".join(TABLES), help="default: all")
    parser.add_argument("--swaps", type=int, default=30, help="edits by each way; ten kinds of swap")
    parser.add_argument("--played", type=int, default=5, help="scenes played back by each inverter")
    parser.add_argument("--things", type=int, default=50, help="of words, a scene each")
    parser.add_argument(
        "--rounds", type=int, default=5, help="of the steered calls; the fewest seconds count"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench-output")
    options = parser.parse_args()
    for name in options.tables:
        if name not in TABLES:
            parser.error(f"no table {name}: there are {', '.join(TABLES)}")
    options.out.mkdir(parents=True, exist_ok=True)
    sys.argv = sys.argv[:1]  # the host reads it
    flow = open_flow_studio()
    tables = [TABLES[name](flow, options) for name in options.tables or TABLES]
    (options.out / "flow.md").write_text("\n\n".join(tables) + "\n")
    print("\n\n".join(tables))


def _inverters(flow: FlowDemoStudio, options: argparse.Namespace) -> str:
    diffusion = DemoStudio(flow.host)
    diffusion.narrow()
    return inverters({"flow": flow, "diffusion": diffusion}, options.played)


TABLES: dict[str, Callable[[FlowDemoStudio, argparse.Namespace], str]] = {
    "edits": lambda flow, options: edits(flow, options.swaps, options.out),
    "inverters": _inverters,
    "steered": lambda flow, options: steered(flow, options.rounds),
    "words": lambda flow, options: words(flow, options.things),
}


if __name__ == "__main__":
    main()
