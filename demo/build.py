"""Expand the embedded model to a checkpoint the host's CheckpointLoaderSimple reads: python demo/build.py OUT.safetensors"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pack
import torch
from network import expand, expand_autoencoder
from safetensors import safe_open
from safetensors.torch import save_file
from words import ROWS

SD1_SCALE = 0.18215


def build_checkpoint(out: Path, weights: Path = pack.WEIGHTS) -> bool:
    """Write the SD1.5-format checkpoint of `weights` to `out`; False where `out` already is that checkpoint."""
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if out.exists() and _digest_of(out) == digest:
        return False
    networks, mean, std = pack.read(weights)
    state = expand(networks["unet"], "model.diffusion_model.")
    state |= networks["text"].expand(list(ROWS.values()), "cond_stage_model.transformer.text_model.")
    state |= expand_autoencoder(networks["encoder"], "first_stage_model.taesd_encoder.")
    state |= expand_autoencoder(networks["decoder"], "first_stage_model.taesd_decoder.")
    state = {key: (value.half() if value.is_floating_point() else value).contiguous() for key, value in state.items()}
    # the host: model latent = SD1_SCALE * (encoder output / vae_scale + vae_shift); wanted: (encoder output - mean) / std
    state["first_stage_model.vae_scale"] = torch.tensor(SD1_SCALE * std)
    state["first_stage_model.vae_shift"] = torch.tensor(-mean / (SD1_SCALE * std))
    partial = out.with_name(out.name + ".part")
    save_file(state, partial, {"weights": digest})
    os.replace(partial, out)
    return True


def _digest_of(checkpoint: Path) -> str | None:
    with safe_open(checkpoint, "pt") as file:
        return (file.metadata() or {}).get("weights")


if __name__ == "__main__":
    built = build_checkpoint(Path(sys.argv[1]))
    print(f"{sys.argv[1]}: {'built' if built else 'up to date'}")
