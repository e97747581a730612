"""What an edit costs beside the stock KSampler, and how that grows: network calls, CPU time, peak memory."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import torch

from ..demo import scenes
from ..demo.studio import DemoStudio
from .cases import METHODS, Case, Start, cases, invert, inverted, stock_img2img

STEPS = 20  # of the table of nodes
LIKE = {"EtaInversion": "KSampler, cfg 1", "EtaSampler, eta 0": "KSampler, cfg 7.5"}  # calls of the same size
PLAIN = "EtaSampler, paper_strong"


@dataclass
class Cost:
    """What one job cost.

    seconds: CPU time of this process in each round; unlike the wall clock's, other programs do not lengthen
    it.
    """

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


def measure(studio: DemoStudio, jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, Cost]:
    """The jobs in turn, `rounds` times."""
    costs = {name: Cost() for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            before = settled()
            studio.counter.reset()
            started = time.process_time()
            job()
            costs[name].seconds.append(time.process_time() - started)
            costs[name].calls, costs[name].rows = studio.counter.calls, studio.counter.rows
            costs[name].megabytes = memory("VmHWM") - before
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


def counted(studio: DemoStudio) -> DemoStudio:
    from comfy.patcher_extension import WrappersMP

    model, counter = studio.model.clone(), Counter()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "bench", counter)
    studio = studio.on(model)
    studio.counter = counter
    return studio


def settled() -> float:
    """Resident MB once freed memory is given back; the peak counts from here. nan where it is not known."""
    gc.collect()
    if sys.platform != "linux":
        return float("nan")
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    return memory("VmRSS")


def memory(name: str) -> float:
    if sys.platform != "linux":
        return float("nan")
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(name))


# --- the nodes ------------------------------------------------------------------------------------


def nodes(start: Start) -> dict[str, Callable[[], object]]:
    studio, off, strong = (
        start.studio,
        start.studio.eta(preset="constant", end_eta=0.0),
        start.studio.eta(preset="paper_strong"),
    )
    steps = start.steps
    jobs = {
        "KSampler, cfg 7.5": lambda: stock_img2img(studio, start.target, start.latent, steps, 1.0),
        "KSampler, cfg 1": lambda: stock_img2img(studio, start.target, start.latent, steps, 1.0, cfg=1.0),
        "EtaInversion": lambda: invert(studio, start.source, start.latent, steps),
        "EtaSampler, eta 0": lambda: start.edit(off),
        PLAIN: lambda: start.edit(strong),
    }
    for name in METHODS[1:]:
        method = start.method(name)
        jobs[f"with {name}"] = lambda method=method: start.edit(strong, edit=method)
    patched = start._replace(studio=studio.on(_beside_another_pack(studio.model)))
    return jobs | {
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
        "| node | calls | rows | CPU seconds | per call | edit | MB above |",
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


def growth(studio: DemoStudio, case: Case) -> dict[Setting, dict[str, Cost]]:
    settings = [Setting(), *(Setting(**{name: value}) for name, values in GROWTH.items() for value in values)]
    found = {}
    for setting in settings:
        found[setting] = measure(studio, at(studio, case, setting), 1)
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
    studio, case = counted(studio), cases(1, scenes.TEST)[0]
    warm = at(studio, case, Setting())
    measure(studio, warm, 1)
    single = measure(studio, nodes(inverted(studio, case, STEPS)), options.rounds)
    found = growth(studio, case)
    raw = {
        str(setting._asdict()): {n: asdict(c) for n, c in costs.items()} for setting, costs in found.items()
    }
    nodes_raw = {name: asdict(cost) for name, cost in single.items()}
    (options.out / "cost.json").write_text(json.dumps({"nodes": nodes_raw, "growth": raw}, indent=1))
    smallest = Setting()
    return [
        f"{STEPS} steps, one picture of 128 px, the fewest CPU seconds of {options.rounds} rounds in turn. "
        "Per call: time against as many calls of KSampler of the "
        "same size. Edit: time against the plain EtaSampler's. MB: the highest above the loaded model.",
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
