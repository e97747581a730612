"""A run of many items without a server: what a resumed run, its report and its checks take.

Each step is a program of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

from ..environment import ROOT

BEFORE = """import resource, sys, time
from pathlib import Path
from pilot import items, journal, report
from pilot.review import audit
folder = Path(sys.argv[1])
"""
AFTER = """
seconds = time.perf_counter() - began
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"""
ADDED = 1000
STEPS = {
    "only the imports": "began = time.perf_counter()",
    "the list of items read, with every key": (
        "began = time.perf_counter(); keys = [item.key for item in items.load(folder / 'items.jsonl')]"
    ),
    "results.jsonl read and mended, and the audit log brought up to date": (
        "began = time.perf_counter(); run = journal.load(folder)\n"
        "with journal.Journal(folder) as book: audit.begin_run(folder, run, '')"
    ),
    f"{ADDED} rows added, each with its line in the audit log": (
        "verdicts = audit.Verdicts(folder)\n"
        "with journal.Journal(folder) as book:\n"
        "    row = next(journal.each(folder)); began = time.perf_counter()\n"
        f"    for n in range({ADDED}):\n"
        "        one = row | {'key': f'added-{n}'}; book.append(one); verdicts.add(one)"
    ),
    "the report": "began = time.perf_counter(); report.write(folder)",
    "the audit log verified": "began = time.perf_counter(); assert not audit.verify(folder).findings",
}


def scale(options: argparse.Namespace) -> list[str]:
    """The table's lines; the raw figures go to options.out."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _fill(folder, options.rows)
        size = (folder / "results.jsonl").stat().st_size / options.rows
        found = {step: _measured(code, folder) for step, code in STEPS.items()}
        page = (folder / "report.html").stat().st_size / 1e6
    (options.out / "scale.json").write_text(json.dumps(found, indent=1))
    lines = [f"{options.rows} rows, {size:.0f} bytes each; the report has {page:.1f} MB.", ""]
    lines += ["| step | seconds | peak memory, MB |", "|---|---|---|"]
    return [*lines, *(f"| {step} | {s:.1f} | {m:.0f} |" for step, (s, m) in found.items())]


def _measured(code: str, folder: Path) -> tuple[float, float]:
    """Seconds and peak memory in MB."""
    program = [sys.executable, "-c", BEFORE + code + AFTER, str(folder)]
    done = subprocess.run(program, cwd=ROOT, check=True, capture_output=True, text=True)
    seconds, memory = done.stdout.split()[-2:]
    return float(seconds), float(memory)


def _fill(folder: Path, count: int) -> None:
    """A run's folder as `pilot run` leaves it, but for the pictures."""
    settings = {"workflow": "w.json", "policy": "advertising", "limits": ""}
    run = {"id": uuid.uuid4().hex, "settings": settings, "items": "items.jsonl"}
    (folder / "run.json").write_text(json.dumps(run))
    with open(folder / "items.jsonl", "w") as items, open(folder / "results.jsonl", "w") as rows:
        for number in range(count):
            item, row = _item(number)
            items.write(json.dumps(item) + "\n")
            rows.write(json.dumps(row) + "\n")


def _item(number: int) -> tuple[dict, dict]:
    prompts = {
        "source_prompt": "a photo of a cat on the grass, in the morning light",
        "target_prompt": "a photo of a dog on the grass, in the morning light",
    }
    item = {"picture": f"photographs/2026/{number:07d}.jpg", "seed": number, **prompts}
    key = f"{number:012x}-auto"
    names = ("source", "edited", "mask", "heatmap")
    figures = {
        "background_psnr": 25 + number % 100 / 10,
        "background_mse": 0.001,
        "background_ssim": 0.97,
        "background_ms_ssim": 0.98 + number % 10 / 1000,
        "background_mean_difference": 1.2,
        "background_changed_area": 3.1,
        "changed_area": 5 + number % 30,
        "structure_distance": None,
    }
    row = {
        "key": key,
        "mode": "auto",
        "number": number + 1,
        "name": item["picture"],
        "category": f"series {number % 8}",
        **prompts,
        "words": "cat",
        "files": {name: f"pictures/{key}/{name}.png" for name in names},
        "size": [1024, 768],
        "given_size": [6000, 4000],
        "mask": "auto",
        "scored": "auto",
        "seed": number,
        "figures": [figures],
        "not_measured": {"clip_similarity": "no CLIP was given", "lpips": "its weights are not there"},
        "seconds": 4 + number % 17 / 10,
        "verdict": ("pass", "review", "reject")[number % 3],
        "reasons": [] if number % 3 == 0 else ["background PSNR 26.1 dB is below 28"],
        "status": "ok",
        "server": f"http://10.0.0.{number % 4}:8188",
        "finished": "2026-11-27T16:00:00+00:00",
    }
    return item, row
