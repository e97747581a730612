"""What a photograph's file carries is in the edited file, or is told as lost."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from eta_core.files import KINDS, read_marks, read_original, write
from eta_core.files.xmp import EDITED_BY_MODEL, MADE_BY_MODEL, packet, source_type

PROMPT = "a cat -> a dog <&"
DESCRIPTION = '<rdf:Description rdf:about="" {}/>'
PACKET = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'xmlns:dc="http://purl.org/dc/elements/1.1/" '
    'xmlns:xmpNote="http://ns.adobe.com/xmp/note/">{}</rdf:RDF></x:xmpmeta>'
)


def opened(written) -> Image.Image:
    picture = Image.open(io.BytesIO(written.content))
    picture.load()
    return picture


@pytest.fixture
def photograph(save, pixels, profile):
    """A JPEG as a camera writes it, lying on its side: 40 x 60 pixels in the file, upright 60 x 40."""
    exif = Image.Exif()
    exif[Base.Orientation], exif[Base.Make] = 6, "Camera"
    exif.get_ifd(IFD.Exif)[Base.DateTimeOriginal] = "2026:01:02 03:04:05"
    exif.get_ifd(IFD.Exif)[Base.ExifImageWidth] = 40
    exif.get_ifd(IFD.GPSInfo)[GPS.GPSLatitudeRef] = "N"
    lying = Image.fromarray(np.rot90(pixels).copy())
    xmp = PACKET.format(DESCRIPTION.format('dc:format="image/jpeg"')).encode()
    return save(
        "cat.jpg", lying, exif=exif.tobytes(), icc_profile=profile, dpi=(300, 150), xmp=xmp, quality=95
    )


@pytest.mark.parametrize("kind", KINDS)
def test_profile_density_and_exif_are_kept_upright(photograph, pixels, profile, kind):
    written = write(pixels, kind, 100, PROMPT, read_original(photograph))
    picture = opened(written)
    exif = picture.getexif()
    assert picture.size == (60, 40)
    assert picture.info["icc_profile"] == profile
    assert (exif[Base.Orientation], exif[Base.Make]) == (1, "Camera")
    assert exif.get_ifd(IFD.Exif)[Base.DateTimeOriginal] == "2026:01:02 03:04:05"
    assert exif.get_ifd(IFD.Exif)[Base.ExifImageWidth] == 60
    assert exif.get_ifd(IFD.GPSInfo)[GPS.GPSLatitudeRef] == "N"
    if kind == "webp":
        assert written.lost == ("its density, which WebP has not",)
    else:
        assert picture.info["dpi"] == pytest.approx((150, 300), abs=0.02)
        assert written.lost == ()


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_png_and_the_best_webp_hold_every_pixel(pixels, kind):
    assert np.array_equal(np.asarray(opened(write(pixels, kind, 100, PROMPT))), pixels)


def test_the_preview_of_the_source_is_not_kept(save, pixels):
    """A file viewer would show the picture before the edit."""
    preview = io.BytesIO()
    Image.fromarray(pixels).resize((16, 12)).save(preview, "JPEG")
    exif = Image.Exif()
    exif[Base.Make] = "Camera"
    exif.get_ifd(IFD.IFD1).update({513: 100, 514: len(preview.getvalue()), 259: 6})
    original = read_original(save("cat.jpg", Image.fromarray(pixels), exif=exif.tobytes()))
    again = opened(write(pixels, "jpeg", 90, PROMPT, original)).getexif()
    assert again[Base.Make] == "Camera" and not again.get_ifd(IFD.IFD1)


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_transparency_is_kept(save, pixels, kind):
    alpha = (np.arange(40 * 60).reshape(40, 60) % 256).astype(np.uint8)
    picture = Image.fromarray(pixels)
    picture.putalpha(Image.fromarray(alpha))
    written = write(pixels[::-1].copy(), kind, 100, PROMPT, read_original(save("cat.png", picture)))
    assert written.lost == ()
    assert np.array_equal(np.asarray(opened(written))[..., 3], alpha)
    assert np.array_equal(np.asarray(opened(written))[..., :3], pixels[::-1])


def test_what_cannot_be_kept_is_told(save, pixels):
    picture = Image.fromarray(pixels)
    picture.putalpha(7)
    transparent = read_original(save("cat.png", picture))
    assert write(pixels, "jpeg", 90, PROMPT, transparent).lost == ("its transparency, which JPEG has not",)
    assert write(pixels[:8], "png", 90, PROMPT, transparent).lost == (
        "its transparency, of 60x40 pixels, not 60x8",
    )
    deep = read_original(save("deep.png", Image.fromarray(np.full((4, 4), 40_000, np.uint16))))
    assert write(pixels, "png", 90, PROMPT, deep).lost == ("16 bits per channel (8 are written)",)
    film = save("film.webp", picture, save_all=True, append_images=[Image.new("RGB", picture.size)])
    assert "1 further frame(s)" in write(pixels, "png", 90, PROMPT, read_original(film)).lost


def test_a_profile_for_other_colours_is_not_put_on_rgb_pixels(save, pixels, profile):
    for_ink = profile[:16] + b"CMYK" + profile[20:]
    original = read_original(save("ink.jpg", Image.fromarray(pixels).convert("CMYK"), icc_profile=for_ink))
    written = write(pixels, "png", 90, PROMPT, original)
    assert "icc_profile" not in opened(written).info
    assert written.lost == ("a colour profile for CMYK, not RGB",)


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_says_that_a_model_edited_it(photograph, pixels, kind):
    for original in (None, read_original(photograph)):
        found = read_marks(write(pixels, kind, 90, PROMPT, original).content)
        assert found.source_type == EDITED_BY_MODEL and not found.is_broken
    xmp = opened(write(pixels, kind, 90, PROMPT)).info["XML:com.adobe.xmp" if kind == "png" else "xmp"]
    assert "a cat -&gt; a dog &lt;&amp;" in (xmp if isinstance(xmp, str) else xmp.decode())
    assert read_marks(photograph.read_bytes()).source_type == ""


def test_the_sources_xmp_is_kept_and_its_source_type_replaced():
    """Written as an attribute, or as an element, by one program or another."""
    for mark in (
        DESCRIPTION.format(f'dc:title="a photo" Iptc4xmpExt:DigitalSourceType="{EDITED_BY_MODEL[:-4]}"'),
        '<rdf:Description rdf:about="" dc:title="a photo">'
        "<Iptc4xmpExt:DigitalSourceType>digitalCapture</Iptc4xmpExt:DigitalSourceType></rdf:Description>",
    ):
        made, lost = packet(PACKET.format(mark).encode())
        assert (source_type(made), lost) == (EDITED_BY_MODEL, "")
        assert b'dc:title="a photo"' in made and made.count(b"DigitalSourceType>") == 2


def test_an_edit_does_not_make_a_models_picture_less_artificial():
    mark = DESCRIPTION.format(f'Iptc4xmpExt:DigitalSourceType="{MADE_BY_MODEL}"')
    assert source_type(packet(PACKET.format(mark).encode())[0]) == MADE_BY_MODEL


@pytest.mark.parametrize(
    ("xmp", "lost"),
    [
        (b"<x:xmpmeta", "its XMP, which cannot be read"),
        (b"<a/>", "its XMP, which holds no RDF"),
        (b'<!DOCTYPE a [<!ENTITY b "cc">]><a>&b;</a>', "its XMP, which is not plain"),
        (b" " * 1_000_001, "its XMP, which is not plain"),
        (
            PACKET.format(DESCRIPTION.format('xmpNote:HasExtendedXMP="F00D"')).encode(),
            "the second part of its XMP",
        ),
    ],
)
def test_a_packet_that_cannot_be_kept_is_told_and_a_new_one_written(xmp, lost):
    made, told = packet(xmp)
    assert told.startswith(lost) and source_type(made) == EDITED_BY_MODEL and b"HasExtended" not in made


def test_a_long_packet_does_not_keep_a_jpeg_from_being_written(save, pixels):
    long = PACKET.format(DESCRIPTION.format(f'dc:title="{"x" * 70_000}"'))
    original = read_original(save("cat.webp", Image.fromarray(pixels), xmp=long.encode()))
    assert write(pixels, "png", 90, PROMPT, original).lost == ()
    written = write(pixels, "jpeg", 90, PROMPT, original)
    assert written.lost == ("its XMP, too long for JPEG",)
    assert read_marks(written.content).source_type == EDITED_BY_MODEL


def test_the_workflow_lies_in_a_png_alone(pixels):
    assert opened(write(pixels, "png", 90, PROMPT, texts={"workflow": "{}"})).info["workflow"] == "{}"
    assert "workflow" not in opened(write(pixels, "png", 90, PROMPT)).info
    with pytest.raises(ValueError, match="only png holds the workflow"):
        write(pixels, "jpeg", 90, PROMPT, texts={"workflow": "{}"})


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"<svg/>"])
def test_a_file_that_is_no_picture_is_named(tmp_path, content):
    (tmp_path / "cat.png").write_bytes(content)
    with pytest.raises(ValueError, match="cat.png cannot be read as a picture"):
        read_original(tmp_path / "cat.png")
