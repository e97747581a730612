from itertools import product

import pytest
import torch

from eta_core import masks


def test_the_average_normalises_the_running_mean_of_every_token():
    average = masks.MapAverage()
    first, second = torch.rand(1, 2, 2, 3), torch.rand(1, 2, 2, 3)
    average.add(first.permute(0, 3, 1, 2))
    average.add(second.permute(0, 3, 1, 2))
    average.close_step()
    average.add(second.permute(0, 3, 1, 2))
    average.close_step()
    one = (first + second) / 2
    two = one + second
    expected = sum(m / m.amax((1, 2), keepdim=True) for m in (one, two)).permute(0, 3, 1, 2) / 2
    torch.testing.assert_close(average.result(), expected)


def test_nothing_recorded_is_no_map():
    average = masks.MapAverage()
    average.close_step()
    assert average.result() is None


def test_a_phrase_averages_its_tokens_and_joins_its_repetitions():
    maps = torch.zeros(1, 4, 8, 8)
    maps[:, 0, :4], maps[:, 1, :4], maps[:, 2, 4:], maps[:, 3, 4:] = 1.0, 0.5, 0.2, 0.4
    joined = masks.phrase_map(maps, [(0, 1), (2, 3)], (8, 8))
    torch.testing.assert_close(joined[0, 0], torch.full((8,), 0.75))
    torch.testing.assert_close(joined[0, -1], torch.full((8,), 0.3))


def test_the_stronger_phrase_wins_at_each_pixel():
    a, b = torch.tensor([[[0.9, 0.1]]]), torch.tensor([[[0.2, 0.8]]])
    torch.testing.assert_close(masks.join_phrases([a, b], [1.0, 0.5]), torch.tensor([[[0.9, 0.4]]]))


def test_the_threshold_is_hard_and_zero_leaves_it_soft():
    soft = torch.tensor([[[0.1, 0.2, 0.3]]])
    assert masks.threshold(soft, 0.2).tolist() == [[[0.0, 0.0, 1.0]]]
    assert torch.equal(masks.threshold(soft, 0.0), soft)


@pytest.mark.parametrize(("pixels", "area"), [(0, 1), (1, 5), (2, 13)])
def test_growing_is_by_a_disc(pixels, area):
    mask = torch.zeros(2, 9, 9)
    mask[:, 4, 4] = 1
    grown = masks.dilate(mask, pixels)
    assert grown.sum((1, 2)).tolist() == [area, area]
    assert torch.equal(masks.dilate(grown, -pixels)[:, 4, 4], torch.ones(2))


def test_blur_keeps_the_sum_and_a_constant():
    mask = torch.zeros(1, 31, 31)
    mask[:, 15, 15] = 1
    assert masks.blur(mask, 2.0).sum().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(masks.blur(torch.full((1, 5, 5), 0.7), 9.0), torch.full((1, 5, 5), 0.7))
    assert masks.blur(mask, 0.0) is mask


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("replace", [0.0, 0.6]),
        ("intersect", [0.0, 0.6]),
        ("union", [1.0, 0.8]),
        ("subtract", [1.0, 0.2]),
        ("multiply", [0.0, 0.48]),
    ],
)
def test_a_users_mask_is_combined_as_named(how, expected):
    region, mask = torch.tensor([[[1.0, 0.8]]]), torch.tensor([[[0.0, 0.6]]])
    assert masks.combine(region, mask, how)[0, 0].tolist() == pytest.approx(expected)


def test_one_mask_serves_a_whole_batch():
    assert masks.combine(torch.rand(3, 4, 4), torch.rand(1, 4, 4), "replace").shape == (3, 4, 4)


def test_a_hard_region_survives_the_way_to_the_picture_and_back():
    region = (torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    assert torch.equal(masks.resize_mask(masks.enlarge(region, (40, 56), hard=True), (5, 7)), region)


@pytest.mark.parametrize(
    ("overlap", "first", "second"),
    [
        ("over", [0.4, 0.0], [0.5, 1.0]),
        ("under", [0.8, 0.6], [0.1, 0.4]),
        ("share", [0.8 / 1.3, 0.375], [0.5 / 1.3, 0.625]),
    ],
)
def test_two_edits_that_overlap_share_the_picture_as_named(overlap, first, second):
    a, b = torch.tensor([[[[0.8, 0.6]]]]), torch.tensor([[[[0.5, 1.0]]]])
    weights = masks.resolve([(a, "over"), (b, overlap)])
    assert [w.flatten().tolist() for w in weights] == [pytest.approx(first), pytest.approx(second)]


@pytest.mark.parametrize("overlap", list(masks.OVERLAP))
def test_edits_apart_keep_their_masks(overlap):
    a, b = torch.tensor([[[[0.7, 0.0]]]]), torch.tensor([[[[0.0, 0.4]]]])
    assert all(map(torch.allclose, masks.resolve([(a, overlap), (b, overlap)]), (a, b)))


@pytest.mark.parametrize("overlaps", list(product(masks.OVERLAP, repeat=3)))
def test_the_weights_of_many_edits_never_exceed_the_picture(overlaps):
    g = torch.Generator().manual_seed(1)
    weights = masks.resolve(
        [(torch.rand(1 + i % 2, 1, 8, 8, generator=g), how) for i, how in enumerate(overlaps)]
    )
    assert min(w.min() for w in weights) >= 0
    assert sum(weights).max() <= 1 + 1e-6


def test_edits_replace_the_base_by_their_weights():
    base, a, b = torch.randn(3, 2, 4, 3, 3, generator=torch.Generator().manual_seed(2)).unbind()
    weight_a, weight_b = torch.full((1, 1, 3, 3), 0.5), torch.full((1, 1, 3, 3), 0.2)
    weight_a[..., 0], weight_b[..., 0], weight_a[..., 1], weight_b[..., 1] = 0.0, 0.0, 0.0, 1.0
    composed = masks.compose(base, [a, b], [weight_a, weight_b])
    torch.testing.assert_close(composed[..., 0], base[..., 0])
    torch.testing.assert_close(composed[..., 1], b[..., 1])
    torch.testing.assert_close(composed[..., 2], (0.3 * base + 0.5 * a + 0.2 * b)[..., 2])
    assert masks.compose(base, [], []) is base


def test_every_variant_is_composed_by_its_own_pictures_weight():
    weight = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    composed = masks.compose(torch.zeros(6, 4, 2, 2), [torch.ones(6, 4, 2, 2)], [weight])
    assert composed[:, 0, 0, 0].tolist() == [0, 1, 0, 1, 0, 1]


def test_values_of_a_batch_are_repeated_as_a_whole():
    assert masks.tile_batch(torch.tensor([[1], [2]]), 4).tolist() == [[1], [2], [1], [2]]
    assert masks.tile_batch(torch.tensor([[1]]), 3).tolist() == [[1], [1], [1]]


@pytest.mark.parametrize("count", [2, 3, 6])
def test_edits_that_share_a_place_have_equal_shares(count):
    weights = masks.resolve([(torch.ones(1, 1, 2, 2), "share")] * count)
    for weight in weights:
        torch.testing.assert_close(weight, torch.full((1, 1, 2, 2), 1 / count))


def test_shares_do_not_depend_on_the_order():
    each = [torch.rand(1, 1, 4, 4) for _ in range(3)]
    forward, backward = (masks.resolve([(mask, "share") for mask in some]) for some in (each, each[::-1]))
    for one, other in zip(forward, backward[::-1]):
        torch.testing.assert_close(one, other)


def test_a_mask_over_shared_ones_takes_its_part_of_them_all():
    over = torch.rand(1, 1, 4, 4)
    one = torch.ones(1, 1, 4, 4)
    found = masks.resolve([(one, "share"), (one, "share"), (over, "over")])
    for weight, wanted in zip(found, ((1 - over) / 2, (1 - over) / 2, over)):
        torch.testing.assert_close(weight, wanted)


def test_an_overlap_nobody_knows_is_named():
    with pytest.raises(ValueError, match="overlap is 'above': use one of over, under, share"):
        masks.resolve([(torch.ones(1, 1, 2, 2), "above")])


@pytest.mark.parametrize("pixels", [1, 2, 5, 9, 40])
@pytest.mark.parametrize("hard", [True, False])
def test_a_mask_grows_by_a_disc(hard, pixels):
    mask = torch.rand(2, 13, 17, generator=torch.Generator().manual_seed(3))
    mask = (mask > 0.95).float() if hard else mask
    y, x = torch.meshgrid(torch.arange(13), torch.arange(17), indexing="ij")
    near = (y[..., None, None] - y) ** 2 + (x[..., None, None] - x) ** 2 <= pixels * pixels
    wanted = (mask[:, None, None] * near).amax((-2, -1))
    assert torch.equal(masks.dilate(mask, pixels), wanted)
    assert torch.equal(masks.dilate(1 - mask, -pixels), 1 - wanted)


def test_otsu_parts_two_groups_and_says_how_far_they_are_apart():
    low, high = torch.full((1, 6, 8), 0.2), torch.full((1, 2, 8), 0.7)
    noise = 0.05 * torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    soft = torch.cat([low, high], 1) + noise
    assert soft[:, :6].max() <= masks.otsu(soft) < soft[:, 6:].min()
    assert masks.contrast(soft) == pytest.approx(0.5, abs=0.02)
    both = torch.cat([soft, 0.5 * soft])
    assert masks.threshold(both, None).sum((1, 2)).tolist() == [16, 16]
    assert masks.contrast(torch.full((1, 8, 8), 0.3)) == 0


def test_otsus_level_has_the_most_variance_between_the_groups():
    values = torch.rand(1000, generator=torch.Generator().manual_seed(3)).square()

    def between(level: float) -> float:
        high = values > level
        share = high.double().mean()
        return float(share * (1 - share) * (values[high].mean() - values[~high].mean()) ** 2)

    found = between(masks.otsu(values))
    assert all(between(level) <= found + 1e-5 for level in torch.linspace(0.05, 0.95, 91).tolist())
