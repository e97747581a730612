"""SAM3 for the toy scenes: the host's own loader, text encoder and node, and a network that knows the answer.

It stands where the true file stands, on hosts that have SAM3. It sees the cat of `prepare.CAT`, whatever it
is asked for.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from ..templates.files import SAM
from . import scenes

WIDTH = 64  # of its text encoder
TEXT = "detector.backbone.language_backbone.sam3_clip.transformer."
MARKS = (  # by which the host knows SAM 3.1
    "detector.backbone.vision_backbone.trunk.blocks.0.attn.qkv.weight",
    "detector.backbone.vision_backbone.propagation_convs.0.conv_1x1.weight",
    "detector.transformer.decoder.query_embed.weight",
    "tracker.model.mark",
)


def host_has_sam() -> bool:
    return find_spec("comfy.ldm.sam3") is not None


def plant(models: Path, scene: tuple[int, str, str]) -> None:
    """Put the file into a host's folder of models, and the network into the host. scene: as for render."""
    detector, encoder = (
        import_module(f"comfy.{name}") for name in ("ldm.sam3.detector", "text_encoders.sam3_clip")
    )
    small = dict(hidden_size=WIDTH, intermediate_size=WIDTH, num_attention_heads=1, num_hidden_layers=1)
    encoder.SAM3_CLIP_CONFIG.update(small, projection_dim=WIDTH)
    thing = torch.from_numpy(scenes.render(*scene).mask.copy()).float() / 255

    class Knowing(detector.SAM3Model):
        def __init__(self, device=None, dtype=None, operations=None, **config):
            torch.nn.Module.__init__(self)
            self.dtype = dtype

        def forward(self, images, orig_size, **asked):
            mask = F.interpolate(2 * thing.to(images)[None, None] - 1, orig_size, mode="bilinear")
            rows, columns = (mask[0, 0] > 0).nonzero().float().aminmax(dim=0)
            box = torch.stack([rows[1], rows[0], columns[1], columns[0]])
            return {"boxes": box[None, None], "scores": images.new_full((1, 1), 4.0), "masks": mask}

        def forward_segment(self, images, mask_inputs):
            return F.interpolate(mask_inputs, images.shape[-2:], mode="bilinear")

    detector.SAM3Model = Knowing
    text = encoder.SAM3ClipModel(dtype=torch.float32).transformer.state_dict()
    state = {name: torch.zeros(1) for name in MARKS}
    state |= {TEXT + name: torch.full_like(value, 0.01).contiguous() for name, value in text.items()}
    path = models / SAM["directory"] / SAM["name"]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
