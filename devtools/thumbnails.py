"""The thumbnails of the example workflows, each run as it is: python -m devtools.thumbnails [NAME ...]

Writes example_workflows/NAME.jpg: the picture as it was and as it came out, by the embedded model. A workflow
of a family that loads files of its own is run on the embedded flow model, and its thumbnail says so.
"""

from __future__ import annotations

import json
import sys

from PIL import Image, ImageDraw, ImageFont

from pilot.graph import graph_of

from .demo import scenes
from .demo.build import build_flow
from .demo.pack import FLOW
from .demo.prepare import CAT, SOURCES, TABLE, prepare
from .demo.sam import host_has_sam, plant
from .demo.studio import open_studio
from .environment import ROOT
from .host import Host, Outcome

FOLDER = ROOT / "example_workflows"
TILE, GAP = 256, 6
MOST = 3  # pictures of a result
OUTPUTS = {"UNETLoader": 0, "ModelSamplingAuraFlow": 0, "CLIPLoader": 1, "VAELoader": 2}  # -> a checkpoint's
STAND_IN = "embedded_flow.safetensors"
LABEL, STRIP = "this workflow on a toy flow model", 24


def main(names: list[str]) -> None:
    host = open_studio().host
    prepare(host.base)
    if host_has_sam():
        plant(host.base / "models", SOURCES[CAT])
    for name in names or sorted(path.stem for path in FOLDER.glob("*.json")):
        path = FOLDER / f"{name}.json"
        graph = graph_of(json.loads(path.read_text(encoding="utf-8")), host.object_info())
        for node in graph.values():
            if node["class_type"] == "EtaApprove":
                node["inputs"]["without_answer"] = "approve"  # no page waits for this run
            if node["class_type"] == "EtaCrop":
                node["inputs"]["megapixels"] = scenes.SIZE**2 / 2**20  # what the embedded model knows
        label = stand_in(host, graph)
        outcome = host.run(graph)
        if not outcome.success:
            sys.exit(f"{path.stem}: {outcome.error}")
        pictures = [*before(host, graph), *after(host, graph, outcome)[:MOST]]
        sheet(pictures, label).save(path.with_suffix(".jpg"), quality=88, optimize=True)
        print(path.stem, len(pictures), flush=True)


def stand_in(host: Host, graph: dict) -> str:
    """Puts the embedded flow model in the place of a family's files -> what the thumbnail says of it."""
    taken = {key: OUTPUTS[node["class_type"]] for key, node in graph.items() if node["class_type"] in OUTPUTS}
    if not taken:
        return ""
    build_flow(host.base / "models" / "checkpoints" / STAND_IN, FLOW)
    for key in taken:
        del graph[key]
    for node in graph.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] in taken:
                node["inputs"][name] = ["flow", taken[value[0]]]
    loader = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": STAND_IN}}
    graph["flow"] = loader | {"_meta": {"title": "Stand-in"}}
    return LABEL


def before(host: Host, graph: dict) -> list[Image.Image]:
    names = {node["inputs"]["image"] for node in graph.values() if node["class_type"] == "LoadImage"}
    found = [Image.open(host.base / "input" / name) for name in sorted(names)]
    return [flat(picture) if name == TABLE else picture for name, picture in zip(sorted(names), found)]


def flat(picture: Image.Image) -> Image.Image:
    """A picture with a mask, the mask lighter."""
    light = Image.blend(picture.convert("RGB"), Image.new("RGB", picture.size, "white"), 0.5)
    return Image.composite(picture.convert("RGB"), light, picture.getchannel("A"))


def after(host: Host, graph: dict, outcome: Outcome) -> list[Image.Image]:
    titled = [node_id for node_id, node in graph.items() if node["_meta"]["title"].startswith("Edited")]
    images = [image for node_id in titled for image in outcome.outputs.get(node_id, {}).get("images", [])]
    return [
        Image.open(host.base / image["type"] / image["subfolder"] / image["filename"]) for image in images
    ]


def sheet(pictures: list[Image.Image], label: str) -> Image.Image:
    width = (TILE + GAP) * len(pictures) - GAP
    drawn = Image.new("RGB", (width, TILE + (STRIP if label else 0)), "white")
    ImageDraw.Draw(drawn).text(
        (width / 2, TILE + STRIP / 2), label, "black", ImageFont.load_default(16), "mm"
    )
    for i, picture in enumerate(pictures):
        tile = picture.convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS)
        drawn.paste(tile, (i * (TILE + GAP), 0))
    return drawn


if __name__ == "__main__":
    names, sys.argv = sys.argv[1:], sys.argv[:1]  # the host reads it
    main(names)
