"""Seeded SD1.5-format checkpoints, the same numbers on every machine: python -m devtools.golden.build
OUT.safetensors

The golden one is 320 channels wide on four levels with CLIP-L, 0.9 GB. The small one is its first two levels
with one residual block each, in fp16: quick enough for tests that only compare the host with itself.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from .weights import tensor

SHAPES = json.loads((Path(__file__).parent / "shapes.json").read_text())
UNET = "model.diffusion_model."
QUIET = (
    0.2  # of the last layer: a random network that predicts little, so that its inversion can be played back
)
SMALL = {"input_blocks": {0: 0, 1: 1, 3: 2, 4: 3}, "output_blocks": {6: 0, 8: 1, 9: 2, 10: 3}}


def golden() -> dict[str, torch.Tensor]:
    return {name: tensor(name, tuple(shape)).float().contiguous() for name, shape in SHAPES.items()}


def small(other: bool = False) -> dict[str, torch.Tensor]:
    """`other`: the same layout and text encoder with another UNet."""
    names = {name: _small_name(name) for name in SHAPES}
    seeds = {new: f"other.{new}" if other and new and new.startswith(UNET) else new for new in names.values()}
    state = {new: tensor(seeds[new], tuple(SHAPES[name])) for name, new in names.items() if new}
    state[f"{UNET}out.2.weight"] *= QUIET
    return {name: value.half().contiguous() for name, value in state.items()}


def _small_name(name: str) -> str | None:
    """The golden parameter's name in the small network, None where it has none."""
    found = re.match(rf"{re.escape(UNET)}(input_blocks|output_blocks)\.(\d+)(.*)", name)
    if not found:
        return name
    blocks, number, rest = found.groups()
    place = SMALL[blocks].get(int(number))
    return None if place is None else f"{UNET}{blocks}.{place}{rest}"


def write(out: Path, state: dict[str, torch.Tensor]) -> None:
    partial = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        save_file(state, partial)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    write(Path(sys.argv[1]), golden())
