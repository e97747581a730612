import pytest

from eta_core.frame import DIFFUSION, FLOW
from eta_core.schedule import Grid, ddim_grid, grid_from_levels
from tests.core.toy import scaled_linear_table

TABLE = scaled_linear_table()


@pytest.mark.parametrize(("steps", "last"), [(5, 801), (30, 958), (50, 981), (100, 991), (999, 999)])
def test_the_reference_grid_starts_at_t_1_and_ends_where_the_reference_does(steps, last):
    grid = ddim_grid(steps, TABLE)
    assert grid.steps == steps
    assert grid.sigmas[0] == pytest.approx(0.029167, abs=1e-6)
    assert grid.sigmas[1] == TABLE[1]
    assert grid.times[-1] == last / 999
    assert grid.sigmas[-1] == TABLE[last]


@pytest.mark.parametrize("steps", [0, -3, 1000])
def test_steps_the_model_has_no_room_for_are_refused(steps):
    with pytest.raises(ValueError, match=f"steps = {steps}.*use 1 to 999"):
        ddim_grid(steps, TABLE)


def test_a_level_of_the_table_has_its_own_time():
    assert DIFFUSION.time(TABLE[981], TABLE) == pytest.approx(981 / 999, abs=1e-12)
    assert DIFFUSION.time(0.0, TABLE) == 0.0
    assert TABLE[500] < (middle := (TABLE[500] * TABLE[501]) ** 0.5) < TABLE[501]
    assert DIFFUSION.time(middle, TABLE) == pytest.approx(500.5 / 999, abs=1e-9)


def test_a_sampler_schedule_is_taken_from_its_noise_end():
    grid = grid_from_levels([14.6, 1.0, 0.0], DIFFUSION, TABLE)
    assert grid.sigmas == (0.0, 1.0, 14.6)
    assert [s.sigma for s in grid.downward()] == [14.6, 1.0]


def test_levels_that_repeat_are_refused():
    with pytest.raises(ValueError, match="fewer steps"):
        Grid((0.0, 1.0, 1.0), (0.0, 0.5, 0.5))


def test_a_level_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="finite"):
        Grid((0.0, float("nan")), (0.0, 0.5))


def test_a_flows_grid_has_its_own_times_and_stops_short_of_pure_noise():
    grid = grid_from_levels([1.0, 0.75, 0.5, 0.0], FLOW, TABLE)
    assert grid.times == (0.0, 0.5, 0.75, 1 - 2**-10)
    assert grid.sigmas == (0.0, 1.0, 3.0, 1023.0)
    assert grid.levels == grid.times
    assert grid.scales == (1.0, 2.0, 4.0, 1024.0)


def test_a_flows_grid_of_very_many_steps_still_ascends():
    assert grid_from_levels([1.0, 0.9999, 0.0], FLOW, TABLE).times == (0.0, 0.9999, 0.99995)
