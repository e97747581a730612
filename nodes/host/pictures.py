"""IMAGEs: as the host's VAE takes them, and held back from the nodes behind."""

from __future__ import annotations

from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ...eta_core.masks import tile_batch
from .messages import say

SCALES = (8, 16, 32)  # pixels per latent pixel, of one VAE or another
Size = tuple[int, int]  # height and width


def as_encoded(picture: Tensor, name: str, size: Size, node_id: str | None = None) -> Tensor:
    """The part of the picture `name` [B, H, W, C] that the VAE encoded: its middle, in multiples of the
    scale.

    Raises ValueError where `size` is no such part.
    """
    given = (picture.shape[1], picture.shape[2])
    if given == size:
        return picture
    if not is_encoded_part(size, given):
        raise ValueError(
            f"{name} is {given[1]}x{given[0]} pixels, the edited picture {size[1]}x{size[0]}: only pictures "
            "of one size can be compared with each "
            "other; resize one of the two"
        )
    say(
        f"{name}'s {given[1]}x{given[0]} pixels were cropped to {size[1]}x{size[0]}, as the VAE does", node_id
    )
    return middle(picture, size)


def is_encoded_part(size: Size, given: Size) -> bool:
    """Whether a VAE that gets a picture of `given` pixels encodes `size` of them."""
    return size in [tuple(side - side % scale for side in given) for scale in SCALES]


def middle(values: Tensor, size: Size) -> Tensor:
    """The middle of [B, H, W, ...], as the VAE cuts it out."""
    top, left = ((a - b) // 2 for a, b in zip(values.shape[1:3], size))
    return values[:, top : top + size[0], left : left + size[1]]


def beside(values: Tensor, count: int, name: str) -> Tensor:
    """Pictures or masks [n, ...] for `count` edited ones: one for all, one for each, or one for each source.

    Variants of several pictures lie p1 p2 p1 p2, as EtaSampler makes them. Raises ValueError for another n.
    """
    if not count:
        raise ValueError("there is no edited picture (a batch of 0): connect at least one")
    if not len(values) or count % len(values):
        raise ValueError(
            f"{name} has {len(values)} pictures, and there are {count} edited ones: give one, or one for "
            "each "
            "picture that was edited"
        )
    return values if len(values) == 1 else tile_batch(values, count)


def beside_edited(after: Tensor, picture: Tensor, name: str, node_id: str | None = None) -> Tensor:
    """The picture `name` for `after` [B, H, W, C]: one, or one for each of its batch, of its size and device.

    Raises ValueError as `beside` and `as_encoded` do.
    """
    size = (after.shape[1], after.shape[2])
    fitted = as_encoded(beside(picture, len(after), name), name, size, node_id)
    return fitted[..., :3].to(after.device)


def blocked(message: str | None) -> ExecutionBlocker:
    """An output that keeps the nodes behind it from running; the page shows the message on them, if any."""
    return ExecutionBlocker(message)
