"""Give a host what the example workflows name: python -m devtools.demo.prepare BASE

BASE is the host's --base-directory. The embedded model stands in the place of the public checkpoint, its
ControlNet and LoRA in the place of the public ones, and unseen scenes in the place of the photographs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

from ..templates.files import CAT, COFFEE, CONTROL, LORA, RETOLD, TABLE
from ..templates.files import SD15 as CHECKPOINT
from . import scenes
from .build import build_checkpoint, build_control, build_lora

TINT = (0.97, 1.0, 0.94)
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
GIVEN_BACK = {RETOLD: (scenes.TEST + 21, "red heart", "wood")}  # zoomed and tinted, as editors do
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
    for name, scene in GIVEN_BACK.items():
        given_back(Image.fromarray(scenes.render(*scene).image)).save(base / "input" / name, lossless=True)
    for name, scene in MASKED.items():
        picture, free = Image.fromarray(scenes.render(*scene).image), Image.new("L", (scenes.SIZE,) * 2, 255)
        ImageDraw.Draw(free).ellipse((30, 18, 98, 112), fill=0)
        picture.putalpha(free)
        picture.save(base / "input" / name, lossless=True, exact=True)


def given_back(picture: Image.Image, zoom: float = 1.02) -> Image.Image:
    """The picture as editors that follow instructions give it back: zoomed a little, and tinted."""
    width, height = picture.size
    box = (width * (1 - 1 / zoom) / 2, height * (1 - 1 / zoom) / 2)
    larger = picture.resize(picture.size, Image.Resampling.BICUBIC, (*box, width - box[0], height - box[1]))
    tinted = [
        band.point([min(255, round(i * scale)) for i in range(256)])
        for band, scale in zip(larger.split(), TINT)
    ]
    return Image.merge("RGB", tinted)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
