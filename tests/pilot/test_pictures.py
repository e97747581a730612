import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pilot.items import Item
from pilot.pictures import PictureError, prepare

ROOT = Path(__file__).resolve().parents[2]
RED = (200, 30, 20)


def item(folder: Path, picture: str, mask="") -> Item:
    return Item(1, picture, folder, picture, "a cat", "a dog", mask=mask)


def plain(folder: Path, name: str, size: tuple[int, int], colour=RED, **how) -> Item:
    Image.new("RGB", size, colour).save(folder / name, **how)
    return item(folder, name)


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ((512, 512), (512, 512)),
        ((64, 40), (64, 40)),
        ((2000, 1000), (512, 256)),
        ((300, 900), (168, 512)),
        ((517, 70), (512, 64)),
    ],
)
def test_pictures_are_scaled_down_never_up_and_cut_to_cells(tmp_path, given, size):
    prepared = prepare(plain(tmp_path, "кот 猫.png", given), 512)
    assert (prepared.picture.size, prepared.given) == (size, given)
    assert prepared.picture.getpixel((5, 5)) == RED


def test_the_middle_is_kept(tmp_path):
    Image.fromarray(np.arange(20, dtype=np.uint8)[None].repeat(8, 0)).save(tmp_path / "a.png")
    kept = np.asarray(prepare(item(tmp_path, "a.png"), 512).picture)
    assert kept.shape == (8, 16, 3) and kept[0, 0, 0] == 2 and kept[0, -1, 0] == 17


def test_a_picture_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    prepared = prepare(plain(tmp_path, "a.jpg", (80, 40), exif=exif), 512)
    assert prepared.picture.size == prepared.given == (40, 80)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "LA"])
def test_every_mode_becomes_colour(tmp_path, mode):
    name = "a.tif" if mode == "CMYK" else "a.png"
    Image.new("RGB", (16, 16), (255, 255, 255)).convert(mode).save(tmp_path / name)
    assert prepare(item(tmp_path, name), 512).picture.getpixel((3, 3)) == (255, 255, 255)


def test_sixteen_bits_become_eight(tmp_path):
    Image.fromarray(np.full((16, 16), 32896, np.uint16)).save(tmp_path / "a.png")
    assert prepare(item(tmp_path, "a.png"), 512).picture.getpixel((3, 3)) == (128, 128, 128)


def test_pixels_of_no_known_range_are_refused(tmp_path):
    Image.fromarray(np.full((16, 16), 0.5, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(PictureError, match="decimal numbers of no known range; save it with 8 or 16 bits"):
        prepare(item(tmp_path, "a.tif"), 512)


def damaged() -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(stream, "PNG")
    return stream.getvalue()[:900]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no"),
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n", "cannot be read"),
        (b"hello", "cannot be read"),
        (damaged(), "cannot be read"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path, content, said):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(PictureError, match=said):
        prepare(item(tmp_path, "a.png"), 512)


def test_a_folder_and_an_impossible_name_are_no_pictures(tmp_path):
    for name in (".", "a\0b.png"):
        with pytest.raises(PictureError, match="cannot be read"):
            prepare(item(tmp_path, name), 512)


def test_more_than_80_megapixels_are_refused_before_they_are_decoded(tmp_path):
    Image.new("1", (20000, 4001)).save(tmp_path / "a.png")
    with pytest.raises(PictureError, match="20000x4001 pixels, more than 80 megapixels"):
        prepare(item(tmp_path, "a.png"), 512)


def test_a_picture_too_small_for_a_latent_is_refused(tmp_path):
    with pytest.raises(PictureError, match="7x50 pixels.* too small"):
        prepare(plain(tmp_path, "a.png", (7, 50)), 512)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory is read from /proc")
@pytest.mark.parametrize(("name", "most"), [("big.png", 130), ("big.jpg", 40)])
def test_20_megapixels_take_little_memory(tmp_path, name, most):
    """In MB; decoded by Pillow they have 80. A JPEG is decoded small."""
    plain(tmp_path, name, (5000, 4000))
    code = f"""
import re
from pathlib import Path
from pilot.items import Item
from pilot.pictures import prepare

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

before = peak()
print(prepare(Item(1, "a", Path({str(tmp_path)!r}), {name!r}), 1024).picture.size)
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    size, grown = done.stdout.splitlines()
    assert size == "(1024, 816)"
    assert int(grown) < most


# --- masks ----------------------------------------------------------------------------------------


def test_a_mask_of_black_and_white_stays_so_and_loses_no_pixel(tmp_path):
    """One white pixel of 64 x 64 is one of 8 x 8 at an eighth of the size."""
    given = np.zeros((64, 64), np.uint8)
    given[17, 40] = 255
    Image.fromarray(given).save(tmp_path / "m.png")
    plain(tmp_path, "a.png", (512, 512))
    mask = np.asarray(prepare(item(tmp_path, "a.png", "m.png"), 64).mask)
    assert mask.shape == (64, 64) and (mask == given).all()
    plain(tmp_path, "b.png", (64, 64))
    small = np.asarray(prepare(item(tmp_path, "b.png", "m.png"), 8).mask)
    assert small.shape == (8, 8) and small[2, 5] == 255 and small.sum() == 255


def test_a_soft_mask_stays_soft(tmp_path):
    Image.fromarray(np.linspace(0, 255, 64, dtype=np.uint8)[None].repeat(64, 0)).save(tmp_path / "m.png")
    plain(tmp_path, "a.png", (64, 64))
    mask = np.asarray(prepare(item(tmp_path, "a.png", "m.png"), 32).mask)
    assert mask.shape == (32, 32) and len(np.unique(mask)) > 20


def test_run_lengths_are_a_mask_at_the_pictures_size(tmp_path):
    """Rows 256 to 511 and the border: at a quarter of the size rows 64 to 127 and a border of one pixel."""
    plain(tmp_path, "a.png", (512, 512))
    mask = np.asarray(prepare(item(tmp_path, "a.png", (256 * 512, 256 * 512)), 128).mask)
    by_hand = np.zeros((128, 128), np.uint8)
    by_hand[64:] = by_hand[0] = 255
    by_hand[:, 0] = by_hand[:, -1] = 255
    assert (mask == by_hand).all()


@pytest.mark.parametrize(
    ("mask", "said"), [("m.png", "there is no"), ((1, 2, 3), "run lengths"), ("a.png", "one shape")], ids=str
)
def test_a_mask_that_does_not_fit_says_why(tmp_path, mask, said):
    plain(tmp_path, "a.png", (64, 64))
    plain(tmp_path, "wide.png", (128, 64))
    with pytest.raises(PictureError, match=said):
        prepare(item(tmp_path, "wide.png" if mask == "a.png" else "a.png", mask), 512)
