"""Flux.1: the double blocks' maps are read; in the single blocks text and image have become one stream."""

from comfy.ldm.flux.model import Flux

from .joint import JointFamily


def _is_double(options: dict) -> bool:
    return options.get("block_type") != "single"


FLUX = JointFamily(Flux, _is_double)
