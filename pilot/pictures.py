"""Pictures and masks as they go to the server: bounded in size, cut to what a VAE takes."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from . import pie_bench
from .items import Item

CELL = 8  # pixels of a latent pixel
CELLS = (CELL, 16, 32)  # of one VAE or another
MOST_MEGAPIXELS = 80


class PictureError(Exception):
    """A picture or a mask that cannot be used, and why."""


@dataclass(frozen=True)
class Prepared:
    """An item's picture (RGB) and mask (L or None), of one size. given: (width, height) in the file.

    small: a small copy of a picture of full size.
    """

    picture: Image.Image
    mask: Image.Image | None
    given: tuple[int, int]
    small: Image.Image | None = None


def prepare(item: Item, max_side: int, full_size: bool = False) -> Prepared:
    """The item's picture, its longer side scaled down to `max_side`, cut in its middle to multiples of CELL.

    It is never scaled up. The mask is scaled and cut alike: a mask of black and white stays so, and a pixel
    that covers any of it belongs to it. full_size: the picture as it is; its small copy is scaled to
    multiples of CELL, and not cut. Raises PictureError.
    """
    picture, given = _open(item.folder, item.picture, "RGB", 0 if full_size else max_side)
    scaled = _scaled(picture.size, max_side)
    if min(scaled) < CELL:
        raise PictureError(
            f"{item.picture} is {_by(given)} pixels, {_by(scaled)} after scaling: too small to edit"
        )
    if full_size:
        width, height = (max(round(side / CELL), 1) * CELL for side in scaled)
        small = picture.resize((width, height), Image.Resampling.LANCZOS)
        return Prepared(picture, _mask(item, given, picture.size), given, small)
    mask = _mask(item, given, scaled)
    return Prepared(_middle(picture.resize(scaled, Image.Resampling.LANCZOS)), mask and _middle(mask), given)


def _scaled(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    ratio = min(1.0, max_side / max(size))
    width, height = (max(1, round(side * ratio)) for side in size)
    return width, height


def _middle(picture: Image.Image) -> Image.Image:
    width, height = (side - side % CELL for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _open(folder: Path, name: str, mode: str, max_side: int) -> tuple[Image.Image, tuple[int, int]]:
    """The picture, upright, perhaps already reduced to no less than `max_side` (0: whole), and its size in
    the file.

    An error names the file as the item does: it goes into a report that may be shown to others.
    """
    path = folder / name
    try:
        if not os.path.getsize(path):
            raise PictureError(f"{name} is empty (0 bytes)")
        with Image.open(path) as opened:
            if opened.width * opened.height > MOST_MEGAPIXELS * 1e6:
                raise PictureError(
                    f"{name} is {_by(opened.size)} pixels, more than {MOST_MEGAPIXELS} megapixels: scale it "
                    "down"
                )
            given = opened.size
            if max_side:
                opened.draft(mode, (max_side, max_side))  # JPEG: decoded small, in little memory
            opened.load()
            ImageOps.exif_transpose(opened, in_place=True)
            turned = (opened.width > opened.height) != (given[0] > given[1])
            picture = _eight_bit(opened)
            return picture if picture.mode == mode else picture.convert(mode), given[
                ::-1
            ] if turned else given
    except PictureError:
        raise
    except FileNotFoundError:
        raise PictureError(f"there is no {name}") from None
    except Exception as error:  # each of Pillow's decoders has errors of its own for damaged files
        said = str(error).replace(str(path), name)
        raise PictureError(f"{name} cannot be read: {said or type(error).__name__}") from None


def _eight_bit(picture: Image.Image) -> Image.Image:
    if picture.mode == "F":
        raise ValueError("its pixels are decimal numbers of no known range; save it with 8 or 16 bits")
    if not picture.mode.startswith("I"):
        return picture
    return Image.fromarray((np.asarray(picture).clip(0, 65535) / 257).round().astype(np.uint8))


def _mask(item: Item, given: tuple[int, int], size: tuple[int, int]) -> Image.Image | None:
    if not item.mask:
        return None
    if isinstance(item.mask, str):
        mask, of = _open(item.folder, item.mask, "L", max(given))
    else:
        try:
            mask = Image.fromarray(pie_bench.mask(item.mask).astype(np.uint8) * 255)
        except ValueError as error:
            raise PictureError(str(error)) from None
        of = mask.size
    if abs(of[0] * given[1] - of[1] * given[0]) > 0.02 * of[1] * given[0]:
        raise PictureError(
            f"the mask is {_by(of)} pixels, the picture {_by(given)}: they must have one shape"
        )
    if mask.size == size:
        return mask
    hard = set(np.unique(np.asarray(mask))) <= {0, 255}
    scaled = mask.resize(size, Image.Resampling.BOX)
    return scaled.point([0, *[255] * 255]) if hard else scaled


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def whole(content: bytes, size: tuple[int, int] | None, name: str) -> Image.Image:
    """A picture that a server sent, decoded to its end and without what else its file holds.

    size: width and height of the item's picture, of which a VAE may have taken the middle; None: any. Raises
    PictureError.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            given = opened.size
            if given[0] * given[1] > MOST_MEGAPIXELS * 1e6:
                raise PictureError(f"{name} is {_by(given)} pixels, more than {MOST_MEGAPIXELS} megapixels")
            if size is not None and given not in [
                tuple(side - side % cell for side in size) for cell in (1, *CELLS)
            ]:
                raise PictureError(f"{name} is {_by(given)} pixels, the item's picture {_by(size)}")
            opened.load()
            bare = opened.convert("RGBA" if "A" in opened.getbands() else "RGB")
            bare.info.clear()
            return bare
    except PictureError:
        raise
    except Exception as error:  # each of Pillow's decoders has errors of its own for damaged files
        what = f"{len(content)} bytes that are no whole picture" if content else "empty (0 bytes)"
        raise PictureError(f"{name} is {what} ({str(error)[:80] or type(error).__name__})") from None


def png(picture: Image.Image) -> bytes:
    """The same bytes for the same picture, so that a server's cache knows it again."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
