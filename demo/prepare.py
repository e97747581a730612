"""Give a host what the demo workflows want: python demo/prepare.py BASE

BASE is the host's --base-directory: the checkpoint goes to models/checkpoints, the source pictures to input.
"""

from __future__ import annotations

import sys
from pathlib import Path

import scenes
from build import build_checkpoint
from PIL import Image

CHECKPOINT = "eta_demo.safetensors"
# name of the picture -> the unseen scene it shows
SOURCES = {"eta_demo_cat.png": (scenes.TEST + 7, "cat", "grass")}


def prepare(base: Path) -> None:
    checkpoints = base / "models" / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    build_checkpoint(checkpoints / CHECKPOINT)
    (base / "input").mkdir(exist_ok=True)
    for name, scene in SOURCES.items():
        Image.fromarray(scenes.render(*scene).image).save(base / "input" / name)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
