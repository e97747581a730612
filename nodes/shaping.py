"""From values at the latent's size to a MASK: what the nodes that find a region have in common."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ..eta_core import masks
from ..eta_core.refine import refine
from . import host


def grow_input() -> io.Int.Input:
    return io.Int.Input(
        "grow",
        default=0,
        min=-256,
        max=256,
        tooltip="Pixels to grow the region by; negative shrinks, 0 = neutral (paper).",
    )


def blur_input() -> io.Float.Input:
    return io.Float.Input(
        "blur",
        default=0.0,
        min=0.0,
        max=128.0,
        step=0.5,
        tooltip="Softness of the edge in pixels; 0 = neutral (paper).",
    )


def mask_inputs(name: str, of: str) -> list[io.Input]:
    """A mask of the user's own, put together with the region `name`, or `of` in the possessive."""
    return [
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip=f"Your own mask, put together with the {of} region as `combine` says.",
        ),
        io.Combo.Input(
            "combine",
            options=list(masks.COMBINE),
            default="intersect",
            optional=True,
            tooltip=(
                f"intersect: only inside both. union: either. subtract: {name} without your mask. "
                "multiply: soft intersection. "
                "replace: your mask alone. Read only when a mask is connected."
            ),
        ),
    ]


def picture_for(image: Tensor | None, batch: int, size: tuple[int, int]) -> Tensor | None:
    """The node's `image`, cut as the VAE cut it. ValueError for another number of pictures."""
    if image is None:
        return None
    if len(image) not in (1, batch):
        raise ValueError(f"image has {len(image)} pictures, the inversion {batch}: give one, or one for each")
    return host.middle(image, size) if host.is_encoded_part(size, (image.shape[1], image.shape[2])) else image


def refined(maps: Tensor, image: Tensor | None, size: tuple[int, int]) -> Tensor:
    """Maps [B, n, h, w] at the picture's size, their edges on those of `image`, as `picture_for` gave it."""
    if image is None:
        raise ValueError(
            "refine is on but `image` is not connected: connect the picture that was inverted, or switch "
            "refine off"
        )
    given = (image.shape[1], image.shape[2])
    if given != size:
        raise ValueError(
            f"image is {given[1]}x{given[0]} pixels, the inverted picture {size[1]}x{size[0]}: edges are "
            "followed in a picture of that size alone; connect the one that was inverted, or none (switch "
            "refine off)"
        )
    return refine(maps, image[..., :3])


def shaped(
    region: Tensor, size: tuple[int, int], hard: bool, grow: int, blur: float, invert: bool = False
) -> Tensor:
    """A region [B, h, w] as a mask [B, *size]; Cancel is heard after each picture."""
    region = masks.enlarge(region, size, hard=hard)
    each = (masks.blur(masks.dilate(region[i : i + 1], grow), blur) for i in host.counted(len(region)))
    mask = torch.cat(list(each))
    return 1 - mask if invert else mask


def with_own(region: Tensor, own: Tensor | None, how: str, node_id: str | None) -> Tensor:
    """A region put together with the user's own mask, already fitted. An empty result is warned of."""
    combined = region if own is None else masks.combine(region, own, how)
    if not bool(combined.flatten(1).any(1).all()):
        host.warn("the mask is empty after grow, invert and combine: nothing will be edited", node_id)
    return combined
