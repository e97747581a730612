"""FlowEdit's loop on models in closed form."""

import pytest
import torch

from eta_core.edit import Prediction
from eta_core.eta import EtaSchedule
from eta_core.flow_edit import noised_path, sample_delta
from eta_core.frame import FLOW
from eta_core.hold import NO_HOLD, Hold
from eta_core.schedule import ddim_grid, grid_from_levels
from tests.core.toy import gaussian_denoiser, scaled_linear_table

SOURCE, TARGET = gaussian_denoiser(0.5, 0.8), gaussian_denoiser(-1.5, 0.8)
STEPS = 200
GRIDS = {
    "diffusion": ddim_grid(STEPS, scaled_linear_table()),
    "flow": grid_from_levels([1 - i / STEPS for i in range(STEPS + 1)], FLOW, ()),
}
ALL, NONE = EtaSchedule(((0.0, 1.0),)), EtaSchedule(((0.0, 0.0),))
every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


@pytest.fixture
def latent():
    return 0.5 + 0.8 * torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(1))


def edited(latent, grid, target=TARGET, eta=ALL, seed=0, hold=NO_HOLD, first=None):
    def predict(step, source, x, needed):
        assert needed
        return Prediction(SOURCE(source, step.sigma), target(x, step.sigma))

    return sample_delta(predict, noised_path(latent, grid, eta, seed), grid, hold, first)


@every_grid
def test_the_same_prompt_on_both_sides_leaves_the_picture_as_it_is(latent, grid):
    torch.testing.assert_close(edited(latent, grid, SOURCE), latent, rtol=0, atol=1e-5)


@every_grid
@pytest.mark.parametrize("eta", [ALL, NONE])
def test_a_picture_moves_from_one_mean_to_the_other_and_keeps_its_details(latent, grid, eta):
    """Between normal distributions of one width the true way is the difference of the means, everywhere."""
    moved = edited(latent, grid, eta=eta) - latent
    assert moved.std() < 1e-4  # no detail is lost, and no noise left behind
    assert moved.mean() == pytest.approx(-2.0, rel=0.1)


def test_the_delta_form_ends_where_its_equation_says(latent):
    """d delta / d sigma = (1 - k)(delta - difference) / sigma, where k = s^2 / (s^2 + sigma^2)."""
    grid = GRIDS["diffusion"]
    moved = (edited(latent, grid) - latent).mean()
    expected = -2.0 * (1 - 0.8 / (0.64 + grid.sigmas[-1] ** 2) ** 0.5)
    assert moved == pytest.approx(expected, rel=0.03)


@every_grid
def test_a_later_start_moves_the_picture_less(latent, grid):
    moves = [(edited(latent, grid, first=n) - latent).abs().mean() for n in (STEPS, STEPS // 2, STEPS // 10)]
    assert moves[0] > moves[1] > moves[2] > 0


@every_grid
def test_what_is_held_stays_the_source(latent, grid):
    lock = torch.zeros(1, 1, 8, 6)
    lock[..., 3:] = 1.0
    after = edited(latent, grid, hold=Hold(lock))
    assert torch.equal(after[..., 3:], latent[..., 3:])
    assert (after - latent)[..., :3].mean() < -1.5


@every_grid
def test_eta_says_how_much_of_the_noise_each_step_renews(latent, grid):
    def noises(eta):
        path = noised_path(latent, grid, eta, 3)
        found = torch.stack([(path[i] - latent)[0].flatten() / grid.sigmas[i] for i in range(1, STEPS + 1)])
        return torch.corrcoef(found), found.std(1)

    for eta, neighbours in ((0.0, 1.0), (0.6, 0.8), (1.0, 0.0)):
        correlation, deviation = noises(EtaSchedule(((0.0, eta),)))
        assert correlation.diagonal(1).mean() == pytest.approx(neighbours, abs=0.05)
        assert deviation.mean() == pytest.approx(1.0, abs=0.15)
    assert torch.equal(noised_path(latent, grid, ALL, 3)[0], latent * grid.scales[0])
