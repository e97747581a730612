"""The thumbnails of the example workflows, each run as it is: python -m devtools.thumbnails [NAME ...]

Writes example_workflows/NAME.jpg: the picture as it was and as it came out, by the embedded model.
"""

from __future__ import annotations

import json
import sys

from PIL import Image

from pilot.graph import graph_of

from .demo import scenes
from .demo.prepare import TABLE, prepare
from .demo.studio import open_studio
from .environment import ROOT
from .host import Host, Outcome

FOLDER = ROOT / "example_workflows"
TILE, GAP = 256, 6
MOST = 3  # pictures of a result


def main(names: list[str]) -> None:
    host = open_studio().host
    prepare(host.base)
    for name in names or sorted(path.stem for path in FOLDER.glob("*.json")):
        path = FOLDER / f"{name}.json"
        graph = graph_of(json.loads(path.read_text(encoding="utf-8")), host.object_info())
        for node in graph.values():
            if node["class_type"] == "EtaApprove":
                node["inputs"]["without_answer"] = "approve"  # no page waits for this run
            if node["class_type"] == "EtaCrop":
                node["inputs"]["megapixels"] = scenes.SIZE**2 / 2**20  # what the embedded model knows
        outcome = host.run(graph)
        if not outcome.success:
            sys.exit(f"{path.stem}: {outcome.error}")
        pictures = [*before(host, graph), *after(host, graph, outcome)[:MOST]]
        sheet(pictures).save(path.with_suffix(".jpg"), quality=88, optimize=True)
        print(path.stem, len(pictures), flush=True)


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


def sheet(pictures: list[Image.Image]) -> Image.Image:
    drawn = Image.new("RGB", ((TILE + GAP) * len(pictures) - GAP, TILE), "white")
    for i, picture in enumerate(pictures):
        tile = picture.convert("RGB").resize((TILE, TILE), Image.Resampling.LANCZOS)
        drawn.paste(tile, (i * (TILE + GAP), 0))
    return drawn


if __name__ == "__main__":
    names, sys.argv = sys.argv[1:], sys.argv[:1]  # the host reads it
    main(names)
