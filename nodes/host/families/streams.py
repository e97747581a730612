"""Families that differ from SD3 only in where their tokens stand."""

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
KREA2 = JointFamily(
    host_class("comfy.ldm.krea2.model", "SingleStreamDiT"),
    in_order,
    patch="patch",
    shows_references=True,
    blocks=("blocks",),
)

# Hosts newer than those at hand. Qwen-Image 2.1 and Ming-Image are written from the host's published files;
# of the others only the order of the sequence is known, and their classes' names are taken from the family's.
QWEN_IMAGE_21 = JointFamily("qwenimage21transformer", patch="", prefix=True)
FLUX_3_KLEIN = JointFamily("flux3", text_first=False, patch="", shows_references=True)
MOSS_IMAGE = JointFamily("mossimage", text_first=False, patch="")
MING_IMAGE = JointFamily("mingimage", padded_to="pad_tokens_multiple", shows_references=True)
