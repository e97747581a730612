import pytest
import torch

from eta_core.schedule import ddim_grid
from eta_core.trajectory import Trajectory
from tests.core.toy import scaled_linear_table

GRID = ddim_grid(3, scaled_linear_table())


@pytest.fixture
def trajectory():
    return Trajectory(
        torch.randn(4, 2, 4, 6, 5),
        GRID,
        {"network": "SD15"},
        "f00",
        maps=torch.rand(2, 77, 3, 3),
        prompts=("a cat",),
        inverter="edit_friendly",
    )


def test_the_source_is_the_latent_that_was_inverted(trajectory):
    torch.testing.assert_close(trajectory.latents[0], trajectory.source)
    assert trajectory.picture_size == (48, 40)


def test_an_inverter_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="inverter 'magic' is unknown: use one of ddim, fixed_point, "):
        Trajectory(torch.zeros(4, 1, 4, 2, 2), GRID, {}, "", inverter="magic")


def test_points_that_do_not_fit_the_grid_are_refused():
    with pytest.raises(ValueError, match="over 3 steps"):
        Trajectory(torch.zeros(3, 1, 4, 2, 2), GRID, {}, "")
