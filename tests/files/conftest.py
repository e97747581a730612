"""A throw-away signer and photographs' files as cameras and editors write them."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from devtools.certificate import throw_away
from eta_core.files import Signer


@pytest.fixture(scope="session")
def signer() -> Signer:
    """Its certificate comes from an authority of its own, so no trust list names it."""
    pytest.importorskip("c2pa", reason="c2pa-python is optional")
    return Signer(*throw_away())


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def profile() -> bytes:
    """A colour profile that is not what readers assume without one."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def save(tmp_path):
    """save(name, picture, **options of Pillow) -> the path of the file."""

    def write(name: str, picture: Image.Image, **options):
        stream = io.BytesIO()
        picture.save(stream, name.rpartition(".")[2].replace("jpg", "jpeg"), **options)
        (tmp_path / name).write_bytes(stream.getvalue())
        return tmp_path / name

    return write
