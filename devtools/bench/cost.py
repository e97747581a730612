"""What an edit costs beside the stock KSampler, and how that grows: network calls, CPU time, peak memory."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import NamedTuple, TypeVar

import torch

from ..demo import scenes
from ..demo.studio import DemoStudio
from ..studio import Studio
from .cases import METHODS, Case, Start, cases, invert, inverted, stock_img2img
from .meters import Meter, ProcessMeter

StudioKind = TypeVar("StudioKind", bound=Studio)

STEPS = 20  # of the table of nodes
LIKE = {  # calls of the same size
    "EtaInversion": "KSampler, cfg 1",
    "EtaSampler, eta 0": "KSampler, cfg 7.5",
    "with Prompt-to-Prompt": "KSampler, cfg 7.5, two pictures",
    "with MasaCtrl": "KSampler, cfg 7.5, two pictures",
}
PLAIN = "EtaSampler, paper_strong"


@dataclass
class Cost:
    """What one job cost; seconds in each round."""

    calls: int = 0  # of the network
    rows: int = 0  # pictures that went through it
    seconds: list[float] = field(default_factory=list)
    megabytes: float = float("nan")  # highest above what was there before

    @property
    def least(self) -> float:
        return min(self.seconds)

    def per_call(self, other: Cost) -> float:
        """Time of a network call and all around it, as a multiple of the other's."""
        return self.least / self.calls / (other.least / other.calls)


def measure(
    counter: Counter, jobs: dict[str, Callable[[], object]], rounds: int, meter: Meter
) -> dict[str, Cost]:
    """The jobs in turn, `rounds` times."""
    costs = {name: Cost() for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            before = meter.settled()
            counter.reset()
            started = meter.seconds()
            job()
            costs[name].seconds.append(meter.seconds() - started)
            costs[name].calls, costs[name].rows = counter.calls, counter.rows
            costs[name].megabytes = meter.peak() - before
    return costs


class Counter:
    """Counts the network's calls and rows, ours and the stock sampler's alike."""

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        self.calls = self.rows = 0

    def __call__(self, apply_model, x, *args, **kwargs):
        self.calls, self.rows = self.calls + 1, self.rows + len(x)
        return apply_model(x, *args, **kwargs)


def counted(studio: StudioKind) -> tuple[StudioKind, Counter]:
    """The same studio, and what counts its network calls."""
    from comfy.patcher_extension import WrappersMP

    model, counter = studio.model.clone(), Counter()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "bench", counter)
    return studio.on(model), counter


# --- the nodes ------------------------------------------------------------------------------------


def nodes(start: Start) -> dict[str, Callable[[], object]]:
    studio, off, strong = (
        start.studio,
        start.studio.eta(preset="constant", end_eta=0.0),
        start.studio.eta(preset="paper_strong"),
    )
    steps = start.steps
    pair = {"samples": start.latent["samples"].repeat(2, 1, 1, 1)}
    jobs = {
        "KSampler, cfg 7.5": lambda: stock_img2img(studio, start.target, start.latent, steps, 1.0),
        "KSampler, cfg 1": lambda: stock_img2img(studio, start.target, start.latent, steps, 1.0, cfg=1.0),
        "KSampler, cfg 7.5, two pictures": lambda: stock_img2img(studio, start.target, pair, steps, 1.0),
        "EtaInversion": lambda: invert(studio, start.source, start.latent, steps),
        "EtaSampler, eta 0": lambda: start.edit(off),
        PLAIN: lambda: start.edit(strong),
    }
    for name in METHODS[1:]:
        method = start.method(name)
        jobs[f"with {name}"] = lambda method=method: start.edit(strong, edit=method)
    return jobs


def crowded(start: Start) -> dict[str, Callable[[], object]]:
    """Many variants, and another pack's patch."""
    strong = start.studio.eta(preset="paper_strong")
    patched = start._replace(studio=start.studio.on(_beside_another_pack(start.studio.model)))
    return {
        "with 4 variants": lambda: start.edit(strong, variants=4),
        "with another pack's patch": lambda: patched.edit(strong),
        "with that and 4 variants": lambda: patched.edit(strong, variants=4),
    }


def _beside_another_pack(model):
    """A MODEL with an attention patch that is not ours and changes nothing: branches go one by one then."""
    model = model.clone()
    model.set_model_attn1_patch(lambda q, k, v, extra_options: (q, k, v))
    return model


def nodes_table(costs: dict[str, Cost]) -> list[str]:
    lines = [
        "| node | calls | rows | seconds | per call | edit | MB above |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, cost in costs.items():
        like = f"{cost.per_call(costs[LIKE[name]]):.3f}" if name in LIKE else ""
        edit = f"{cost.least / costs[PLAIN].least:.2f}" if name.startswith(("EtaSampler", "with")) else ""
        lines.append(
            f"| {name} | {cost.calls} | {cost.rows} | {cost.least:.2f} | {like} | {edit} | "
            f"{cost.megabytes:.0f} |"
        )
    return lines


# --- growth ---------------------------------------------------------------------------------------


class Setting(NamedTuple):
    steps: int = 10
    size: int = 128
    batch: int = 1
    edits: int = 1


GROWTH = {"steps": (30, 100), "size": (256, 512), "batch": (2, 4, 8), "edits": (2, 3, 4)}
STOCK, SAMPLER, WHOLE = "KSampler, cfg 7.5", "EtaSampler, eta 0", "whole edit"


def whole_edit(start: Start, setting: Setting) -> dict:
    """Inversion, mask, and an edit with eta in the mask and the lock; more prompts in the quarters."""
    studio, edit, half = start.studio, None, setting.size // 2
    for i in range(setting.edits - 1):
        quarter = torch.zeros(1, setting.size, setting.size)
        quarter[:, (i // 2) * half :][:, :half, (i % 2) * half :][..., :half] = 1
        asked = {"positive": start.target, "mask": quarter, "eta_scale": 1.0, "cfg": 7.5, "overlap": "under"}
        edit = studio.host.call("EtaRegionEdit", edit=edit, **asked)[0]
    start = start._replace(inversion=invert(studio, start.source, start.latent, setting.steps))
    return start.edit(studio.eta(preset="paper_strong"), mask=start.mask(), background_lock=1.0, edit=edit)


def at(studio: DemoStudio, case: Case, setting: Setting) -> dict[str, Callable[[], object]]:
    pixels = torch.nn.functional.interpolate(
        case.pictures[:1].movedim(-1, 1), (setting.size,) * 2, mode="bicubic"
    )
    pixels = pixels.movedim(1, -1).clamp(0, 1).repeat(setting.batch, 1, 1, 1)
    start = inverted(studio, case, setting.steps, pixels)
    jobs = nodes(start)
    return {STOCK: jobs[STOCK], SAMPLER: jobs[SAMPLER], WHOLE: lambda: whole_edit(start, setting)}


def growth(studio: DemoStudio, counter: Counter, case: Case) -> dict[Setting, dict[str, Cost]]:
    settings = [Setting(), *(Setting(**{name: value}) for name, values in GROWTH.items() for value in values)]
    found = {}
    for setting in settings:
        found[setting] = measure(counter, at(studio, case, setting), 1, ProcessMeter())
        print(setting, {name: round(cost.least, 2) for name, cost in found[setting].items()}, flush=True)
    return found


def growth_table(found: dict[Setting, dict[str, Cost]]) -> list[str]:
    base = found[Setting()]
    lines = [
        "| | rows: KSampler | whole edit | time: KSampler | whole edit | per call | MB: KSampler | whole "
        "edit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for setting, costs in found.items():
        changed = [
            f"{name} {value}"
            for name, value in setting._asdict().items()
            if value != getattr(Setting(), name)
        ]
        stock, whole = (costs[name] for name in (STOCK, WHOLE))
        cells = [
            *(f"{cost.rows}" for cost in (stock, whole)),
            *(f"{costs[name].least / base[name].least:.2f}" for name in (STOCK, WHOLE)),
            f"{costs[SAMPLER].per_call(stock):.2f}",
            *(f"{cost.megabytes:.0f}" for cost in (stock, whole)),
        ]
        lines.append(f"| {''.join(changed) or 'the smallest'} | {' | '.join(cells)} |")
    return lines


def cost(studio: DemoStudio, options: argparse.Namespace) -> list[str]:
    (studio, counter), case, meter = counted(studio), cases(1, scenes.TEST)[0], ProcessMeter()
    measure(counter, at(studio, case, Setting()), 1, meter)  # warms up
    start = inverted(studio, case, STEPS)
    single = measure(counter, nodes(start) | crowded(start), options.rounds, meter)
    found = growth(studio, counter, case)
    raw = {
        str(setting._asdict()): {n: asdict(c) for n, c in costs.items()} for setting, costs in found.items()
    }
    nodes_raw = {name: asdict(cost) for name, cost in single.items()}
    (options.out / "cost.json").write_text(json.dumps({"nodes": nodes_raw, "growth": raw}, indent=1))
    smallest = Setting()
    return [
        f"{STEPS} steps, one picture of 128 px; the least CPU seconds of {options.rounds} rounds in turn. "
        "Per call: time against as many calls of KSampler of the same size. Edit: time against the plain "
        "EtaSampler's. MB: the highest above the loaded model.",
        "",
        *nodes_table(single),
        "",
        f"A whole edit: {sum(single[name].rows for name in ('EtaInversion', PLAIN))} rows; the reference "
        f"program: {6 * STEPS}.",
        "",
        f"Growth, from {smallest.steps} steps, {smallest.size} px, batch {smallest.batch}, {smallest.edits} "
        "edit; time: multiples of the smallest's.",
        "",
        *growth_table(found),
    ]
