"""What holds the background: after each step the picture outside the edit returns to the source.

A hold mask is [B or 1, 1, H, W] in 0..1: 1 = held on the source's trajectory, 0 = free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .masks import tile_batch


@dataclass(frozen=True, eq=False)
class Hold:
    """Everything that holds the background in one edit.

    lock: the hold mask of the background lock, or None. edge: another one, which holds at most that much in
    each single step; for latent pixels that lie only partly in a hard mask. regions [B or 1, 1, H, W]: where
    other edits take place. A local blend holds nothing there.
    """

    lock: Tensor | None = None
    edge: Tensor | None = None
    regions: Tensor | None = None

    def apply(self, x: Tensor, source: Tensor, share: float, blends: Sequence[Tensor] = ()) -> Tensor:
        """x [V * B, C, H, W] after a step, held on `source` [B, C, H, W].

        `source` is the trajectory's point of the same noise level. share: the step's share of the sampling,
        see `step_share`. blends: the local blends' hold masks for this step.
        """
        held = tile_batch(source, len(x))
        for mask in self._masks(share, blends):
            x = x.lerp(held, tile_batch(mask.to(x), len(x)).expand_as(x))
        return x

    def _masks(self, share: float, blends: Sequence[Tensor]) -> list[Tensor]:
        locks = [] if self.lock is None else [for_one_step(self.lock, share)]
        if self.edge is not None:
            locks = [torch.minimum(lock, self.edge.to(lock)) for lock in locks]
        if self.regions is not None:
            blends = [_outside(blend, self.regions.to(blend)) for blend in blends]
        return [*locks, *blends]


def _outside(blend: Tensor, regions: Tensor) -> Tensor:
    """A local blend's hold mask without `regions`. One may have a row a variant, the other a row a
    picture.
    """
    rows = max(len(blend), len(regions))
    return torch.minimum(tile_batch(blend, rows), 1 - tile_batch(regions, rows))


NO_HOLD = Hold()


def step_share(left: int, steps: int) -> float:
    """The share of a step, after which `left` of `steps` steps are left, in what a soft hold mask holds back.

    The last step counts half, so that a change made in step k is held for steps k to N less half a step: the
    midpoint rule, which gives nearly the same result for any number of steps.
    """
    return (1.0 if left else 0.5) / steps


def for_one_step(mask: Tensor, share: float) -> Tensor:
    """The hold mask of one step, so that all steps together hold as much as `mask` says.

    Without this a soft value would compound: half held at each of 50 steps leaves nothing. 0 and 1 stay as
    they are.
    """
    return 1 - (1 - mask) ** share
