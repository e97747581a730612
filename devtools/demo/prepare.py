"""Give a host what the example workflows name: python -m devtools.demo.prepare BASE

BASE is the host's --base-directory. The embedded model stands in the place of the public checkpoint, its
ControlNet and LoRA in the place of the public ones, and unseen scenes in the place of the photographs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

from ..template_list import CAT, COFFEE, CONTROL, LORA, TABLE
from ..template_list import SD15 as CHECKPOINT
from . import scenes
from .build import build_checkpoint, build_control, build_lora

BUILT = {
    f"checkpoints/{CHECKPOINT}": build_checkpoint,
    f"controlnet/{CONTROL}": build_control,
    f"loras/{LORA}": build_lora,
}
# name of the picture -> the unseen scene it shows
SOURCES = {
    CAT: (scenes.TEST + 7, "cat", "grass"),
    COFFEE: (scenes.TEST + 21, "red ball", "wood"),
}
MASKED = {TABLE: (scenes.TEST + 9, "", "wood")}  # with a mask painted on, as the page's mask editor saves it


def prepare(base: Path) -> None:
    put_models(base)
    put_pictures(base)


def put_models(base: Path) -> None:
    for name, build in BUILT.items():
        out = base / "models" / name
        out.parent.mkdir(parents=True, exist_ok=True)
        build(out)


def put_pictures(base: Path) -> None:
    (base / "input").mkdir(exist_ok=True)
    for name, scene in SOURCES.items():
        Image.fromarray(scenes.render(*scene).image).save(base / "input" / name, lossless=True)
    for name, scene in MASKED.items():
        picture, free = Image.fromarray(scenes.render(*scene).image), Image.new("L", (scenes.SIZE,) * 2, 255)
        ImageDraw.Draw(free).ellipse((30, 18, 98, 112), fill=0)
        picture.putalpha(free)
        picture.save(base / "input" / name, lossless=True, exact=True)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
