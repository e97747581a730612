"""A pilot's run on two servers against the same run on one of them, in turns, with the driver beside them."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import time
from pathlib import Path

from PIL import Image

from pilot import cli, journal

from ..demo import scenes
from ..demo.prepare import prepare
from ..environment import PACK, Environment, environment, link_pack, make_base
from ..server import free_port, running, server_command

ITEMS, SIDE, STEPS = 24, 64, 5


def servers(options: argparse.Namespace) -> list[str]:
    """The table's lines; the raw figures go to options.out."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of each server
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        addresses = [stack.enter_context(_server(folder / f"server-{n}")) for n in (1, 2)]
        items = _items(folder)
        for address in addresses:  # what a server does only once is not measured
            _times(items, folder / f"warm-{addresses.index(address)}", [address], ["--limit", "1"])
        found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
        for turn in range(options.rounds):
            for count, times in found.items():
                times.append(_times(items, folder / f"{count}-{turn}", addresses[:count]))
    (options.out / "pilot.json").write_text(json.dumps(found, indent=1))
    best = {count: min(times) for count, times in found.items()}
    lines = [
        f"{ITEMS} items of {SIDE} pixels, {STEPS} steps, {os.cpu_count()} CPU cores, one thread each.",
        "",
    ]
    lines += ["| servers | seconds | against one | a server works, % of the time |", "|---|---|---|---|"]
    for count, (seconds, worked) in best.items():
        share = 100 * worked / count / seconds
        lines.append(f"| {count} | {seconds:.1f} | {best[1][0] / seconds:.2f} | {share:.0f} |")
    return lines


@contextlib.contextmanager
def _server(base: Path):
    """The address of a server of its own."""
    env: Environment = environment()._replace(base=base)
    make_base(base)
    link_pack(base / "custom_nodes" / PACK)
    prepare(base)
    port = free_port()
    with running(server_command(env, port), env, port, base / "server.log") as (_, address):
        yield address


def _items(folder: Path) -> Path:
    Image.fromarray(scenes.render(scenes.TEST + 7, "cat", "grass").image).save(folder / "cat.png")
    item = {
        "picture": "cat.png",
        "source_prompt": "a cat on the grass",
        "target_prompt": "a dog on the grass",
    }
    (folder / "items.json").write_text(json.dumps([item | {"seed": seed} for seed in range(ITEMS)]))
    return folder / "items.json"


def _times(
    items: Path, out: Path, addresses: list[str], more: list[str] | None = None
) -> tuple[float, float]:
    """Seconds of a run, and those that its servers worked, by their own clocks."""
    given = ["run", str(items), "--out", str(out), "--max-side", str(SIDE), *(more or [])]
    given += ["--set", f"EtaInversion.steps={STEPS}"]
    given += [part for address in addresses for part in ("--server", address)]
    began = time.perf_counter()
    with contextlib.redirect_stdout(None):
        status = cli.main(given)
    seconds = time.perf_counter() - began
    rows = journal.rows(out)
    assert status == 0 and all(row["status"] == "ok" for row in rows)
    return seconds, sum(row["seconds"] for row in rows)
