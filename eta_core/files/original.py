"""The source photograph's file: what it carries beside the colours that an editor sees."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL.ExifTags import IFD, Base

MOST_BYTES = 1 << 30
MOST_PIXELS = 400_000_000
MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "TIFF": "image/tiff"}
BITS_PER_SAMPLE = 258  # of TIFF


@dataclass(frozen=True, eq=False)
class Original:
    """A photograph's file, upright.

    size: (height, width). profile: its ICC profile for RGB. density: pixels per inch, across and down.
    exif: its EXIF with the orientation set to 1 and without the small preview, which shows the source. xmp:
    its XMP packet. alpha [H, W] uint8: None where all of it is opaque. dropped: what it carries that an 8-bit
    RGB file cannot.
    """

    name: str
    content: bytes = field(repr=False)
    mime: str
    size: tuple[int, int]
    profile: bytes | None = None
    density: tuple[float, float] | None = None
    exif: Image.Exif | None = None
    xmp: bytes | None = None
    alpha: np.ndarray | None = None
    dropped: tuple[str, ...] = ()


def read_original(path: Path) -> Original:
    """Raises ValueError where the file is no picture, or is beyond what can be read."""
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"{path.name} has {size} bytes: at most {MOST_BYTES} are read; save it smaller")
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return _read(picture, path.name, content)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path.name} cannot be read as a picture: {error}") from None


def _read(picture: Image.Image, name: str, content: bytes) -> Original:
    if picture.width * picture.height > MOST_PIXELS:
        raise ValueError(
            f"{name} is {picture.width}x{picture.height} pixels: at most {MOST_PIXELS} are read; "
            "scale it down"
        )
    dropped = []
    bits = _bits(picture, content)
    if bits > 8:
        dropped.append(f"{bits} bits per channel (8 are written)")
    if (frames := getattr(picture, "n_frames", 1)) > 1:
        dropped.append(f"{frames - 1} further frame(s)")
    profile = picture.info.get("icc_profile")
    if profile and (space := profile[16:20]) != b"RGB ":
        dropped.append(f"a colour profile for {space.decode('ascii', 'replace').strip()}, not RGB")
        profile = None
    density = picture.info.get("dpi")
    exif = _exif(picture)
    xmp = packet_of(picture)
    upright = ImageOps.exif_transpose(picture)
    return Original(
        name=name,
        content=content,
        mime=MIME.get(picture.format or "", f"image/{(picture.format or 'unknown').lower()}"),
        size=(upright.height, upright.width),
        profile=profile or None,
        density=_turned(density, upright.size != picture.size) if density else None,
        exif=exif,
        xmp=xmp,
        alpha=_alpha(upright),
        dropped=tuple(dropped),
    )


def _turned(density: tuple[float, float], is_turned: bool) -> tuple[float, float]:
    across, down = float(density[0]), float(density[1])
    return (down, across) if is_turned else (across, down)


def _exif(picture: Image.Image) -> Image.Exif | None:
    exif = picture.getexif()
    if not exif:
        return None
    exif = copy_exif(exif)
    if Base.Orientation in exif:
        exif[Base.Orientation] = 1
    return exif


def copy_exif(exif: Image.Exif) -> Image.Exif:
    """A copy with its sub-directories, but for the preview's, which shows the source before the edit."""
    copy = Image.Exif()
    for tag, value in exif.items():
        if tag not in (IFD.Exif, IFD.GPSInfo):
            copy[tag] = value
    for kind in (IFD.Exif, IFD.GPSInfo):
        found = exif.get_ifd(kind)
        if found:
            copy.get_ifd(kind).update(found)
    return copy


def packet_of(picture: Image.Image) -> bytes | None:
    """The XMP packet of an opened picture."""
    found = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp")
    return found.encode() if isinstance(found, str) else found or None


def _bits(picture: Image.Image, content: bytes) -> int:
    """Bits of a channel in the file; Pillow decodes colours of 16 bits to 8 without a word."""
    if picture.format == "PNG":
        return content[24]  # IHDR
    if picture.format == "TIFF":
        return max(getattr(picture, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,)))
    return 16 if picture.mode.startswith("I") else 32 if picture.mode == "F" else 8


def _alpha(upright: Image.Image) -> np.ndarray | None:
    if not upright.has_transparency_data:
        return None
    alpha = np.asarray(upright.convert("RGBA"))[..., 3]
    return None if bool((alpha == 255).all()) else alpha
