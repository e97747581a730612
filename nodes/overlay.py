"""The heatmap: attention drawn over the picture so that a person can read it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Dark blue, violet, orange, yellow, white: rises in brightness, so it also reads without colour.
RAMP = torch.tensor(
    [[0.05, 0.03, 0.30], [0.50, 0.05, 0.60], [0.93, 0.35, 0.25], [0.99, 0.80, 0.20], [1.0, 1.0, 0.85]]
)


def colours(values: Tensor) -> Tensor:
    """Values in 0..1 of any shape as RGB on a last axis, linear between the colours of RAMP."""
    place = values.clamp(0, 1) * (len(RAMP) - 1)
    low = place.floor().long().clamp(max=len(RAMP) - 2)
    return torch.lerp(RAMP[low], RAMP[low + 1], (place - low)[..., None])


def heatmap(soft: Tensor, region: Tensor, image: Tensor | None) -> Tensor:
    """[B, H, W, 3]: the grey picture under the attention `soft`, with `region`'s edge in white; both
    [B, H, W].
    """
    ground = torch.full((*soft.shape, 1), 0.4) if image is None else _grey(image, soft)
    drawn = torch.lerp(ground.expand(*soft.shape, 3), colours(soft), 0.15 + 0.6 * soft[..., None])
    return torch.where(_edge(region)[..., None], torch.ones(3), drawn)


def _grey(image: Tensor, like: Tensor) -> Tensor:
    """The picture's brightness at the size of `like`, [B, H, W, 1]."""
    image = image.float().cpu()
    weights = torch.tensor([0.299, 0.587, 0.114]) if image.shape[-1] >= 3 else torch.tensor([1.0])
    grey = (image[..., : len(weights)] @ weights)[:, None]
    return (
        F.interpolate(grey, like.shape[-2:], mode="bilinear")
        .clamp(0, 1)
        .movedim(1, -1)
        .expand(len(like), -1, -1, -1)
    )


def _edge(region: Tensor) -> Tensor:
    """The outline of region > 0.5, one pixel in every 256 of the shorter side."""
    inside = (region > 0.5).float()[:, None]
    width = max(1, round(min(region.shape[-2:]) / 256))
    inner = -F.max_pool2d(-inside, 2 * width + 1, stride=1, padding=width)
    return ((inside - inner) > 0)[:, 0]
