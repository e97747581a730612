"""Train the embedded model's ControlNet from nothing: python -m devtools.demo.train_control --out DIR

The hint is the object's true mask, white on black. The base network stays as it is. Interrupted, it resumes
from DIR; the result is DIR/control.safetensors. README.md gives the cost.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from . import pack, scenes
from .network import ControlNet
from .train import Data, Frozen, Plan, Run, train_on_top

PLAN = Plan(steps=900, batch=16, rate=2e-3, seed=4)


def hints_of(batch: list[scenes.Scene]) -> Tensor:
    """[B, 3, H, W] in 0..1, the masks as pictures."""
    return torch.from_numpy(np.stack([s.mask for s in batch])).float()[:, None].expand(-1, 3, -1, -1) / 255


def train_control(run: Run, data: Data) -> None:
    frozen = Frozen(run.device)
    adapted = copy.deepcopy(frozen.unet)
    control = ControlNet(adapted)

    def loss_of(indices, generator):
        pictures, batch = data.pictures(indices)
        text, weights = frozen.text(batch, generator)
        hints = hints_of(batch).to(run.device)

        def predict(noisy, t):
            return frozen.unet(noisy, t, text, weights, control(adapted, hints, noisy, t, text, weights))

        return frozen.denoising.loss(frozen.latents(pictures), predict)

    run.train({"control": control}, data, loss_of, average=True)
    pack.write_half(run.work, "control")


if __name__ == "__main__":
    train_on_top("control", PLAN, train_control, __doc__)
