"""The fresh noise of a step: candidates from a seed, the best of them, and its blend with the optimal noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class NoiseCandidates:
    """`count` candidates a step from one CPU generator, so a seed means the same noise on every device.

    Every picture of a batch chooses among the same candidates: picture i of a batch equals that picture alone.
    """

    def __init__(self, seed: int, count: int, shape: tuple[int, ...]):
        if count < 1:
            raise ValueError(f"noise_candidates = {count}: at least 1 is needed (the paper uses 10)")
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._shape = (count, 1, *shape)

    def draw(self) -> Tensor:
        """[count, 1, *shape], standard normal; one call a step, whether it is used or not, keeps steps comparable."""
        return torch.randn(self._shape, generator=self._generator)


def _per_picture(values: Tensor, picture: Tensor) -> Tensor:
    return values.view(-1, *([1] * (picture.ndim - 1)))


def closest(candidates: Tensor, target: Tensor, region: Tensor | None = None) -> Tensor:
    """For each picture the candidate of least mean squared distance to `target` (paper, eq. 12).

    candidates [n, 1, C, H, W], target [B, C, H, W], region broadcastable to target: weights of the mean.
    """
    weight = 1.0 if region is None else region
    # one candidate at a time: all at once would take n times the memory
    distances = [((noise - target).square() * weight).flatten(1).mean(-1) for noise in candidates.unbind()]
    return candidates[torch.stack(distances).argmin(0), 0]


def blend(noise: Tensor, optimal: Tensor, amount: float) -> Tensor:
    """sqrt(1 - l^2) noise + l optimal, the optimal noise scaled to unit variance in each picture."""
    if not 0.0 <= amount <= 1.0:
        raise ValueError(
            f"noise_blend = {amount}: it runs from 0 (the paper's noise) to 1 (the source's own)"
        )
    std = optimal.flatten(1).std(1).clamp(min=1e-12)
    return math.sqrt(1.0 - amount * amount) * noise + amount * optimal / _per_picture(std, optimal)
