"""A crop and its way back, over sizes, borders, batches and types."""

import itertools

import pytest
import torch
from scipy.ndimage import distance_transform_edt

from eta_core.blend import ColourMap, Seam, colour_map, distance
from eta_core.place import Fit, crop, place, stitch

SEAM = Seam(grow=3, feather=6)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def rectangle(size, top, left, height, width) -> torch.Tensor:
    mask = torch.zeros(size)
    mask[top : top + height, left : left + width] = 1
    return mask


def distance_by_scipy(region: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(distance_transform_edt(~region.numpy()))


REGIONS = {
    "middle": (60, 50, 20, 31),
    "corner": (0, 0, 18, 12),
    "far corner": (140, 180, 13, 21),
    "one pixel": (77, 3, 1, 1),
    "a line across": (50, 0, 2, 201),
    "all": (0, 0, 153, 201),
}


@pytest.mark.parametrize("name", REGIONS)
@pytest.mark.parametrize("shape", ["region", "picture", "square"])
def test_outside_the_declared_region_every_bit_is_the_sources(name, shape):
    source = noise(1, 153, 201, 3)
    mask = rectangle((153, 201), *REGIONS[name])[None]
    where = place(mask, Fit(pixels=96 * 96, multiple=16, shape=shape))
    parts, _ = crop(source, where)
    result, shown = stitch(source, 1 - parts, where, SEAM)
    outside = distance_by_scipy(mask[0] > 0) > SEAM.reach
    assert torch.equal(result[0][outside], source[0][outside])
    assert not bool(shown[0][outside].any())
    assert bool((shown[0][mask[0] > 0] == 1).all())
    if name != "all":
        assert float((result - source).abs()[0][mask[0] > 0].mean()) > 0.05


def test_an_unedited_part_at_its_own_size_comes_back_as_the_source():
    source = noise(1, 128, 128, 3)
    mask = rectangle((128, 128), 50, 50, 20, 20)[None]
    where = place(mask, Fit(pixels=128 * 128, context=9.0))
    result, _ = stitch(source, crop(source, where)[0], where, SEAM)
    assert torch.allclose(result, source, atol=1e-5)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("channels", [3, 4])
def test_every_type_and_an_alpha_plane_come_back(kind, channels):
    source = noise(1, 120, 90, channels).to(kind)
    mask = rectangle((120, 90), 40, 30, 12, 12)[None]
    where = place(mask, Fit(pixels=64 * 64))
    parts, _ = crop(source.float(), where)
    result, shown = stitch(source, 1 - parts[..., :3], where, SEAM)
    assert result.dtype == kind
    assert torch.equal(result[shown == 0], source[shown == 0])
    assert torch.equal(result[..., 3:], source[..., 3:])
    assert not torch.equal(result[shown == 1], source[shown == 1])


def test_batches_regions_and_variants_each_find_their_place():
    source = noise(2, 200, 300, 3)
    mask = torch.stack(
        [
            rectangle((200, 300), 10, 10, 20, 20) + rectangle((200, 300), 150, 250, 20, 20),
            rectangle((200, 300), 90, 140, 30, 30),
        ]
    )
    where = place(mask, Fit(pixels=64 * 64, apart=True))
    assert [window.picture for window in where.windows] == [0, 0, 1]
    parts = torch.stack([torch.full((*where.size, 3), 0.1 * i) for i in range(6)])
    result, shown = stitch(source, parts, where, Seam(3, 6, colour=0.0))
    assert len(result) == len(shown) == 4
    seen = [result[0, 20, 20], result[0, 160, 260], result[1, 100, 150]]
    seen += [result[2, 20, 20], result[2, 160, 260], result[3, 100, 150]]
    assert torch.allclose(torch.stack(seen), torch.arange(6)[:, None] * 0.1, atol=1e-6)
    assert torch.equal(result[shown == 0], source.repeat(2, 1, 1, 1)[shown == 0])


def test_parts_have_the_sides_asked_for():
    for size, region, multiple in itertools.product(
        [(200, 300), (512, 90), (64, 64)], [(5, 5, 9, 40), (30, 20, 30, 30)], [8, 64]
    ):
        mask = rectangle(size, *region)[None]
        where = place(mask, Fit(pixels=256 * 256, multiple=multiple))
        assert not any(side % multiple for side in where.size)
        (window,) = where.windows
        assert window.top >= 0 and window.left >= 0
        assert window.top + window.mask.shape[0] <= size[0]
        assert window.left + window.mask.shape[1] <= size[1]
        assert float(window.mask.sum()) == float(mask.sum())


def test_a_soft_mask_is_the_weight_where_nothing_is_grown():
    source = noise(1, 100, 100, 3)
    mask = torch.zeros(1, 100, 100)
    mask[:, 40:60, 40:60] = torch.linspace(0.1, 1, 20)
    where = place(mask, Fit(pixels=100 * 100))
    _, shown = stitch(source, crop(source, where)[0], where, Seam(0, 0))
    assert torch.equal(shown, mask)


def test_ten_edits_in_a_row_leave_the_rest_as_it_was():
    first = noise(1, 240, 240, 3)
    picture, touched = first, torch.zeros(1, 240, 240)
    for i in range(10):
        mask = rectangle((240, 240), 20 + 15 * i, 30 + 12 * i, 18, 22)[None]
        where = place(mask, Fit(pixels=64 * 64))
        parts, _ = crop(picture, where)
        picture, shown = stitch(picture, noise(*parts.shape, seed=i), where, SEAM)
        touched = torch.maximum(touched, shown)
    assert 0 < float((touched == 0).float().mean()) < 1
    assert torch.equal(picture[touched == 0], first[touched == 0])


def test_distance_is_scipys_up_to_the_reach():
    region = noise(37, 53) > 0.99
    assert torch.allclose(distance(region, 9).double(), distance_by_scipy(region).clamp(max=10), atol=1e-5)


def test_a_planted_tint_is_found_and_masked_pixels_do_not_count():
    colours = noise(4000, 3).double() * 0.5 + 0.2
    tint = torch.diag(torch.tensor([0.9, 1.1, 0.8]).double())
    tinted = colours @ tint + torch.tensor([0.05, -0.03, 0.1]).double()
    match = colour_map(colours, tinted)
    assert isinstance(match, ColourMap)
    assert float((match(tinted) - colours).abs().max()) < 2e-3
    # In the picture: the part is tinted, its inside is something else altogether.
    source = noise(1, 160, 160, 3) * 0.5 + 0.2
    mask = rectangle((160, 160), 60, 60, 40, 40)[None]
    where = place(mask, Fit(pixels=160 * 160, context=9.0))
    parts = crop(source, where)[0] @ tint.float() + torch.tensor([0.05, -0.03, 0.1])
    parts[:, 60:100, 60:100] = torch.tensor([0.9, 0.1, 0.1])
    result, shown = stitch(source, parts, where, Seam(0, 12))
    seam = (shown > 0) & (mask == 0)
    assert float((result[seam] - source[seam]).abs().max()) < 5e-3
    plain, _ = stitch(source, parts, where, Seam(0, 12, colour=0.0))
    assert float((plain[seam] - source[seam]).abs().max()) > 0.05


def test_missing_grain_is_brought_back():
    clean = torch.full((1, 200, 200, 3), 0.5)
    source = clean + 0.02 * torch.randn(1, 200, 200, 1, generator=torch.Generator().manual_seed(3))
    mask = rectangle((200, 200), 60, 60, 80, 80)[None]
    where = place(mask, Fit(pixels=200 * 200, context=9.0))
    result, _ = stitch(source, clean, where, Seam(0, 4, colour=0.0, grain=1.0))
    assert float(result[0, 70:130, 70:130].std()) == pytest.approx(0.02, rel=0.15)


def test_bad_input_is_named():
    source, mask = noise(1, 200, 200, 3), rectangle((200, 200), 90, 90, 20, 20)[None]
    with pytest.raises(ValueError, match="mask of picture 1 is empty"):
        place(mask * 0, Fit())
    where = place(mask, Fit(pixels=64 * 64))
    parts, _ = crop(source, where)
    with pytest.raises(ValueError, match="190x200"):
        stitch(source[:, :, :190], parts, where, SEAM)
    with pytest.raises(ValueError, match="shape must be the same"):
        stitch(source, parts[:, :32], where, SEAM)
    with pytest.raises(ValueError, match="grow \\+ feather is 90 pixels"):
        stitch(source, parts, where, Seam(40, 50))
    with pytest.raises(ValueError, match="2 edited parts for 3 places"):
        two = place(mask.repeat(3, 1, 1), Fit(pixels=64 * 64))
        stitch(source.repeat(3, 1, 1, 1), parts.repeat(2, 1, 1, 1), two, SEAM)
