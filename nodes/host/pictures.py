"""IMAGEs: as the host's VAE takes them, and held back from the nodes behind."""

from __future__ import annotations

from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from .messages import say

CROPPED = 16  # a VAE takes multiples of 8, some of 16


def as_encoded(picture: Tensor, size: tuple[int, int], node_id: str | None = None) -> Tensor:
    """The part of a picture [B, H, W, C] that went through the VAE, which leaves out what exceeds multiples of 8 around the middle.

    Raises ValueError where `size` is no such part.
    """
    given = tuple(picture.shape[1:3])
    over = [a - b for a, b in zip(given, size)]
    if not all(0 <= rest < CROPPED for rest in over):
        raise ValueError(
            f"source is {given[1]}x{given[0]} pixels, edited {size[1]}x{size[0]}: only pictures of one size can be measured against each "
            "other; resize one of the two, or encode the source itself"
        )
    if any(over):
        say(f"the source's {given[1]}x{given[0]} pixels were cropped to {size[1]}x{size[0]}, as the VAE does", node_id)
    top, left = (rest // 2 for rest in over)
    return picture[:, top : top + size[0], left : left + size[1]]


def blocked(message: str) -> ExecutionBlocker:
    """An output that keeps the nodes behind it from running; the page shows the message on them."""
    return ExecutionBlocker(message)
