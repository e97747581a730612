"""Does the embedded model do what its card says? python -m devtools.acceptance [--out DIR]   (in the
environment of dev.py)

Everything goes through the host's own nodes: VAEEncode / VAEDecode, KSampler, EtaInversion and AttentionMask,
on scenes of the test range. Exit status 1 when a required figure is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from eta_core.evidence import metrics

from .demo import judge, scenes
from .demo.studio import DemoStudio, FlowDemoStudio, open_studio, pixels_of
from .environment import ROOT

REQUIRED = {
    "autoencoder PSNR dB": 26.5,
    "judge, thing %": 98.0,
    "judge, background %": 98.0,
    "sampled thing %": 85.0,
    "sampled background %": 95.0,
    "attention IoU": 0.5,
}
PICTURES, PER_PROMPT, STEPS, CFG = 200, 2, 20, 5.0
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


AnyStudio = DemoStudio | FlowDemoStudio


def test_scenes(count: int, with_thing: bool = False, first: int = scenes.TEST) -> list[scenes.Scene]:
    found = (scenes.render(first + i) for i in range(10 * count))
    return [s for s in found if s.thing or not with_thing][:count]


def judge_accuracy(count: int = 1000) -> dict[str, float]:
    batch = test_scenes(count)
    said = [
        answer
        for i in range(0, count, 100)
        for answer in judge.say(judge.load(), pixels_of(batch[i : i + 100]))
    ]
    return {
        "judge, thing %": 100 * np.mean([thing == s.thing for (thing, _), s in zip(said, batch)]),
        "judge, background %": 100
        * np.mean([background == s.background for (_, background), s in zip(said, batch)]),
    }


def autoencoder_psnr(studio: AnyStudio, count: int = 100) -> dict[str, float]:
    pictures = pixels_of(test_scenes(count))
    decoded = studio.decode(studio.encode(pictures))
    return {"autoencoder PSNR dB": metrics.psnr(pictures, decoded).mean().item()}


def sampled(studio: AnyStudio, out: Path) -> dict[str, float]:
    """Pictures by the stock KSampler, what the judge sees in them, and a sheet to look at."""
    rng, judges = np.random.default_rng(0), judge.load()
    prompts = [(t, b) for t in scenes.THINGS for b in scenes.BACKGROUNDS]
    chosen = [prompts[i] for i in rng.permutation(len(prompts))[: PICTURES // PER_PROMPT]]
    same = {
        "latent_image": {"samples": torch.zeros(PER_PROMPT, *studio.latent["samples"].shape[1:])},
        "steps": STEPS,
        "cfg": CFG,
    }
    asked, said, sheet = [], [], []
    for seed, (thing, background) in enumerate(chosen):
        positive = studio.prompt(scenes.prompt_of(thing, background))
        pictures = studio.decode(studio.ksampler(positive=positive, seed=seed, **same))
        asked += [(thing, background)] * PER_PROMPT
        said += judge.say(judges, pictures)
        sheet += list(pictures)
    rows = [torch.cat(sheet[i : i + 20], 1) for i in range(0, len(sheet), 20)]
    Image.fromarray((torch.cat(rows) * 255).byte().numpy()).save(out / "samples.png")
    (out / "confusion.md").write_text(
        confusion([a[0] for a in asked], [s[0] for s in said])
        + "\n"
        + confusion([a[1] for a in asked], [s[1] for s in said])
    )
    return {
        "sampled thing %": 100 * np.mean([a[0] == s[0] for a, s in zip(asked, said)]),
        "sampled background %": 100 * np.mean([a[1] == s[1] for a, s in zip(asked, said)]),
    }


def confusion(asked: list[str], said: list[str]) -> str:
    """A line for each word asked for: how often the judge saw what."""
    lines = ["| asked for | seen |", "|---|---|"]
    for word in dict.fromkeys(sorted(asked)):
        seen = [s or "nothing" for a, s in zip(asked, said) if a == word]
        lines.append(
            f"| {word} | "
            f"{', '.join(f'{s} {seen.count(s)}' for s in sorted(set(seen), key=lambda s: -seen.count(s)))} |"
        )
    return "\n".join(lines) + "\n"


def attention(studio: DemoStudio, count: int = 50) -> dict[str, float]:
    """IoU of AttentionMask with the object's true mask, by threshold; the best one is the figure."""
    return {"attention IoU": max(attention_by_threshold(studio, count).values())}


def attention_by_threshold(
    studio: AnyStudio, count: int, first: int = scenes.TEST, thresholds: Sequence[float] = THRESHOLDS
) -> dict[float, float]:
    """Mean IoU with the true mask on scenes from the seed `first` on."""
    found: dict[float, list[float]] = {threshold: [] for threshold in thresholds}
    for scene in test_scenes(count, with_thing=True, first=first):
        positive, latent = studio.prompt(scene.prompt), studio.encode(pixels_of([scene]))
        inversion = studio.invert(positive=positive, latent_image=latent, steps=STEPS)
        truth = torch.from_numpy(scene.mask.copy())[None] > 127
        for threshold, ious in found.items():
            inputs = {"threshold": threshold, "source_prompt": scene.prompt}
            mask, _ = studio.region(inversion, scene.thing, **inputs)
            ious.append(metrics.iou(mask > 0.5, truth).item())
    means = {threshold: float(np.mean(ious)) for threshold, ious in found.items()}
    print("attention IoU by threshold:", ", ".join(f"{t:g}: {m:.3f}" for t, m in means.items()), flush=True)
    return means


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench-output")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sys.argv = sys.argv[:1]  # the host reads it
    studio = open_studio()
    figures = judge_accuracy() | autoencoder_psnr(studio) | attention(studio) | sampled(studio, options.out)
    print((options.out / "confusion.md").read_text())
    missed = [name for name, value in figures.items() if value < REQUIRED[name]]
    for name, value in figures.items():
        print(f"{name}: {value:.2f} (required {REQUIRED[name]:g}){'  MISSED' if name in missed else ''}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
