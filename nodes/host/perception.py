"""What networks see in a picture: the host's CLIP and CLIP_VISION, and weights from model folders.

Nothing is downloaded.
"""

from __future__ import annotations

import os
from typing import Any

import comfy.utils
import folder_paths
import torch
from torch import Tensor

WEIGHTS = {"lpips": ("squeezenet1_1-b8a52dc0.pth", "squeeze.pth"), "dino": ("dino_vitbase8_pretrain.pth",)}


def weights_of(kind: str) -> list[dict[str, Tensor]]:
    """The files of WEIGHTS from the host's model folder of that name.

    FileNotFoundError says where missing files belong, ValueError which one is broken.
    """
    paths = _paths(kind)
    there = [path for path in paths.values() if path is not None]
    if len(there) < len(paths):
        missing = (name for name, path in paths.items() if path is None)
        raise FileNotFoundError(f"put {' and '.join(missing)} into models/{kind}")
    return [_load(path) for path in there]


def weights_there() -> list[str | None]:
    """Where the files of WEIGHTS are now."""
    return [path for kind in WEIGHTS for path in _paths(kind).values()]


def _paths(kind: str) -> dict[str, str | None]:
    folder_paths.add_model_folder_path(kind, os.path.join(folder_paths.models_dir, kind))
    return {name: folder_paths.get_full_path(kind, name) for name in WEIGHTS[kind]}


def _load(path: str) -> dict[str, Tensor]:
    try:
        found: Any = comfy.utils.load_torch_file(path, safe_load=True)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read ({error}): get it once more, or take it out of the folder"
        ) from error
    return {name: tensor.float() for name, tensor in found.items() if torch.is_tensor(tensor)}


def image_embeddings(clip_vision, pictures: Tensor) -> Tensor:
    """A CLIP_VISION's embeddings of pictures [B, H, W, 3], one at a time -> [B, width]."""
    if not isinstance(getattr(clip_vision.model, "visual_projection", None), torch.nn.Module):
        raise ValueError(
            f"clip_vision is a {type(clip_vision.model).__name__} without a projection to text: load the "
            "vision half of a CLIP, "
            "such as CLIP-ViT-L"
        )
    seen = [clip_vision.encode_image(pictures[i : i + 1])["image_embeds"] for i in range(len(pictures))]
    return torch.cat(seen).float().cpu()


def text_embedding(clip, text: str, width: int) -> Tensor:
    """A text's embedding [1, width], by the encoder of the CLIP that has this width.

    Raises ValueError where the CLIP has no such encoder, or has it without its projection, as in SD1's
    checkpoints.
    """
    encoders = {
        name: part.transformer.text_projection.weight
        for name, part in clip.cond_stage_model.named_children()
        if hasattr(getattr(part, "transformer", None), "text_projection")
    }
    name = next((name for name, projection in encoders.items() if len(projection) == width), None)
    if name is None:
        widths = ", ".join(f"{name} {len(projection)}" for name, projection in encoders.items()) or "none"
        raise ValueError(
            f"clip_vision gives embeddings of width {width}, the CLIP's text encoders: {widths}; load the "
            "two halves of one CLIP, such as "
            "clip_l (768) with CLIP-ViT-L"
        )
    spread = float(encoders[name].float().square().mean().sqrt())
    if not 1e-3 < spread < 1:
        raise ValueError(
            f"the CLIP's {name} has no text projection (its values are about {spread:.0e}): checkpoints of "
            "SD1 are saved without; load a "
            f"file that has it with CLIPLoader, such as {name}.safetensors"
        )
    encoder = getattr(clip.cond_stage_model, name)
    clip.cond_stage_model.reset_clip_options()
    # newer hosts run an encoder where it lies unless they are told its device
    encoder.set_clip_options({"projected_pooled": True, "execution_device": clip.patcher.load_device})
    try:
        clip.load_model()
        return (
            encoder.encode_token_weights(clip.tokenize(text)[name.removeprefix("clip_")])[1][:1].float().cpu()
        )
    finally:
        clip.cond_stage_model.reset_clip_options()
