"""Give a host what the demo workflows want: python -m devtools.demo.prepare BASE

BASE is the host's --base-directory: the checkpoint goes to models/checkpoints, its ControlNet and its LoRA
to models/controlnet and models/loras, the source pictures to input.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

from . import scenes
from .build import build_checkpoint, build_control, build_lora

CHECKPOINT, CONTROL, LORA = (
    "eta_demo.safetensors",
    "eta_demo_control.safetensors",
    "eta_demo_lora.safetensors",
)
BUILT = {
    f"checkpoints/{CHECKPOINT}": build_checkpoint,
    f"controlnet/{CONTROL}": build_control,
    f"loras/{LORA}": build_lora,
}
# name of the picture -> the unseen scene it shows
SOURCES = {
    "eta_demo_cat.png": (scenes.TEST + 7, "cat", "grass"),
    "eta_demo_cat_2.png": (scenes.TEST + 11, "cat", "grass"),
    "eta_demo_cat_3.png": (scenes.TEST + 18, "cat", "grass"),
    "eta_demo_ball.png": (scenes.TEST + 21, "red ball", "wood"),
    "eta_demo_panda.png": (scenes.TEST + 32, "panda", "wood"),
}
MASKED = {
    "eta_demo_sand_masked.png": (scenes.TEST + 9, "", "sand")
}  # with a mask painted on, as the page's mask editor saves it
OUTLINES = {"eta_demo_outline.png": (scenes.TEST + 3, "dog", "grass")}  # of which the mask is shown


def prepare(base: Path) -> None:
    for name, build in BUILT.items():
        out = base / "models" / name
        out.parent.mkdir(parents=True, exist_ok=True)
        build(out)
    (base / "input").mkdir(exist_ok=True)
    for name, scene in SOURCES.items():
        Image.fromarray(scenes.render(*scene).image).save(base / "input" / name)
    for name, scene in MASKED.items():
        picture, free = Image.fromarray(scenes.render(*scene).image), Image.new("L", (scenes.SIZE,) * 2, 255)
        ImageDraw.Draw(free).ellipse((30, 18, 98, 112), fill=0)
        picture.putalpha(free)
        picture.save(base / "input" / name)
    for name, scene in OUTLINES.items():
        Image.fromarray(scenes.render(*scene).mask).convert("RGB").save(base / "input" / name)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
