"""An edited picture's file, with what the source's file carried."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngInfo

from .original import Original, copy_exif
from .xmp import packet

KINDS = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
LOSSLESS = 100
MOST_XMP = 65_502  # bytes of a JPEG segment


@dataclass(frozen=True)
class Written:
    """A picture file's bytes, and what the source's file carried that they do not."""

    content: bytes
    lost: tuple[str, ...]


def write(
    pixels: np.ndarray,
    kind: str,
    quality: int,
    prompt: str = "",
    original: Original | None = None,
    texts: Mapping[str, str] | None = None,
) -> Written:
    """A file of pixels [H, W, 3] uint8 as a `kind` of KINDS.

    quality: 1..100; PNG is always exact, WebP at 100, JPEG never. prompt: the instruction, where
    it is to be told. texts: of a PNG, such as the workflow.
    Raises ValueError where texts are given for another kind.
    """
    if texts and kind != "png":
        raise ValueError(
            f"format is {kind}, and only png holds the workflow: choose png, or switch workflow off"
        )
    lost = list(original.dropped) if original else []
    xmp, of_xmp = packet(original.xmp if original else None, prompt)
    if kind == "jpeg" and len(xmp) > MOST_XMP:
        xmp, of_xmp = packet(None, prompt)[0], "its XMP, too long for JPEG"
    if of_xmp:
        lost.append(of_xmp)
    picture = Image.fromarray(pixels)
    options: dict = {}
    if original is not None:
        if original.alpha is not None:
            if original.size != pixels.shape[:2]:
                lost.append(f"its transparency, of {_by(original.size)} pixels, not {_by(pixels.shape[:2])}")
            elif kind == "jpeg":
                lost.append("its transparency, which JPEG has not")
            else:
                picture.putalpha(Image.fromarray(original.alpha))
        options = _kept(original, pixels.shape[:2])
    stream = io.BytesIO()
    if kind == "png":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        for name, text in (texts or {}).items():
            info.add_text(name, text)
        picture.save(stream, "PNG", pnginfo=info, compress_level=4, **options)
    elif kind == "webp":
        if options.pop("dpi", None):
            lost.append("its density, which WebP has not")
        lossless = quality == LOSSLESS
        picture.save(stream, "WEBP", quality=quality, lossless=lossless, exact=lossless, xmp=xmp, **options)
    else:
        picture.save(stream, "JPEG", quality=quality, subsampling=0, xmp=xmp, **options)
    return Written(stream.getvalue(), tuple(lost))


def _kept(original: Original, size: tuple[int, int]) -> dict:
    """Pillow's options for what the source's file carried."""
    found: dict = {}
    if original.profile:
        found["icc_profile"] = original.profile
    if original.density:
        found["dpi"] = original.density
    if original.exif:
        exif = copy_exif(original.exif)
        inner = exif.get_ifd(IFD.Exif)
        for tag, side in ((Base.ExifImageWidth, size[1]), (Base.ExifImageHeight, size[0])):
            if tag in inner:
                inner[tag] = side
        found["exif"] = exif.tobytes()
    return found


def _by(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"
