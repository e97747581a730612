"""Qwen-Image, Z-Image with Lumina 2, and Krea 2: they differ from SD3 only in where their tokens stand."""

from .base import host_class
from .joint import JointFamily, in_order

QWEN_IMAGE = JointFamily(
    host_class("comfy.ldm.qwen_image.model", "QwenImageTransformer2DModel"),
    shows_references=True,
    blocks=("transformer_blocks",),
)
LUMINA = JointFamily(
    host_class("comfy.ldm.lumina.model", "NextDiT"), padded_to="pad_tokens_multiple", blocks=("layers",)
)
# Written from the host's published files, tested on calls of that shape, never run. Reference pictures stand
# among its text, and are refused.
QWEN_IMAGE_21 = JointFamily(
    host_class("comfy.ldm.qwen_image21.model", "QwenImage21Transformer2DModel"), patch="", prefix=True
)
KREA2 = JointFamily(
    host_class("comfy.ldm.krea2.model", "SingleStreamDiT"),
    in_order,
    patch="patch",
    shows_references=True,
    blocks=("blocks",),
)
