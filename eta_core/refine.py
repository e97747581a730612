"""Coarse maps whose edges follow a picture's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GRID = 128  # the shorter side of the grid on which maps and picture are compared
RADIUS = 16  # of the windows on that grid
EPSILON = 1e-3  # a window whose colours vary less than this has no edge to follow


def refine(maps: Tensor, picture: Tensor) -> Tensor:
    """Maps [B, n, h, w] in 0..1 at the size of `picture` [1 or B, H, W, C] in 0..1: [B, n, H, W] in 0..1.

    The guided filter (He, Sun and Tang 2013): in each window a map is the linear function of the picture's
    colours that fits it best. That function is found on a coarse grid and taken at every pixel (He and Sun
    2015, arXiv 1505.00996), so that the cost does not grow with the window.
    """
    guide = picture.to(maps).movedim(-1, 1).expand(len(maps), -1, -1, -1)
    size = guide.shape[-2:]
    scale = min(1.0, GRID / min(size))
    grid = [max(1, round(side * scale)) for side in size]
    small = F.interpolate(guide, grid, mode="area")
    slope, offset = _fit(F.interpolate(maps, grid, mode="bilinear"), small)
    slope = F.interpolate(slope.flatten(1, 2), size, mode="bilinear").unflatten(1, slope.shape[1:3])
    offset = F.interpolate(offset, size, mode="bilinear")
    return (torch.einsum("bcnhw,bchw->bnhw", slope, guide) + offset).clamp(0, 1)


def _fit(maps: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
    """slope [B, C, n, h, w] and offset [B, n, h, w] of maps [B, n, h, w] over colours [B, C, h, w]."""
    maps_mean, guide_mean = _mean(maps), _mean(guide)
    shared = _covariance(guide, maps, guide_mean, maps_mean)
    own = _covariance(guide, guide, guide_mean, guide_mean).permute(0, 3, 4, 1, 2)
    own = own + EPSILON * torch.eye(guide.shape[1]).to(own)
    slope = torch.linalg.solve(own, shared.permute(0, 3, 4, 1, 2)).permute(0, 3, 4, 1, 2)
    offset = maps_mean - torch.einsum("bcnhw,bchw->bnhw", slope, guide_mean)
    return _mean(slope.flatten(1, 2)).unflatten(1, slope.shape[1:3]), _mean(offset)


def _covariance(a: Tensor, b: Tensor, a_mean: Tensor, b_mean: Tensor) -> Tensor:
    """[B, c, d, h, w] over the window of each pixel, of a [B, c, h, w] with b [B, d, h, w]."""
    product = torch.einsum("bchw,bdhw->bcdhw", a, b)
    mean = _mean(product.flatten(1, 2)).unflatten(1, product.shape[1:3])
    return mean - torch.einsum("bchw,bdhw->bcdhw", a_mean, b_mean)


def _mean(values: Tensor) -> Tensor:
    """The mean over each pixel's window [B, k, h, w]; edges repeat the border."""
    width = 2 * RADIUS + 1
    padded = F.pad(values, (RADIUS, RADIUS, RADIUS, RADIUS), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(padded, (width, 1), 1), (1, width), 1)
