import math

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from eta_core.evidence import metrics

SIZE = 200  # large enough for all five scales


def noisy(batch: int = 1, size: int = SIZE, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth pictures and the same with noise, [B, size, size, 3] in 0..1, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 12, 12, generator=generator, dtype=torch.float64)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").movedim(1, -1).clamp(0, 1)
    noise = torch.randn(smooth.shape, generator=generator, dtype=torch.float64)
    return smooth, (smooth + 0.05 * noise).clamp(0, 1)


def disc(size: int = SIZE) -> torch.Tensor:
    place = torch.arange(size) - size / 2 + 0.5
    return (place[:, None] ** 2 + place**2 < (size / 5) ** 2).double()[None]


def test_psnr_of_a_known_error():
    a = torch.zeros(2, 4, 4, 3)
    assert metrics.psnr(a, a + 0.1).tolist() == pytest.approx([20.0, 20.0], abs=1e-4)
    assert metrics.psnr(a, a).isinf().all()


def test_the_background_is_what_the_mask_leaves():
    a, b = torch.zeros(1, 4, 4, 3), torch.zeros(1, 4, 4, 3)
    b[:, :2] = 1.0
    b[:, 2:] = 0.01
    mask = torch.zeros(1, 4, 4)
    mask[:, :2] = 1
    assert metrics.background_psnr(a, b, mask).item() == pytest.approx(40.0, abs=1e-3)


def test_a_mask_without_background_is_refused():
    with pytest.raises(ValueError, match="no pixel"):
        metrics.background_psnr(torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 3), torch.ones(1, 2, 2))


# --- structural similarity ------------------------------------------------------------------------


def filtered(x: np.ndarray) -> np.ndarray:
    """scipy's correlation under Wang's window, where the window lies wholly inside."""
    window = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    for axis in (0, 1):
        x = correlate1d(x, window / window.sum(), axis)
    return x[5:-5, 5:-5]


def parts_by_scipy(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """SSIM and contrast-structure of two pictures of one colour, by the paper's formulas."""
    mean_a, mean_b = filtered(a), filtered(b)
    var_a, var_b, shared = (
        filtered(p * q) - m * n
        for p, q, m, n in ((a, a, mean_a, mean_a), (b, b, mean_b, mean_b), (a, b, mean_a, mean_b))
    )
    light = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
    contrast = (2 * shared + 0.03**2) / (var_a + var_b + 0.03**2)
    return float((light * contrast).mean()), float(contrast.mean())


def test_ssim_is_wangs_as_scipy_computes_it():
    a, b = noisy(size=60)
    expected = np.mean([parts_by_scipy(a[0, ..., c].numpy(), b[0, ..., c].numpy())[0] for c in range(3)])
    assert metrics.ssim(a, b).item() == pytest.approx(expected, abs=1e-12)


def test_ssim_of_two_plain_pictures_is_its_brightness_term():
    a = torch.full((1, 32, 32, 3), 0.2, dtype=torch.float64)
    expected = (2 * 0.2 * 0.7 + 1e-4) / (0.2**2 + 0.7**2 + 1e-4)
    assert metrics.ssim(a, a + 0.5).item() == pytest.approx(expected, abs=1e-9)
    assert metrics.ssim(a, a + 0.5, torch.ones(1, 32, 32)).item() == pytest.approx(expected, abs=1e-9)


def test_ms_ssim_is_wangs_as_scipy_computes_it():
    a, b = (picture[..., :1] for picture in noisy())
    expected, x, y = 1.0, a[0, ..., 0].numpy(), b[0, ..., 0].numpy()
    for i, power in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        full, contrast = parts_by_scipy(x, y)
        expected *= (full if i == 4 else contrast) ** power
        side = len(x) // 2
        x, y = (p[: 2 * side, : 2 * side].reshape(side, 2, side, 2).mean((1, 3)) for p in (x, y))
    # the paper's powers sum to 1.0001; here they are made to sum to 1
    assert metrics.ms_ssim(a, b).item() == pytest.approx(expected ** (1 / 1.0001), abs=1e-10)


@pytest.mark.parametrize(("size", "scales"), [(11, 1), (22, 2), (43, 2), (88, 4), (175, 4), (176, 5)])
def test_a_small_picture_has_as_many_scales_as_fit(size, scales, monkeypatch):
    seen = []
    real = metrics._structure
    monkeypatch.setattr(
        metrics, "_structure", lambda *planes: seen.append(planes[0].shape[-1]) or real(*planes)
    )
    assert 0 < metrics.ms_ssim(*noisy(size=size)).item() < 1
    assert seen == [size // 2**i for i in range(scales)]


def test_ssim_outside_a_mask_is_that_of_windows_over_the_pixels_outside():
    """By the definition, pixel by pixel."""
    a, b = (picture[..., :1] for picture in noisy(size=16))
    outside = 1 - disc(16)
    place = torch.arange(16, dtype=torch.float64)
    values = []
    for y, x in outside[0].nonzero():
        near = ((place - y).abs() <= 5)[:, None] & ((place - x).abs() <= 5)
        weight = torch.exp(-((place - y)[:, None] ** 2 + (place - x) ** 2) / (2 * 1.5**2)) * near * outside[0]
        weight = weight / weight.sum()
        p, q = a[0, ..., 0], b[0, ..., 0]
        m, n = (weight * p).sum(), (weight * q).sum()
        shared, *own = (
            (weight * u * v).sum() - j * k for u, v, j, k in ((p, q, m, n), (p, p, m, m), (q, q, n, n))
        )
        values.append((2 * m * n + 1e-4) * (2 * shared + 9e-4) / ((m**2 + n**2 + 1e-4) * (sum(own) + 9e-4)))
    assert metrics.ssim(a, b, outside).item() == pytest.approx(float(torch.stack(values).mean()), abs=1e-12)


def test_what_lies_in_the_mask_changes_no_background_figure():
    a, b = noisy()
    mask = disc()
    other = torch.where(mask[..., None] > 0, 1 - b, b)
    first, second = metrics.measure(a, b, mask)[0], metrics.measure(a, other, mask)[0]
    same = [name for name in first if name.startswith(("background_", "pie_"))]
    assert [first[name] for name in same] == pytest.approx([second[name] for name in same], rel=1e-9)
    assert second["changed_area"] > first["changed_area"]


# --- colour ---------------------------------------------------------------------------------------

# Pairs of the test data that Sharma, Wu and Dalal (2005) publish with their paper: L*a*b* twice, CIEDE2000.
SHARMA = [
    ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
    ((50.0, -1.3802, -84.2814), (50.0, 0.0, -82.7485), 1.0000),
    ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
    ((50.0, 2.4900, -0.0010), (50.0, -2.4900, 0.0009), 7.1792),
    ((50.0, 2.4900, -0.0010), (50.0, -2.4900, 0.0011), 7.2195),
    ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("first", "second", "expected"), SHARMA)
def test_ciede2000_of_published_pairs(first, second, expected):
    first, second = (torch.tensor(colour, dtype=torch.float64) for colour in (first, second))
    assert metrics.delta_e_of_lab(first, second).item() == pytest.approx(expected, abs=5e-5)
    assert metrics.delta_e_of_lab(second, first).item() == pytest.approx(expected, abs=5e-5)


def test_white_grey_and_red_in_lab():
    """Red by hand: CIE 15's cube roots of sRGB's red primary over white D65."""
    colours = torch.tensor(
        [[1.0, 1.0, 1.0], [0.5, 0.5, 0.5], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64
    )
    white, grey, black, red = metrics.lab(colours).tolist()
    assert white == pytest.approx([100, 0, 0], abs=1e-6)
    assert grey == pytest.approx([116 * (((0.5 + 0.055) / 1.055) ** 2.4) ** (1 / 3) - 16, 0, 0], abs=1e-6)
    assert black == pytest.approx([0, 0, 0], abs=1e-6)
    x, y, z = (part ** (1 / 3) for part in (0.4124 / 0.9505, 0.2126, 0.0193 / 1.0890))
    assert red == pytest.approx([116 * y - 16, 500 * (x - y), 200 * (y - z)], abs=1e-3)


# --- the whole table ------------------------------------------------------------------------------


def test_every_figure_of_a_picture_counted_by_hand():
    """The left half is the mask and turns from black to white; of the right half, grey, a quarter gets
    brighter by 0.1.
    """
    source, edited, mask = torch.zeros(1, 16, 16, 3), torch.zeros(1, 16, 16, 3), torch.zeros(1, 16, 16)
    mask[..., :8] = 1
    source[..., 8:, :] = edited[..., 8:, :] = 0.5
    edited[:, :, :8] = 1
    edited[:, :4, 8:] = 0.6
    (found,) = metrics.measure(source, edited, mask)
    dark, light = (116 * ((v + 0.055) / 1.055) ** 0.8 - 16 for v in (0.5, 0.6))
    off = (dark + light) / 2 - 50
    step = (light - dark) / (1 + 0.015 * off**2 / math.sqrt(20 + off**2))  # CIEDE2000 of two greys
    expected = {
        "background_mse": 0.1**2 / 4,
        "background_psnr": -10 * math.log10(0.1**2 / 4),
        "background_mean_difference": step / 4,
        "background_max_difference": step,
        "background_changed_area": 25.0,
        "changed_area": 62.5,
        "pie_mse": 0.1**2 / 8,
        "pie_psnr": -10 * math.log10(0.1**2 / 8),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert metrics.measure(source, edited, mask, visible=step + 0.1)[0]["background_changed_area"] == 0


def test_pie_bench_is_the_whole_frame_of_both_pictures_times_one_minus_the_mask():
    a, b = noisy()
    mask = disc()
    (found,) = metrics.measure(a, b, mask)
    (whole,) = metrics.measure(*(picture * (1 - mask)[..., None] for picture in (a, b)))
    for name in ("psnr", "mse"):
        assert found[f"pie_{name}"] == whole[f"pie_{name}"] == pytest.approx(whole[f"background_{name}"])
    assert found["pie_psnr"] > found["background_psnr"]


def test_a_soft_mask_leaves_as_background_only_what_it_does_not_touch():
    a, b = noisy(size=32)
    mask = 0.3 * disc(32)
    assert (
        metrics.measure(a, b, mask)[0]["background_mse"]
        == metrics.measure(a, b, disc(32))[0]["background_mse"]
    )
    assert metrics.measure(a, b, mask)[0]["pie_mse"] > metrics.measure(a, b, disc(32))[0]["pie_mse"]


def test_without_a_mask_the_whole_picture_is_background():
    a, b = noisy(size=32)
    assert metrics.measure(a, b) == metrics.measure(a, b, torch.zeros(1, 32, 32))
    assert metrics.measure(a, b)[0]["background_mse"] == pytest.approx((a - b).square().mean().item())


def test_an_equal_picture_is_perfect():
    a, _ = noisy()
    (found,) = metrics.measure(a, a.clone(), disc())
    perfect = {
        "psnr": math.inf,
        "mse": 0,
        "ssim": 1,
        "ms_ssim": 1,
        "difference": 0,
        "area": 0,
        "differing": 0,
    }
    for name, value in found.items():
        assert value == pytest.approx(
            next(v for end, v in perfect.items() if name.endswith(end)), abs=1e-9
        ), name


def test_a_picture_without_background_has_no_background_figure():
    a, b = noisy(size=32)
    (found,) = metrics.measure(a, b, torch.ones(1, 32, 32))
    assert [name for name, value in found.items() if not math.isnan(value)] == ["changed_area"]


def test_each_picture_of_a_batch_is_measured_alone():
    a, b = noisy(batch=3, size=32)
    masks = torch.stack([disc(32)[0], torch.zeros(32, 32), torch.ones(32, 32)])
    together = metrics.measure(a, b, masks)
    alone = [metrics.measure(a[i : i + 1], b[i : i + 1], masks[i : i + 1])[0] for i in range(3)]
    assert [list(map(str, row.values())) for row in together] == [
        list(map(str, row.values())) for row in alone
    ]


def test_half_precision_and_a_fourth_channel_are_taken():
    a, b = noisy(size=32)
    with_alpha = torch.cat([b, torch.rand(1, 32, 32, 1)], -1)
    assert metrics.measure(a, with_alpha) == metrics.measure(a, b)
    assert metrics.measure(a.half(), b.half())[0]["background_mse"] == pytest.approx(0.0025, rel=0.2)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"edited": torch.zeros(1, 8, 9, 3)}, "edited .*8, 9, 3.*one batch and size"),
        ({"edited": torch.zeros(2, 8, 8, 3)}, "one batch and size"),
        ({"source": torch.zeros(1, 8, 8, 1)}, "3 or 4"),
        ({"mask": torch.zeros(1, 4, 8)}, "mask is .*4, 8"),
        ({"mask": torch.zeros(2, 8, 8)}, "1 or 1"),
        ({"mask": torch.full((1, 8, 8), 255.0)}, "255 to 255"),
        ({"source": torch.full((1, 8, 8, 3), math.nan)}, "source holds NaN"),
        ({"edited": torch.full((1, 8, 8, 3), math.inf)}, "edited holds NaN or infinite"),
    ],
)
def test_what_cannot_be_measured_is_named(change, named):
    inputs = {"source": torch.zeros(1, 8, 8, 3), "edited": torch.zeros(1, 8, 8, 3), "mask": None}
    with pytest.raises(ValueError, match=named):
        metrics.measure(**inputs | change)


def test_structure_distance_of_features_counted_by_hand():
    """Two tokens at a right angle against two alike: two of the four cosines differ by 1."""
    apart = torch.tensor([[[3.0, 0.0], [0.0, 2.0]]])
    alike = torch.tensor([[[1.0, 1.0], [5.0, 5.0]]])
    assert metrics.structure_distance(apart, alike).item() == pytest.approx(0.5)
    assert metrics.structure_distance(apart, 7 * apart).item() == pytest.approx(0, abs=1e-12)


def test_structure_distance_is_measured_where_features_are_given():
    a, b = noisy(batch=2, size=16)
    found = metrics.measure(a, b, features=lambda picture: picture.flatten(1, 2))
    expected = metrics.structure_distance(a.flatten(1, 2), b.flatten(1, 2)).tolist()
    assert [row["structure_distance"] for row in found] == pytest.approx(expected)


def test_every_figure_has_a_name_and_a_direction():
    a, b = noisy(size=16)
    found = metrics.measure(a, b, features=lambda picture: picture.flatten(1, 2))[0]
    assert set(found) <= set(metrics.METRICS)
    assert {m.better for m in metrics.METRICS.values()} == {"higher", "lower", ""}


def test_iou():
    a = torch.tensor([[[True, True, False]], [[False] * 3]])
    b = torch.tensor([[[False, True, True]], [[False] * 3]])
    assert metrics.iou(a, b).tolist() == pytest.approx([1 / 3, 1.0])
