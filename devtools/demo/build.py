"""Expand the embedded model to files the host's loaders read.

python -m devtools.demo.build OUT.safetensors   the checkpoint, for CheckpointLoaderSimple

`build_control` makes a Control-LoRA for ControlNetLoader, `build_lora` a LoRA for LoraLoader.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from . import pack
from .network import LORA_RANK, ControlNet, UNet, expand, expand_autoencoder, expand_changes, lora_of
from .words import ROWS

SD1_SCALE = 0.18215
SD3_SCALE, SD3_SHIFT = 1.5305, 0.0609


def build_checkpoint(out: Path, weights: Path = pack.WEIGHTS) -> bool:
    """Write the SD1.5-format checkpoint of `weights` to `out`. False where it is there already."""
    return _build(out, weights, _checkpoint)


def build_control(out: Path, weights: Path = pack.CONTROL) -> bool:
    """The same for the ControlNet."""
    return _build(out, weights, _control)


def build_lora(out: Path, weights: Path = pack.LORA) -> bool:
    """The same for the LoRA."""
    return _build(out, weights, _lora)


def build_flow(out: Path, weights: Path = pack.FLOW) -> bool:
    """The same for the flow model's SD3-format checkpoint, with the shipped words of the other model."""
    return _build(out, weights, _flow_checkpoint)


def _checkpoint(weights: Path) -> dict[str, Tensor]:
    networks, mean, std = pack.read(weights)
    state = expand(networks["unet"], "model.diffusion_model.")
    state |= networks["text"].expand(list(ROWS.values()), "cond_stage_model.transformer.text_model.")
    state |= expand_autoencoder(networks["encoder"], "first_stage_model.taesd_encoder.")
    state |= expand_autoencoder(networks["decoder"], "first_stage_model.taesd_decoder.")
    state = _halves(state)
    # the host: model latent = SD1_SCALE * (encoder output / vae_scale + vae_shift); wanted: (encoder output -
    # mean) / std
    state["first_stage_model.vae_scale"] = torch.tensor(SD1_SCALE * std)
    state["first_stage_model.vae_shift"] = torch.tensor(-mean / (SD1_SCALE * std))
    return state


def _flow_checkpoint(weights: Path) -> dict[str, Tensor]:
    networks, mean, std = pack.read_flow(weights)
    text = pack.read()[0]["text"].expand(
        list(ROWS.values()), "text_encoders.clip_l.transformer.text_model.", normed=True
    )
    state = expand(networks["flow"], "model.diffusion_model.") | text
    state |= expand_autoencoder(networks["encoder"], "first_stage_model.taesd_encoder.")
    state |= expand_autoencoder(networks["decoder"], "first_stage_model.taesd_decoder.")
    state = _halves(state)
    # the host: model latent = SD3_SCALE * (encoder output / vae_scale + vae_shift - SD3_SHIFT)
    state["first_stage_model.vae_scale"] = torch.tensor(SD3_SCALE * std)
    state["first_stage_model.vae_shift"] = torch.tensor(SD3_SHIFT - mean / (SD3_SCALE * std))
    return state


def _control(weights: Path) -> dict[str, Tensor]:
    """The host takes the encoder itself from the loaded checkpoint."""
    unet = UNet()
    control = pack.read_half(weights, ControlNet(unet))
    state = expand(control, "")
    for name, (up, down) in expand_changes(unet, control.changes).items():
        state |= {f"{name}.up": up, f"{name}.down": down}
    return _halves(state) | {"lora_controlnet": torch.tensor([])}


def _lora(weights: Path) -> dict[str, Tensor]:
    unet = UNet()
    state = {}
    for name, (up, down) in expand_changes(unet, pack.read_half(weights, lora_of(unet))).items():
        key = f"lora_unet_{name.replace('.', '_')}"
        state |= {f"{key}.lora_up.weight": up, f"{key}.lora_down.weight": down}
        state[f"{key}.alpha"] = torch.tensor(float(LORA_RANK))
    return _halves(state)


def _halves(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in state.items()
    }


def _build(out: Path, weights: Path, expanded: Callable[[Path], dict[str, Tensor]]) -> bool:
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if out.exists() and _digest_of(out) == digest:
        return False
    partial = out.with_name(out.name + ".part")
    save_file(expanded(weights), partial, {"weights": digest})
    os.replace(partial, out)
    return True


def _digest_of(built: Path) -> str | None:
    with safe_open(built, "pt") as file:
        return (file.metadata() or {}).get("weights")


if __name__ == "__main__":
    built = build_checkpoint(Path(sys.argv[1]))
    print(f"{sys.argv[1]}: {'built' if built else 'up to date'}")
