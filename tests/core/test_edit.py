"""The two loops on models in closed form."""

import pytest
import torch

from eta_core.edit import Steering, edit, source_steps, steer
from eta_core.eta import EtaSchedule, paper_strong
from eta_core.invert import invert
from eta_core.schedule import ddim_grid
from tests.core.toy import gaussian_denoiser, scaled_linear_table

GRID = ddim_grid(20, scaled_linear_table())
SOURCE, TARGET = gaussian_denoiser(0.5, 0.8), gaussian_denoiser(-1.5, 0.6)
NO_ETA, LINEAR = EtaSchedule(((0.0, 0.0),)), EtaSchedule(((0.0, 0.0), (1.0, 0.4)))


@pytest.fixture
def latent():
    return 0.5 + 0.8 * torch.randn(3, 4, 8, 6, generator=torch.Generator().manual_seed(1))


def run(latent, steering, target=TARGET, lock=None, source=SOURCE):
    x = invert(SOURCE, latent, GRID)
    return x, edit(target, x, GRID, steering, steer(source, x, GRID, steering), lock)


def test_the_inversion_keeps_every_point_and_ends_in_the_models_noise(latent):
    x = invert(SOURCE, latent, GRID)
    assert x.shape == (21, 3, 4, 8, 6)
    assert x[-1].std().item() == pytest.approx((GRID.sigmas[-1] ** 2 + 0.8**2) ** 0.5, rel=0.1)


def test_the_target_moves_to_its_own_data(latent):
    _, edited = run(latent, Steering(paper_strong(), seed=0))
    assert edited.mean().item() == pytest.approx(-1.5, abs=0.25)


def test_a_picture_of_a_batch_equals_the_same_picture_alone(latent):
    steering = Steering(LINEAR, seed=5)
    _, together = run(latent, steering)
    for i in range(3):
        _, alone = run(latent[i : i + 1], steering)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-6)


def test_skipping_the_source_branch_changes_nothing(latent):
    """Evaluating the source at every step, read or not, gives the same numbers."""
    steering = Steering(paper_strong(), seed=2)
    calls = []

    def counted(x, sigma):
        calls.append(sigma)
        return SOURCE(x, sigma)

    x, lazy = run(latent, steering, source=counted)
    eager_source = {step.sigma: SOURCE(x[step.index], step.sigma) for step in GRID.downward()}
    eager = edit(TARGET, x, GRID, steering, steer(lambda _, sigma: eager_source[sigma], x, GRID, steering))
    assert torch.equal(lazy, eager)
    assert len(calls) == source_steps(steering, GRID) == 8 < GRID.steps == len(eager_source)


@pytest.mark.parametrize(
    "steering",
    [
        Steering(NO_ETA, seed=0),
        Steering(LINEAR, seed=0, candidates=1),
        Steering(LINEAR, seed=0, region=torch.zeros(1, 1, 8, 6)),
    ],
)
def test_where_nothing_reads_it_the_source_is_never_computed(latent, steering):
    assert source_steps(steering, GRID) == 0
    run(latent, steering, source=None)


def test_a_region_of_zeros_is_eta_zero_and_of_ones_no_region(latent):
    _, plain = run(latent, Steering(NO_ETA, seed=0))
    _, masked = run(latent, Steering(LINEAR, seed=0, region=torch.zeros(1, 1, 8, 6)))
    assert torch.equal(plain, masked)
    _, everywhere = run(latent, Steering(LINEAR, seed=0))
    _, ones = run(latent, Steering(LINEAR, seed=0, region=torch.ones(1, 1, 8, 6)))
    torch.testing.assert_close(everywhere, ones, rtol=0, atol=1e-5)


def test_a_full_lock_leaves_exactly_the_source_outside(latent):
    lock = torch.zeros(1, 1, 8, 6)
    lock[..., :3] = 1.0
    x, edited = run(latent, Steering(LINEAR, seed=0, region=lock), lock=lock)
    assert torch.equal(edited[..., 3:], x[0][..., 3:])
    assert not torch.equal(edited[..., :3], x[0][..., :3])


def test_a_lock_that_frees_everything_is_no_lock(latent):
    _, free = run(latent, Steering(LINEAR, seed=0))
    _, locked = run(latent, Steering(LINEAR, seed=0), lock=torch.ones(1, 1, 8, 6))
    assert torch.equal(free, locked)
