"""Pictures for the pack's own widgets on the page, in the host's temp folder."""

from __future__ import annotations

import math
from uuid import uuid4

import torch
import torch.nn.functional as F
from comfy_api.latest import io, ui
from einops import rearrange
from torch import Tensor

LARGEST = 1024


def show(images: Tensor, largest: int = LARGEST) -> list[ui.SavedResult]:
    """References for the page's /view, one for each picture of [B, H, W, 3] in 0..1, at most `largest`
    pixels.
    """
    images = images[..., :3].float().cpu()
    scale = largest / max(images.shape[1:3])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in images.shape[1:3]]
        images = F.interpolate(images.movedim(-1, 1), size, mode="area").movedim(1, -1)
    rounded = images.expand(-1, -1, -1, 3) + 0.5 / 255  # the host cuts off
    return ui.ImageSaveHelper.save_images(
        rounded, f"eta_{uuid4().hex[:8]}", io.FolderType.temp, None, compress_level=1
    )


def show_holes(images: Tensor, mask: Tensor) -> list[ui.SavedResult]:
    """References as of `show`, in full size, transparent where the mask [B, H, W] is: what the host's mask
    editor reads.
    """
    rounded = torch.cat([images.float().cpu(), 1 - mask[..., None]], -1) + 0.5 / 255  # the host cuts off
    return ui.ImageSaveHelper.save_images(
        rounded, f"eta_{uuid4().hex[:8]}", io.FolderType.temp, None, compress_level=1
    )


def show_sheet(maps: Tensor) -> dict:
    """[N, h, w] in 0..1 as one picture, ceil(sqrt(N)) in a row: the page then asks once, not N times."""
    columns = math.ceil(math.sqrt(len(maps)))
    rows = math.ceil(len(maps) / columns)
    padded = F.pad(maps, (0, 0, 0, 0, 0, rows * columns - len(maps)))
    sheet = rearrange(padded, "(r c) h w -> 1 (r h) (c w) 1", r=rows)
    return {"sheet": show(sheet, max(sheet.shape[1:3]))[0], "columns": columns}
