"""The judge: a small classifier of scenes, trained on rendered ones, that says what a picture shows."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from . import scenes

NOTHING = ""
THINGS = (NOTHING, *scenes.THINGS)


class Judge(nn.Module):
    """Picture [B, 3, 128, 128] in 0..1 -> scores of THINGS and of scenes.BACKGROUNDS."""

    def __init__(self, width: int = 24):
        super().__init__()
        layers, channels = [], 3
        for out in (width, 2 * width, 3 * width, 4 * width):
            layers += [nn.Conv2d(channels, out, 3, 2, 1), nn.GroupNorm(8, out), nn.SiLU()]
            channels = out
        self.body = nn.Sequential(
            *layers, nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(8, channels), nn.SiLU()
        )
        self.thing = nn.Linear(2 * channels, len(THINGS))
        self.background = nn.Linear(2 * channels, len(scenes.BACKGROUNDS))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(2 * x - 1).flatten(2)
        pooled = torch.cat([features.mean(-1), features.amax(-1)], -1)
        return self.thing(pooled), self.background(pooled)


def labels_of(batch: list[scenes.Scene]) -> tuple[Tensor, Tensor]:
    return torch.tensor([THINGS.index(s.thing) for s in batch]), torch.tensor(
        [scenes.BACKGROUNDS.index(s.background) for s in batch]
    )


def load() -> Judge:
    from safetensors.torch import load_file

    judge = Judge()
    judge.load_state_dict(
        {k: v.float() for k, v in load_file(Path(__file__).parent / "judge.safetensors").items()}
    )
    return judge.eval()


@torch.no_grad()
def say(judge: Judge, pictures: Tensor) -> list[tuple[str, str]]:
    """What pictures [B, H, W, 3] in 0..1, as the host has them, show: (thing, background) each."""
    thing, background = judge(pictures[..., :3].movedim(-1, 1).float())
    return [
        (THINGS[t], scenes.BACKGROUNDS[b])
        for t, b in zip(thing.argmax(1).tolist(), background.argmax(1).tolist())
    ]
