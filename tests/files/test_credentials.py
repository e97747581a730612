"""Credentials are made and read back by the library itself."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy import ndimage
from torch.nn.functional import max_pool2d

from eta_core.files import (
    KINDS,
    CredentialsError,
    find_signer,
    read_marks,
    read_original,
    sign,
    why_unsigned,
    write,
)
from eta_core.files.credentials import CERTIFICATE, KEY, read_credentials
from eta_core.outline import GRID, outlines


@pytest.fixture
def original(save, pixels):
    return read_original(save("cat.jpg", Image.fromarray(pixels)))


@pytest.fixture
def signed(signer, original, pixels):
    """signed(kind, original, region) -> a signed file of the pixels."""

    def make(kind: str = "png", of=original, region=None) -> bytes:
        written = write(pixels, kind, 100, original=of)
        return sign(written.content, KINDS[kind], f"cat.{kind}", signer, of, region)

    return make


def active(content: bytes, kind: str = "png") -> dict:
    store = read_credentials(content, KINDS[kind])
    assert store is not None
    return store["manifests"][store["active_manifest"]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_signed_picture_is_valid_and_its_signer_is_not_called_trusted(signed, kind):
    found = read_marks(signed(kind))
    assert not found.is_broken and found.source_type.endswith("compositeWithTrainedAlgorithmicMedia")
    assert found.credentials[:4] == (
        "valid, by a signer whom no trust list names",
        "signed by signer (Nobody)",
        "made from cat.jpg (parentOf)",
        "c2pa.opened",
    )
    assert found.credentials[4] == "c2pa.edited by Eta Inversion for ComfyUI"


@pytest.mark.parametrize("kind", KINDS)
def test_one_changed_byte_of_the_picture_is_found(signed, pixels, kind):
    content = bytearray(signed(kind))
    content[-40] ^= 1  # among the pixels: the credentials come before them, in each kind but WebP
    if kind == "webp":
        content[content.index(b"VP8L") + 60] ^= 1
    assert read_marks(bytes(content)).is_broken


def test_the_changed_region_is_the_mask_in_percent(signed):
    region = torch.zeros(40, 60)
    region[10:20, 15:45] = 1
    edited = active(signed(region=region))["assertions"][-1]["data"]["actions"][1]
    ((shape),) = [each["shape"] for each in edited["changes"][0]["region"]]
    corners = {(p["x"], p["y"]) for p in shape["vertices"]}
    assert shape["unit"] == "percent" and corners == {(25, 25), (75, 25), (75, 50), (25, 50)}


def test_the_sources_own_credentials_are_kept(signed, tmp_path):
    (tmp_path / "first.png").write_bytes(signed())
    again = signed(of=read_original(tmp_path / "first.png"))
    store = read_credentials(again, KINDS["png"])
    assert store is not None and len(store["manifests"]) == 2
    assert "made from first.png (parentOf) with credentials of its own" in read_marks(again).credentials


def test_a_signer_is_found_in_the_environment_or_in_its_folder(signer, tmp_path):
    assert find_signer({}) is None and find_signer({}, tmp_path) is None
    (tmp_path / "certificate.pem").write_text(signer.certificate)
    with pytest.raises(CredentialsError, match="key.pem"):
        find_signer({}, tmp_path)
    (tmp_path / "key.pem").write_text(signer.key)
    assert find_signer({}, tmp_path) == signer
    named = {CERTIFICATE: str(tmp_path / "certificate.pem"), KEY: str(tmp_path / "key.pem")}
    assert find_signer(named) == signer
    with pytest.raises(CredentialsError, match="'rsa': it must be one of es256"):
        find_signer(named | {"ETA_C2PA_ALGORITHM": "rsa"})
    with pytest.raises(CredentialsError, match="cannot be read"):
        find_signer(named | {KEY: str(tmp_path / "gone.pem")})
    assert signer.key not in repr(signer)


def test_a_key_that_does_not_fit_is_told(signed, signer, original, pixels):
    from dataclasses import replace

    content = write(pixels, "png", 100).content
    with pytest.raises(CredentialsError, match="cannot be made"):
        sign(content, KINDS["png"], "cat", replace(signer, key="nothing"), original)


def test_why_a_picture_is_not_signed_is_said(signer):
    assert "no certificate is configured" in why_unsigned(None)
    assert why_unsigned(signer) == ""


def test_an_empty_region_has_no_outline_and_a_full_one_has_the_pictures():
    assert outlines(torch.zeros(8, 8)) == []
    ((*corners,),) = outlines(torch.ones(300, 200))
    assert set(corners) == {(0, 0), (100, 0), (100, 100), (0, 100)}


@pytest.mark.parametrize("size", [(40, 60), (300, 129), (1, 500)])
def test_outlines_cover_the_region_and_little_else(size):
    """Drawn by Pillow; islands, holes and corners that touch."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 1, 9, 9, generator=generator) > 0.7
    region = torch.nn.functional.interpolate(coarse.float(), size)[0, 0]
    height, width = size
    drawn, scale = Image.new("L", (width * 4, height * 4)), np.array([width, height]) * 4 / 100
    for polygon in outlines(region):
        ImageDraw.Draw(drawn).polygon([tuple(np.array(p) * scale) for p in polygon], fill=1)
    centres = torch.from_numpy(np.asarray(drawn)[2::4, 2::4].copy()) > 0
    assert bool(centres[region > 0].all())
    filled = torch.from_numpy(ndimage.binary_fill_holes(region.numpy() > 0))
    reach = 1 + -(-max(size) // GRID)  # pixels of a cell, and of its neighbour's share
    spread = max_pool2d(filled.float()[None], 2 * reach + 1, 1, reach)[0] > 0
    assert not bool((centres & ~spread).any())
