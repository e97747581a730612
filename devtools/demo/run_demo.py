"""The main job on the embedded model: the example workflow itself, through the real server, on a scene it
never saw.

    python -m devtools.demo.run_demo --out DIR      (dev.py demo calls it, with the environment ready)

Writes source, edited, reconstruction, mask, heatmap and comparison as PNG, and report.json.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from eta_core.evidence import metrics
from pilot.graph import graph_of

from ..environment import ROOT, WORK, environment
from ..server import free_port, running, server_command
from . import judge, scenes
from .prepare import CAT, SOURCES, prepare

WORKFLOW = ROOT / "example_workflows" / "Change one thing in a photo.json"
PATIENCE_SECONDS = 1800
SOURCE, WANTED = CAT, "dog"
PICTURES = {name: name.lower() for name in ("Edited", "Reconstruction", "Mask", "Heatmap")}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("demo-output"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    env = environment()
    print("building the embedded model", flush=True)
    prepare(env.base)
    log = WORK / "demo-server.log"
    port = free_port()
    print(f"starting ComfyUI (log: {log})", flush=True)
    with running(server_command(env, port), env, port, log) as (_, address):
        started = time.perf_counter()
        pictures = run_workflow(address)
        seconds = time.perf_counter() - started
    for name, picture in pictures.items():
        Image.fromarray(picture).save(options.out / f"{name}.png")
    report = report_of(pictures, seconds, log.read_text(errors="replace"))
    (options.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    print(f"the pictures are in {options.out.resolve()}")
    return 0


def run_workflow(address: str) -> dict[str, np.ndarray]:
    """The workflow's pictures by name, and the source."""
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    graph = with_views(graph_of(workflow, get(f"{address}/object_info")))
    print(f"running '{WORKFLOW.stem}': {len(graph)} nodes", flush=True)
    prompt_id = post(f"{address}/prompt", {"prompt": graph})["prompt_id"]
    outputs = finished(address, prompt_id)
    pictures = {"source": np.asarray(Image.open(environment().base / "input" / SOURCE).convert("RGB"))}
    for node_id, node in graph.items():
        name = PICTURES.get(node["_meta"]["title"])
        if name:
            pictures[name] = fetch(address, outputs[node_id]["images"][0])
    pictures["comparison"] = np.concatenate([pictures["source"], pictures["edited"][..., :3]], 1)
    return pictures


def with_views(graph: dict) -> dict:
    """The graph with previews of what its nodes show on the page alone: mask, heatmap, reconstruction."""
    (mask,), (edit,), (decoder, *_) = (
        [node_id for node_id, node in graph.items() if node["class_type"] == kind]
        for kind in ("AttentionMask", "EtaSampler", "VAEDecode")
    )
    views = {
        "mask": ("MaskPreview", "Mask", {"mask": [mask, 0]}),
        "heatmap": ("PreviewImage", "Heatmap", {"images": [mask, 1]}),
        "decoded": ("VAEDecode", "", {"samples": [edit, 1], "vae": graph[decoder]["inputs"]["vae"]}),
        "reconstruction": ("PreviewImage", "Reconstruction", {"images": ["decoded", 0]}),
    }
    return graph | {
        node_id: {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}
        for node_id, (kind, title, inputs) in views.items()
    }


def finished(address: str, prompt_id: str) -> dict:
    """The prompt's outputs when it is done; SystemExit with the node's own message when it failed."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        entry = get(f"{address}/history/{prompt_id}").get(prompt_id)
        if entry is None:
            time.sleep(0.3)
            continue
        errors = [data for event, data in entry["status"]["messages"] if event == "execution_error"]
        if errors:
            raise SystemExit(f"{errors[0]['node_type']}: {errors[0]['exception_message']}")
        return entry["outputs"]
    raise SystemExit(f"the workflow did not finish within {PATIENCE_SECONDS} s")


def report_of(pictures: dict[str, np.ndarray], seconds: float, log: str) -> dict:
    source, edited, reconstruction, mask = (
        tensor(pictures[name]) for name in ("source", "edited", "reconstruction", "mask")
    )
    truth = torch.from_numpy(scenes.render(*SOURCES[SOURCE]).mask.copy())[None].float() / 255
    shows = dict(zip(("before", "after"), judge.say(judge.load(), torch.cat([source, edited]))))
    return {
        "workflow": WORKFLOW.stem,
        "wanted": f"{WANTED} on the same {SOURCES[SOURCE][2]}",
        "judge_before": " on ".join(shows["before"]),
        "judge_after": " on ".join(shows["after"]),
        "success": shows["after"] == (WANTED, SOURCES[SOURCE][2]),
        "background_psnr_db": round(metrics.background_psnr(source, edited, truth).item(), 2),
        "background_psnr_of_reconstruction_db": round(
            metrics.background_psnr(source, reconstruction, truth).item(), 2
        ),
        "mask_iou": round(metrics.iou(mask[..., 0] > 0.5, truth > 0.5).item(), 3),
        "network_rows": sum(map(int, re.findall(r"Eta Inversion: (\d+) rows", log))),
        "seconds": round(seconds, 1),
    }


def tensor(picture: np.ndarray) -> torch.Tensor:
    """[1, H, W, 3] in 0..1, as the host has pictures."""
    return torch.from_numpy(np.asarray(Image.fromarray(picture).convert("RGB")).copy())[None].float() / 255


# --- the server's HTTP interface ------------------------------------------------------------------

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str) -> dict:
    with DIRECT.open(url, timeout=60) as answer:
        return json.load(answer)


def post(url: str, body: dict) -> dict:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with DIRECT.open(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise SystemExit(
            f"the server refused the workflow: {error.read().decode(errors='replace')}"
        ) from None


def fetch(address: str, image: dict) -> np.ndarray:
    with DIRECT.open(f"{address}/view?{urllib.parse.urlencode(image)}", timeout=60) as answer:
        return np.asarray(Image.open(io.BytesIO(answer.read())))


if __name__ == "__main__":
    sys.exit(main())
