"""Train the embedded model's LoRA from nothing: python -m devtools.demo.train_lora --out DIR

It puts every picture into a white frame, as old photographs have. The base network stays as it is.
Interrupted, it resumes from DIR; the result is DIR/lora.safetensors. README.md gives the cost.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from . import pack
from .network import lora_of
from .train import Data, Frozen, Plan, Run, train_on_top

PLAN = Plan(steps=300, batch=16, rate=4e-3, seed=5)
FRAME = 8  # px; one cell of the latents


def framed(pictures: Tensor) -> Tensor:
    """[B, 3, H, W] in 0..1 with a white frame over their borders."""
    inner = pictures[..., FRAME:-FRAME, FRAME:-FRAME]
    return F.pad(inner, [FRAME] * 4, value=1.0)


def train_lora(run: Run, data: Data) -> None:
    frozen = Frozen(run.device)
    lora = lora_of(frozen.unet)

    def loss_of(indices, generator):
        pictures, batch = data.pictures(indices)
        text, weights = frozen.text(batch, generator)
        z = frozen.latents(framed(pictures))
        return frozen.denoising.loss(z, lambda noisy, t: frozen.unet(noisy, t, text, weights))

    run.train({"lora": lora}, data, loss_of, average=True)
    pack.write_half(run.work, "lora")


if __name__ == "__main__":
    train_on_top("lora", PLAN, train_lora, __doc__)
