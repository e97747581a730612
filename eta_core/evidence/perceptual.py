"""The two networks that published tables of edits measure with, built from their authors' weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]

TAPS = (1, 4, 7, 9, 10, 11, 12)  # SqueezeNet 1.1's layers that LPIPS compares
POOLS = (2, 5, 8)
DINO_SIZE, PATCH, HEADS, LAYERS = 224, 8, 12, 12


def lpips(a: Tensor, b: Tensor, backbone: Weights, heads: Weights) -> Tensor:
    """LPIPS 0.1 with SqueezeNet (Zhang et al. 2018), as PIE-Bench uses it: [B, H, W, 3] in 0..1 -> [B]; 0 =
    equal.

    backbone: torchvision's SqueezeNet 1.1. heads: the seven weightings of the LPIPS authors. Raises
    ValueError for other weights.
    """
    try:
        return _lpips(a, b, backbone, heads)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"these are not the weights of LPIPS with SqueezeNet 1.1: {error}") from error


def _lpips(a: Tensor, b: Tensor, backbone: Weights, heads: Weights) -> Tensor:
    total = torch.zeros(len(a))
    for i, (x, y) in enumerate(zip(*(_squeezenet(picture, backbone) for picture in (a, b)))):
        x, y = (F.normalize(features, dim=1, eps=1e-10) for features in (x, y))
        total = total + F.conv2d((x - y).square(), heads[f"lin{i}.model.1.weight"]).mean((1, 2, 3)).cpu()
    return total


def _squeezenet(picture: Tensor, weights: Weights) -> list[Tensor]:
    """The features after the layers of TAPS, each [B, C, h, w]."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x = ((2 * picture - 1 - shift.to(picture)) / scale.to(picture)).movedim(-1, 1)

    def convolve(x: Tensor, name: str, **how) -> Tensor:
        return F.conv2d(x, weights[f"features.{name}.weight"], weights[f"features.{name}.bias"], **how).relu()

    found = []
    for layer in range(1, TAPS[-1] + 1):
        if layer in POOLS:
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        elif layer == 1:
            x = convolve(x, "0", stride=2)
        else:
            x = convolve(x, f"{layer}.squeeze")
            x = torch.cat(
                (convolve(x, f"{layer}.expand1x1"), convolve(x, f"{layer}.expand3x3", padding=1)), 1
            )
        if layer in TAPS:
            found.append(x)
    return found


def dino_keys(picture: Tensor, weights: Weights) -> Tensor:
    """The keys of DINO ViT-B/8's last layer (Caron et al. 2021): [B, H, W, 3] in 0..1 -> [B, 785, 768].

    The class token comes first. Features for metrics.structure_distance. The picture is resized to 224 x 224,
    whatever its shape. Raises ValueError for other weights.
    """
    try:
        return _keys(picture, weights)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"these are not the weights of DINO ViT-B/8: {error}") from error


def _keys(picture: Tensor, weights: Weights) -> Tensor:
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)

    small = F.interpolate(picture.movedim(-1, 1), (DINO_SIZE,) * 2, mode="bilinear", antialias=True).movedim(
        1, -1
    )
    x = ((small - mean.to(small)) / deviation.to(small)).movedim(-1, 1)
    patches = F.conv2d(x, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=PATCH)
    x = (
        torch.cat((weights["cls_token"].expand(len(x), -1, -1), patches.flatten(2).mT), 1)
        + weights["pos_embed"]
    )

    def projected(x: Tensor, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        qkv = linear(norm(x, f"blocks.{layer}.norm1"), f"blocks.{layer}.attn.qkv")
        q, k, v = qkv.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    for i in range(LAYERS - 1):
        q, k, v = projected(x, i)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + linear(seen, f"blocks.{i}.attn.proj")
        hidden = F.gelu(linear(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1"))
        x = x + linear(hidden, f"blocks.{i}.mlp.fc2")
    _, keys, _ = projected(x, LAYERS - 1)
    return keys.transpose(1, 2).flatten(2)


def clip_similarity(image: Tensor, text: Tensor) -> Tensor:
    """100 times the cosine of a picture's and a text's embeddings [..., width] (CLIPScore, Hessel et al.
    2021).
    """
    return 100 * F.cosine_similarity(image, text, dim=-1)


def clip_directional(source: Tensor, edited: Tensor, source_text: Tensor, target_text: Tensor) -> Tensor:
    """The cosine of the picture's change with the prompt's change, -1..1 (Gal et al. 2022, StyleGAN-NADA).

    nan where either did not change.
    """
    picture, text = edited - source, target_text - source_text
    lengths = picture.norm(dim=-1) * text.norm(dim=-1)
    return torch.where(lengths > 0, (picture * text).sum(-1) / lengths.clamp(min=1e-12), torch.nan)
