"""EtaCompare, and what the nodes send to the page."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from devtools.studio import SOURCE


def compare(host, **inputs):
    node = host.nodes.NODE_CLASS_MAPPINGS["EtaCompare"]
    with torch.inference_mode():
        output = node.PREPARE_CLASS_CLONE({}).EXECUTE_NORMALIZED(**{"gain": 1.0} | inputs)
    return output.result[0], output.ui["eta_compare"][0]


def shown(host, saved) -> np.ndarray:
    return np.asarray(
        Image.open(host.base / saved["type"] / saved["subfolder"] / saved["filename"]).convert("RGB")
    )


@pytest.fixture(scope="module")
def pictures():
    return torch.rand(2, 24, 40, 3, generator=torch.Generator().manual_seed(1))


def test_the_difference_is_the_pictures_own_times_gain(host, pictures):
    before, after = pictures
    difference, views = compare(host, before=before[None], after=after[None], gain=3.0)
    assert torch.equal(difference, ((after - before).abs() * 3).clamp(0, 1)[None])
    assert set(views) == {"before", "after", "difference"}
    for name, picture in (("before", before), ("after", after), ("difference", difference[0])):
        assert np.abs(shown(host, views[name][0]) / 255 - picture.numpy()).max() <= 0.5 / 255 + 1e-6


def test_one_picture_is_compared_with_each_of_a_batch(host, pictures):
    difference, views = compare(host, before=pictures[:1], after=pictures, reconstruction=pictures[:1])
    assert (
        len(difference) == len(views["after"]) == 2
        and len(views["before"]) == len(views["reconstruction"]) == 1
    )
    assert difference[0].max() == 0 < difference[1].max()


def test_what_vae_encode_cuts_off_is_cut_off(host, caplog):
    """As the host does it: the same number of pixels left at both sides, one more at the end."""
    caplog.set_level(logging.INFO, "eta-inversion")
    before = torch.rand(1, 27, 45, 3, generator=torch.Generator().manual_seed(2))
    difference, _ = compare(host, before=before, after=before[:, 1:25, 2:42])
    assert difference.max() == 0
    assert "before's 45x27 pixels were cropped to 40x24" in caplog.text


@pytest.mark.parametrize(("size", "batch"), [((24, 80), 1), ((16, 40), 1), ((24, 40), 3)])
def test_pictures_that_cannot_be_compared_are_refused(host, pictures, size, batch):
    with pytest.raises(ValueError, match=r"before (is 80x24|is 40x16|has 3 pictures)"):
        compare(host, before=torch.zeros(batch, *size, 3), after=pictures)


def test_eta_is_drawn_at_the_steps_of_the_inversion(host, studio, inversion, pictures):
    eta = studio.eta()
    alone = compare(host, before=pictures, after=pictures, eta=eta)[1]["eta"]
    taken = compare(host, before=pictures, after=pictures, eta=eta, inversion=inversion)[1]["eta"]
    assert not np.array_equal(shown(host, alone[0]), shown(host, taken[0]))


def test_a_large_picture_is_shown_smaller_but_given_on_whole(host):
    large = torch.rand(1, 1500, 90, 3)
    difference, views = compare(host, before=large, after=1 - large)
    assert difference.shape == large.shape and shown(host, views["after"][0]).shape == (1024, 61, 3)


def test_the_page_gets_every_words_attention(host, studio, inversion):
    """On one sheet, in the order of `phrases`; the first picture's."""
    node = host.nodes.NODE_CLASS_MAPPINGS["AttentionMask"]
    inputs = dict(clip=studio.clip, threshold=0.0, grow=0, blur=0.0, invert=False, source_prompt=SOURCE)
    with torch.inference_mode():
        output = node.PREPARE_CLASS_CLONE({}).EXECUTE_NORMALIZED(
            inversion=inversion, words="bench, a cat:0.5", mask=torch.ones(1, 64, 64), **inputs
        )
    (view,) = output.ui["eta_attention"]
    assert view["words"] == ["a", "cat", "sitting", "on", "bench"]
    assert view["phrases"] == ["bench", "a cat", "a", "cat", "sitting", "on"]
    rows, columns = view["map_size"]
    sheet = shown(host, view["sheet"])[..., 0] / 255
    for i, phrase in enumerate(view["phrases"]):
        y, x = (i // view["columns"]) * rows, (i % view["columns"]) * columns
        alone = studio.region(inversion, phrase, threshold=0.0)[0][0]
        drawn = torch.from_numpy(sheet[y : y + rows, x : x + columns])[None, None]
        drawn = torch.nn.functional.interpolate(drawn, alone.shape, mode="bilinear")[0, 0]
        assert (drawn - alone).abs().max() < 0.5 / 255 + 1e-5, phrase
    assert shown(host, view["mask"]).min() == 255 and view["picture"] is None


def test_variants_of_several_pictures_are_compared_with_their_own(host):
    before = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(4))
    (difference,) = host.call("EtaCompare", before=before, after=before.repeat(3, 1, 1, 1), gain=64.0)
    assert difference.shape == (6, 16, 16, 3) and not bool(difference.any())
