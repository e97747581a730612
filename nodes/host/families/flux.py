"""Flux.1 with Kontext, Flux.2, LongCat and Chroma.

The double blocks' maps are read; in the single blocks text and image have become one stream.
"""

from comfy.ldm.chroma.model import Chroma
from comfy.ldm.flux.model import Flux

from .base import host_class
from .joint import JointFamily

FLUX2 = host_class("comfy.model_base", "Flux2")


def _is_double(options: dict) -> bool:
    return options.get("block_type") != "single"


def _least_text(model) -> int:
    """The host pads the prompts of Flux.2 to 512 rows, before them."""
    return 512 if FLUX2 is not None and isinstance(model.model, FLUX2) else 0


_BLOCKS = ("double_blocks", "single_blocks")
FLUX = JointFamily(
    Flux,
    _is_double,
    shows_references=True,
    least_text=_least_text,
    blocks=_BLOCKS,
)
CHROMA = JointFamily(Chroma, _is_double, blocks=_BLOCKS)
