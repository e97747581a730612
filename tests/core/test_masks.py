import pytest
import torch

from eta_core import masks


def test_the_average_normalises_the_running_mean_of_every_token():
    average = masks.MapAverage()
    first, second = torch.rand(1, 2, 2, 3), torch.rand(1, 2, 2, 3)
    average.add(first)
    average.add(second)
    average.close_step()
    average.add(second)
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
    assert masks.harden(soft, 0.2).tolist() == [[[0.0, 0.0, 1.0]]]
    assert torch.equal(masks.harden(soft, 0.0), soft)


@pytest.mark.parametrize(("pixels", "area"), [(0, 1), (1, 5), (2, 13)])
def test_growing_is_by_a_disc(pixels, area):
    mask = torch.zeros(2, 9, 9)
    mask[:, 4, 4] = 1
    grown = masks.grow(mask, pixels)
    assert grown.sum((1, 2)).tolist() == [area, area]
    assert torch.equal(masks.grow(grown, -pixels)[:, 4, 4], torch.ones(2))


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
