"""Model families: one adapter each, and the row in FAMILIES that makes it known.

An adapter knows how a family's network attends to the words of a prompt. Nothing outside this folder knows a
network's layout. A model of no family here can be inverted and edited too, with a mask of the user's own.
"""

from __future__ import annotations

from collections.abc import Callable

from .base import MapSink, WordReader
from .cross import ANIMA, FIBO_2, WAN
from .flux import CHROMA, FLUX
from .sd3 import SD3
from .steered import SteeredTransformer
from .streams import FLUX_3_KLEIN, KREA2, LUMINA, MING_IMAGE, MOSS_IMAGE, QWEN_IMAGE, QWEN_IMAGE_21
from .unet import UNet, unet_of

Size = tuple[int, int]  # height and width of the latent
# The newest first: a host may build them on others' classes.
_NEWEST = (QWEN_IMAGE_21, FLUX_3_KLEIN, MOSS_IMAGE, MING_IMAGE, FIBO_2)
_TRANSFORMERS = (*_NEWEST, SD3, FLUX, CHROMA, QWEN_IMAGE, LUMINA, KREA2, ANIMA, WAN)
FAMILIES: tuple[Callable[[object, Size], WordReader | None], ...] = (
    unet_of,
    *(family.reader_of for family in _TRANSFORMERS),
)

__all__ = [
    "FAMILIES",
    "MapSink",
    "SteeredTransformer",
    "UNet",
    "WordReader",
    "steered_network",
    "word_reader",
]


def steered_network(model, size: Size) -> UNet | SteeredTransformer | None:
    """What editing methods steer in a MODEL; None for a family that they do not know."""
    unet = unet_of(model, size)
    if unet is not None:
        return unet
    family = next((each for each in _TRANSFORMERS if each.reader_of(model, size) is not None), None)
    return None if family is None else family.steered_of(model, size)


def word_reader(model, size: Size) -> WordReader | None:
    """The adapter that reads the words' attention, for latents of `size`; None for an unknown family."""
    found = (reader_of(model, size) for reader_of in FAMILIES)
    return next((reader for reader in found if reader is not None), None)
