"""Where an edit acts, on models whose answers are known."""

import pytest
import torch

from eta_core.ddim import stored_answer
from eta_core.edit_map import by_both, by_trajectory, difference_map, keeps_answers, spread_steps
from eta_core.frame import DIFFUSION, FLOW
from eta_core.invert import invert
from eta_core.schedule import ddim_grid, grid_from_levels
from eta_core.trajectory import Trajectory
from tests.core.toy import scaled_linear_table, two_peaks_denoiser

PEAKS = two_peaks_denoiser(1.0, 0.8)
GRIDS = {
    "diffusion": ddim_grid(20, scaled_linear_table()),
    "flow": grid_from_levels(
        [0.95 - i * 0.95 / 20 for i in range(21)], FLOW, [i / 1000 for i in range(1, 1001)]
    ),
}


@pytest.fixture(params=GRIDS)
def grid(request):
    return GRIDS[request.param]


@pytest.fixture
def latent():
    return 0.5 + 0.8 * torch.randn(2, 4, 8, 6, generator=torch.Generator().manual_seed(1))


def test_what_the_network_answered_follows_from_the_trajectory(grid, latent):
    asked = []

    def denoise(x, sigma):
        asked.append((x, PEAKS(x, sigma)))
        return asked[-1][1]

    x, _ = invert(denoise, latent, grid)
    for i, (seen, answered) in enumerate(asked):
        found = stored_answer(x[i], x[i + 1], grid.sigmas[i], grid.sigmas[i + 1], grid.frame)
        torch.testing.assert_close(found[0], seen, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found[1], answered, atol=2e-3, rtol=0)


def test_the_map_shows_where_the_target_answers_otherwise(grid, latent):
    shift = torch.zeros(1, 1, 8, 6)
    shift[..., 2:5, 1:3], shift[..., 6, 5] = 1.0, 0.5
    x, _ = invert(PEAKS, latent, grid)
    trajectory = Trajectory(x, grid, {}, "")
    chosen = spread_steps(grid.steps, 3)
    found = by_trajectory(trajectory, chosen, lambda x, sigma: PEAKS(x, sigma) + sigma * shift)
    torch.testing.assert_close(found, shift[:, 0].expand(2, -1, -1), atol=2e-2, rtol=0)
    both = by_both(trajectory, chosen, lambda x, sigma: (PEAKS(x, sigma), PEAKS(x, sigma) + sigma * shift))
    torch.testing.assert_close(both, shift[:, 0].expand(2, -1, -1), atol=1e-4, rtol=0)


def test_each_level_counts_alike():
    low, high = torch.zeros(2, 1, 1, 2, 2)
    low[..., 0, 0], high[..., 0, 1] = 0.001, 10.0
    found = difference_map([(torch.zeros_like(low), low), (torch.zeros_like(high), high)])
    assert found[0].tolist() == [[1, 1], [0, 0]]


def test_the_steps_are_spread_over_the_whole_way():
    assert spread_steps(20, 4) == [3, 8, 13, 18]
    assert spread_steps(20, 20) == list(range(1, 21))
    assert spread_steps(1, 1) == [1]


def test_only_a_plain_inversion_keeps_the_sources_answers(latent):
    x = torch.zeros(21, 1, 4, 8, 6)

    def kept(**fields):
        return keeps_answers(Trajectory(x, GRIDS["diffusion"], {}, "", **fields))

    assert kept() and kept(inverter="negative_prompt")
    assert not any((kept(cfg=2.0), kept(inverter="warm"), kept(inverter="edit_friendly")))
    assert DIFFUSION is GRIDS["diffusion"].frame
