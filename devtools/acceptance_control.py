"""Do the embedded model's ControlNet and LoRA do what the card says? python -m devtools.acceptance_control
[--out DIR]

In the environment of dev.py, through the host's own loaders, ControlNetApplyAdvanced and KSampler, on scenes
of the test range. Where the object is in a sampled picture is told by colour: every pixel that this
background never shows. On rendered scenes, whose masks are known, the same measure gives the first figure.
Exit status 1 when a required figure is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from eta_core.evidence import metrics

from .acceptance import CFG, STEPS, test_scenes
from .demo import judge, scenes
from .demo.prepare import LORA
from .demo.studio import DemoStudio, open_studio, pixels_of
from .demo.train_control import hints_of
from .demo.train_lora import FRAME
from .environment import ROOT

PICTURES = 16
BINS = 12  # of each colour channel
RARE = 1e-4  # share of the pixels below which a colour is not the background's
AROUND = 9  # px; the majority of this square decides
REQUIRED = {
    "IoU gained by control": 0.25,
    "thing %, control 1": 80.0,
    "border, lora 1": 0.9,
    "thing %, lora 1": 80.0,
}


class ControlStudio:
    """The stock way to a picture, with and without the ControlNet and the LoRA."""

    def __init__(self, studio: DemoStudio):
        self.studio, self.control = studio, studio.load_control()
        self.colours = {background: self._colours_of(background) for background in scenes.BACKGROUNDS}

    def sample(self, scene: scenes.Scene, seed: int, hint: torch.Tensor | None = None, lora: float = 0.0):
        """One picture [H, W, 3] of the scene's prompt; `hint` [H, W, 3] steers it."""
        model, call = self.studio.model, self.studio.host.call
        if lora:
            model = call("LoraLoaderModelOnly", model=model, lora_name=LORA, strength_model=lora)[0]
        prompts = {"positive": self.studio.prompt(scene.prompt), "negative": self.studio.negative}
        if hint is not None:
            inputs = {"control_net": self.control, "image": hint[None], "strength": 1.0}
            whole = {"start_percent": 0.0, "end_percent": 1.0}
            steered = call("ControlNetApplyAdvanced", **prompts, **inputs, **whole)
            prompts = dict(zip(prompts, steered))
        same = {"latent_image": {"samples": torch.zeros(1, 4, 16, 16)}, "steps": STEPS, "cfg": CFG}
        return self.studio.decode(self.studio.ksampler(model=model, seed=seed, **prompts, **same))[0]

    def round_trip(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.studio.decode(self.studio.encode(pictures))

    def _colours_of(self, background: str) -> torch.Tensor:
        """Share of each colour in the background, from empty scenes."""
        empty = [scenes.render(scenes.VALIDATION + i, "", background) for i in range(40)]
        return torch.bincount(_bin(self.round_trip(pixels_of(empty))).flatten(), minlength=BINS**3) / (
            40 * scenes.SIZE**2
        )

    def place(self, picture: torch.Tensor, background: str) -> torch.Tensor:
        """[H, W] bool: where the picture is not its background."""
        rare = (self.colours[background][_bin(picture)] < RARE).float()
        return F.avg_pool2d(rare[None, None], AROUND, 1, AROUND // 2)[0, 0] > 0.5


def _bin(pictures: torch.Tensor) -> torch.Tensor:
    """Number of each pixel's colour among BINS ** 3."""
    red, green, blue = (pictures * BINS).long().clamp(max=BINS - 1).unbind(-1)
    return (red * BINS + green) * BINS + blue


def truth_of(scene: scenes.Scene) -> torch.Tensor:
    return torch.from_numpy(scene.mask.copy()) > 127


def overlap(studio: ControlStudio, pictures: Sequence[torch.Tensor], batch: list[scenes.Scene]) -> float:
    """Mean IoU of the objects' places with the scenes' masks."""
    places = [studio.place(picture, s.background) for picture, s in zip(pictures, batch)]
    return float(np.mean([metrics.iou(p[None], truth_of(s)[None]).item() for p, s in zip(places, batch)]))


def agreement(pictures: Sequence[torch.Tensor], batch: Sequence[scenes.Scene]) -> float:
    """Percent of the pictures where the judge sees the prompt's thing."""
    said = judge.say(judge.load(), torch.stack(list(pictures)))
    return 100 * float(np.mean([thing == s.thing for (thing, _), s in zip(said, batch)]))


def measure(studio: ControlStudio, out: Path) -> dict[str, float]:
    """The same prompts and seeds plain, with the ControlNet, with the LoRA; a sheet of each."""
    batch = test_scenes(PICTURES, with_thing=True)
    hints, rendered = hints_of(batch).movedim(1, -1), studio.round_trip(pixels_of(batch))
    plain = [studio.sample(scene, seed) for seed, scene in enumerate(batch)]
    steered = [studio.sample(scene, seed, hint) for seed, (scene, hint) in enumerate(zip(batch, hints))]
    styled = [studio.sample(scene, seed, lora=1.0) for seed, scene in enumerate(batch)]
    save([hints, rendered, plain, steered], out / "control.png")
    save([plain, styled], out / "lora.png")
    figures = {
        "IoU with the hint, rendered scenes": overlap(studio, rendered, batch),
        "IoU with the hint, control 0": overlap(studio, plain, batch),
        "IoU with the hint, control 1": overlap(studio, steered, batch),
        "border, lora 0": border(plain),
        "border, lora 1": border(styled),
        "thing %, plain": agreement(plain, batch),
        "thing %, control 1": agreement(steered, batch),
        "thing %, lora 1": agreement(styled, batch),
    }
    figures["IoU gained by control"] = (
        figures["IoU with the hint, control 1"] - figures["IoU with the hint, control 0"]
    )
    return figures


def border(pictures: Sequence[torch.Tensor]) -> float:
    """Mean brightness of the part that a frame covers."""
    covered = F.pad(torch.zeros(scenes.SIZE - 2 * FRAME, scenes.SIZE - 2 * FRAME), [FRAME] * 4, value=1.0) > 0
    return torch.stack(list(pictures))[:, covered].mean().item()


def save(rows: list[torch.Tensor], path: Path, across: int = 8) -> None:
    """A sheet: `rows` of pictures above each other, `across` of them side by side."""
    strips = [torch.cat(list(row[i : i + across]), 1) for i in range(0, len(rows[0]), across) for row in rows]
    Image.fromarray((torch.cat(strips) * 255).byte().numpy()).save(path)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench-output")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sys.argv = sys.argv[:1]  # the host reads it
    figures = measure(ControlStudio(open_studio()), options.out)
    missed = [name for name, least in REQUIRED.items() if figures[name] < least]
    for name, value in figures.items():
        wanted = f" (required {REQUIRED[name]:g})" if name in REQUIRED else ""
        print(f"{name}: {value:.3f}{wanted}{'  MISSED' if name in missed else ''}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
