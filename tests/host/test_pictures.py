"""EtaCrop, EtaStitch and EtaKeep in the host, to the saved file."""

import numpy as np
import pytest
import torch
from PIL import Image

from devtools.demo.studio import DemoStudio


def picture(seed: int, height: int = 160, width: int = 208) -> torch.Tensor:
    """Eight-bit noise as LoadImage gives it."""
    levels = torch.randint(0, 256, (1, height, width, 3), generator=torch.Generator().manual_seed(seed))
    return levels.float() / 255


@pytest.fixture
def region() -> torch.Tensor:
    mask = torch.zeros(1, 160, 208)
    mask[:, 60:90, 80:120] = 1
    return mask


SEAM = dict(grow=4, feather=12, match_colour=1.0, grain=0.0)


def test_a_saved_png_equals_the_source_outside_the_region(host, region):
    source = picture(0)
    part, mask, place = host.call(
        "EtaCrop", image=source, mask=region, megapixels=0.02, multiple=16, context=0.5
    )
    assert part.shape[1:3] == mask.shape[1:] == torch.Size(place.size)
    image, shown = host.call("EtaStitch", source=source, edited=1 - part, place=place, **SEAM)
    host.call("SaveImage", images=image, filename_prefix="stitched")
    (file,) = (host.base / "output").glob("stitched*.png")
    saved = np.asarray(Image.open(file).convert("RGB"))
    given = (source[0] * 255).round().byte().numpy()
    outside = (shown[0] == 0).numpy()
    assert 0.5 < outside.mean() < 1
    assert (saved[outside] == given[outside]).all()
    assert (saved[~outside] != given[~outside]).any()


def test_a_mask_of_a_small_copy_fits_and_one_of_another_shape_is_refused(host, region):
    given = dict(image=picture(1), megapixels=0.02, multiple=16, context=0.5)
    _, _, place = host.call("EtaCrop", mask=region[:, ::2, ::2], **given)
    assert torch.equal(place.windows[0].mask.sum(), region.sum())
    with pytest.raises(ValueError, match="same shape"):
        host.call("EtaCrop", mask=torch.ones(1, 64, 64), **given)


def test_keep_takes_batches_and_leaves_the_rest(host, region):
    source = picture(2)
    edited = torch.where(region[..., None] > 0, 1 - source, source).repeat(2, 1, 1, 1)
    image, mask, aligned, shown = host.call(
        "EtaKeep", source=source, edited=edited, mask=region, align=False, limit=5.0, **SEAM
    )
    assert image.shape == aligned.shape == edited.shape
    assert torch.equal(mask, region.repeat(2, 1, 1))
    assert torch.equal(image[shown == 0], source.repeat(2, 1, 1, 1)[shown == 0])
    with pytest.raises(ValueError, match="2 pictures"):
        host.call("EtaKeep", source=edited, edited=source, align=False, limit=5.0, **SEAM)


@pytest.fixture(scope="module")
def trained(host) -> DemoStudio:
    studio = DemoStudio(host)
    studio.narrow()
    return studio


def test_ten_edits_in_a_row_leave_the_outside_as_it_was(host, trained):
    """Each in a region of its own, by the model, saved and loaded again: what one edit left alone stays."""
    original = (picture(7, 152, 216)[0] * 255).round().byte().numpy()
    Image.fromarray(original).save(host.base / "input" / "row_0.png")
    touched = np.zeros(original.shape[:2], bool)
    before, generator = original, np.random.default_rng(0)
    for number in range(10):
        (source, _) = host.call("LoadImage", image=f"row_{number}.png")
        top, left = generator.integers(0, (152 - 24, 216 - 32))
        mask = torch.zeros(1, 152, 216)
        mask[:, top : top + 24, left : left + 32] = 1
        part, region, place = host.call(
            "EtaCrop", image=source, mask=mask, megapixels=0.01, multiple=16, context=0.5
        )
        inversion = trained.invert(latent_image=trained.encode(part), steps=2)
        edited = trained.decode(trained.edit(inversion, mask=region))
        image, shown = host.call("EtaStitch", source=source, edited=edited, place=place, **SEAM)
        host.call("SaveImage", images=image, filename_prefix=f"row_{number}")
        (file,) = (host.base / "output").glob(f"row_{number}_*.png")
        after = np.asarray(Image.open(file).convert("RGB"))
        may_change = (shown[0] > 0).numpy()
        assert (after[~may_change] == before[~may_change]).all()
        assert (after[may_change] != before[may_change]).any()
        touched, before = touched | may_change, after
        Image.fromarray(after).save(host.base / "input" / f"row_{number + 1}.png")
    assert 0.2 < touched.mean() < 0.95
    assert (before[~touched] == original[~touched]).all()
