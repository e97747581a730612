"""Figures of an edit: how much of a picture changed, and where."""

from __future__ import annotations

import torch
from torch import Tensor


def psnr(a: Tensor, b: Tensor, weight: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB of each picture, [B, H, W, C] in 0..1; `weight` [B, H, W] picks the pixels.

    Infinite where the pictures are equal. Raises ValueError where the weight leaves no pixel.
    """
    error = (a - b).square().mean(-1)
    weight = torch.ones_like(error) if weight is None else weight.expand_as(error)
    total = weight.flatten(1).sum(1)
    if bool((total <= 0).any()):
        raise ValueError("psnr: the weight selects no pixel of at least one picture")
    return -10 * torch.log10((error * weight).flatten(1).sum(1) / total)


def background_psnr(source: Tensor, edited: Tensor, mask: Tensor) -> Tensor:
    """psnr over the pixels where `mask` [B, H, W] is 0: what had to stay."""
    return psnr(source, edited, (mask <= 0).to(source.dtype))


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of two boolean masks [B, H, W]; 1 where both are empty."""
    union = (a | b).flatten(1).sum(1)
    return torch.where(
        union > 0, (a & b).flatten(1).sum(1) / union.clamp(min=1), torch.ones_like(union, dtype=torch.float32)
    )
