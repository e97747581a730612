"""The forward loops on models in closed form."""

import math

import pytest
import torch

from eta_core.ddim import invert_step
from eta_core.edit import Prediction, sample_target
from eta_core.eta import EtaSchedule
from eta_core.frame import DIFFUSION, FLOW
from eta_core.invert import evaluations, invert, invert_by_midpoints, play_back, record
from eta_core.noise import EtaNoise, NoiseSettings
from eta_core.schedule import ddim_grid, grid_from_levels
from tests.core.toy import gaussian_denoiser, scaled_linear_table, two_peaks_denoiser

GRID = ddim_grid(20, scaled_linear_table())
GAUSS, PEAKS = gaussian_denoiser(0.5, 0.8), two_peaks_denoiser(1.0, 0.8)


@pytest.fixture
def latent():
    return 0.5 + 0.8 * torch.randn(3, 4, 8, 6, generator=torch.Generator().manual_seed(1))


def played_back(denoise, x, grid=GRID):
    noise = EtaNoise(NoiseSettings(EtaSchedule(((0.0, 0.0),)), (0,)), x)
    return sample_target(
        lambda step, source, x, needed: Prediction(None, denoise(x, step.sigma)), grid, noise
    )


def test_the_inversion_keeps_every_point_and_ends_in_the_models_noise(latent):
    x, _ = invert(GAUSS, latent, GRID)
    assert x.shape == (21, 3, 4, 8, 6)
    assert x[-1].std().item() == pytest.approx((GRID.sigmas[-1] ** 2 + 0.8**2) ** 0.5, rel=0.1)


def test_one_iteration_is_the_references_pass_and_has_no_residual(latent):
    x, residual = invert(PEAKS, latent, GRID, iterations=1)
    expected = latent * DIFFUSION.scale(GRID.sigmas[0])
    for i in range(GRID.steps):
        assert torch.equal(x[i], expected)
        expected = invert_step(PEAKS, expected, GRID.sigmas[i], GRID.sigmas[i + 1])
    assert torch.equal(x[-1], expected)
    assert math.isnan(residual)


@pytest.mark.parametrize("denoise", [GAUSS, PEAKS])
def test_more_iterations_come_nearer_to_the_fixed_point_and_play_back_nearer_to_the_source(latent, denoise):
    residuals, errors = [], []
    for iterations in (1, 2, 4, 8):
        x, residual = invert(denoise, latent, GRID, iterations=iterations)
        residuals.append(residual)
        errors.append((played_back(denoise, x) - x[0]).norm().item())
    assert residuals[1] > 4 * residuals[2] > 16 * residuals[3] > 0
    assert errors[0] > 2 * errors[1] > 4 * errors[2] > 8 * errors[3]


@pytest.mark.parametrize("denoise", [GAUSS, PEAKS])
def test_a_warm_start_plays_back_twice_as_close_for_one_evaluation_more(latent, denoise):
    seen = []

    def counted(x, sigma):
        seen.append(sigma)
        return denoise(x, sigma)

    grid = ddim_grid(50, scaled_linear_table())
    x, residual = invert(counted, latent, grid, iterations=2, warm=True)
    assert seen == [grid.sigmas[1], *grid.sigmas[1:]] and residual > 0
    plain, _ = invert(denoise, latent, grid)
    errors = [(played_back(denoise, each, grid) - each[0]).norm() for each in (x, plain)]
    assert errors[0] < 0.5 * errors[1]


def true_path(latent, grid):
    """Where the exact flow of GAUSS takes a latent: the deviation grows as sqrt(0.8^2 + sigma^2)."""
    x, low = latent * grid.scales[0], grid.sigmas[0]
    spread = (0.64 + torch.tensor(grid.sigmas, dtype=torch.float64) ** 2).sqrt()
    return 0.5 + (x - 0.5) * (spread / (0.64 + low**2) ** 0.5).float().view(-1, 1, 1, 1, 1)


def flow_grid(steps):
    return grid_from_levels([1 - i / steps for i in range(steps + 1)], FLOW, ())


GRIDS = {"diffusion": lambda n: ddim_grid(n, scaled_linear_table()), "flow": flow_grid}


@pytest.mark.parametrize("grid_of", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("carried", [False, True])
def test_midpoints_follow_the_true_path_in_second_order(latent, grid_of, carried):
    def error(grid, x):
        """Worst over the way, in the model's own latents."""
        scales = torch.tensor(grid.scales).view(-1, 1, 1, 1, 1)
        return ((x - true_path(latent, grid)) / scales).square().mean((1, 2, 3, 4)).sqrt()[:-1].max()

    few, many = grid_of(20), grid_of(40)
    errors = [error(g, invert_by_midpoints(GAUSS, latent, g, carried=carried)) for g in (few, many)]
    assert errors[1] < errors[0] / 2.5
    assert errors[0] < 0.5 * error(few, invert(GAUSS, latent, few)[0])


@pytest.mark.parametrize("grid_of", GRIDS.values(), ids=GRIDS)
def test_every_inverter_asks_the_network_as_often_as_it_says(latent, grid_of):
    grid, seen = grid_of(10), []

    def counted(x, sigma):
        seen.append(sigma)
        return GAUSS(x, sigma)

    def asked(run):
        seen.clear()
        run()
        return len(seen)

    assert asked(lambda: invert(counted, latent, grid)) == evaluations("ddim", 10, 3)
    assert asked(lambda: invert(counted, latent, grid, iterations=3)) == evaluations("fixed_point", 10, 3)
    assert asked(lambda: invert(counted, latent, grid, iterations=2, warm=True)) == evaluations("warm", 10, 3)
    assert asked(lambda: invert_by_midpoints(counted, latent, grid)) == evaluations("midpoint", 10, 3)
    carried = asked(lambda: invert_by_midpoints(counted, latent, grid, carried=True))
    assert carried == evaluations("fireflow", 10, 3) == 11


def test_a_picture_of_a_batch_is_inverted_as_if_alone(latent):
    together, _ = invert(PEAKS, latent, GRID, iterations=3)
    for i in range(3):
        alone, _ = invert(PEAKS, latent[i : i + 1], GRID, iterations=3)
        torch.testing.assert_close(together[:, i : i + 1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("iterations", "events"), [(1, "d|"), (3, "ddd|")])
def test_a_step_closes_once_after_all_its_evaluations(latent, iterations, events):
    seen = []

    def counted(x, sigma):
        seen.append("d")
        return GAUSS(x, sigma)

    invert(counted, latent, GRID, lambda: seen.append("|"), iterations)
    assert "".join(seen) == events * GRID.steps


def test_a_recorded_point_is_the_picture_with_noise_of_its_level(latent):
    x = record(GAUSS, latent, GRID, seed=4)
    assert x.shape == (21, 3, 4, 8, 6)
    assert torch.equal(x[0], latent * DIFFUSION.scale(GRID.sigmas[0]))
    noise = torch.stack([(x[i] - latent) / GRID.sigmas[i] for i in range(1, 21)])
    assert noise.flatten(1).std(1).tolist() == pytest.approx([1.0] * 20, abs=0.2)
    levels = torch.corrcoef(noise[:, 0].flatten(1)) - torch.eye(20)
    assert levels.abs().max() < 0.35  # every level has noise of its own: that is what edit-friendly means
    torch.testing.assert_close(noise[:, 0], noise[:, 2], rtol=0, atol=1e-3)  # pictures meet the same


def test_a_recorded_picture_of_a_batch_equals_the_picture_alone_and_the_seed_matters(latent):
    together = record(GAUSS, latent, GRID, seed=4)
    assert torch.equal(together[:, 1:2], record(GAUSS, latent[1:2], GRID, seed=4))
    assert not torch.allclose(together[1:], record(GAUSS, latent, GRID, seed=5)[1:], atol=1e-2)


def test_the_network_sees_every_recorded_point_at_its_level(latent):
    seen = []
    x = record(
        lambda x, sigma: seen.append((x.clone(), sigma)), latent, GRID, 4, lambda: seen.append("closed")
    )
    assert seen[1::2] == ["closed"] * 20
    assert [sigma for _, sigma in seen[::2]] == list(GRID.sigmas[1:])
    assert torch.equal(torch.stack([point for point, _ in seen[::2]]), x[1:])


def test_a_network_that_always_sees_the_same_noise_plays_back_without_drift():
    noise = torch.randn(1, 4, 6, 5, generator=torch.Generator().manual_seed(8))
    latent = torch.randn(1, 4, 6, 5, generator=torch.Generator().manual_seed(9))

    def denoise(x, sigma):
        return x - sigma * noise

    drift, end = play_back(denoise, invert(denoise, latent, GRID)[0], GRID)
    assert drift.shape == (GRID.steps + 1,)
    assert float(drift.max()) < 1e-5
    torch.testing.assert_close(end, latent, rtol=0, atol=1e-5)


def test_drift_is_measured_against_the_pictures_own_deviation():
    latent = torch.randn(1, 4, 6, 5, generator=torch.Generator().manual_seed(9))
    x = torch.stack([latent * scale for scale in GRID.scales])
    drift, end = play_back(lambda x, sigma: torch.zeros_like(x), x, GRID)
    expected = end.sub(latent).square().mean().sqrt() / latent.std()
    assert drift[0] == pytest.approx(float(expected), rel=1e-5)
    assert drift[-1] == 0
