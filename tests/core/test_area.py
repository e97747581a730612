"""Where an edit takes place, and what that means at the latent's size."""

from dataclasses import replace

import torch

from eta_core.area import Area
from eta_core.edit import Prediction, sample_target
from eta_core.eta import EtaSchedule
from eta_core.noise import EtaNoise, NoiseSettings
from eta_core.schedule import ddim_grid
from tests.core.toy import scaled_linear_table, two_peaks_denoiser

SIZE = (32, 48)
TARGET = two_peaks_denoiser(1.0, 0.8)


def left(columns: int) -> torch.Tensor:
    mask = torch.zeros(1, *SIZE)
    mask[..., :columns] = 1
    return mask


def area(mask=None, others=(), weights=(), eta_scales=(), lock=1.0) -> Area:
    return Area(mask, others, weights, eta_scales, lock, 8, SIZE)


def test_what_a_mask_covers_in_part_takes_its_part_of_eta_and_is_held_for_the_rest():
    region, hold = area(left(20)).limits
    assert region[0, 0, 0].tolist() == [1, 1, 0.5, 0, 0, 0]
    assert hold.lock[0, 0, 0].tolist() == [0, 0, 1, 1, 1, 1]
    assert hold.edge[0, 0, 0].tolist() == [0, 0, 0.5, 1, 1, 1]
    half = area(left(20), lock=0.5).limits.hold
    assert torch.equal(2 * half.lock, hold.lock) and torch.equal(2 * half.edge, hold.edge)
    assert area(left(20), lock=0.0).limits.hold.lock is None


def test_joining_adds_to_the_mask_and_takes_nothing():
    soft = 0.4 * torch.ones(1, *SIZE)
    joined = area(left(20)).joined(soft)
    assert torch.equal(joined.mask, torch.maximum(left(20), soft))
    assert joined.joined(left(8)).mask.equal(joined.mask)
    assert area(None, lock=0.0).joined(soft).limits.region is None, "what is everywhere stays everywhere"


def test_two_halves_of_a_latent_pixel_make_a_whole_one():
    """Joined in pixels: at the latent's size each half alone would be held."""
    other = left(24) - left(20)
    assert area(left(20)).joined(other).limits.hold.lock[0, 0, 0].tolist() == [0, 0, 0, 1, 1, 1]


def test_all_masks_together_are_free():
    other = 1 - left(40)
    whole = area(left(8), (other,), (torch.zeros(1, 1, 4, 6),), (1.0,))
    assert torch.equal(whole.free, torch.maximum(left(8), other))
    assert torch.equal(replace(whole, mask=None).free, other)
    assert bool((area(lock=0.0).free == 1).all())


def test_eta_is_scaled_in_other_prompts_places_and_by_the_mask_elsewhere():
    weight = torch.zeros(1, 1, 4, 6)
    weight[..., 5] = 1
    region = area(left(8), (1 - left(40),), (weight,), (0.5,)).limits.region
    assert region[0, 0, 0].tolist() == [1, 0, 0, 0, 0, 0.5]


def test_limits_hold_from_the_step_that_gives_them():
    grid = ddim_grid(6, scaled_linear_table())
    generator = torch.Generator().manual_seed(0)
    trajectory = torch.randn(7, 1, 4, 4, 6, generator=generator) * torch.tensor(grid.sigmas).view(
        -1, 1, 1, 1, 1
    )
    narrow, wide = area(left(8)).limits, area(left(32)).limits

    def edited(first, later=None, at=0) -> torch.Tensor:
        settings = NoiseSettings(EtaSchedule(((0.0, 1.0),)), (3,), region=first.region)

        def predict(step, source, x, needs_source):
            new = later if step.index <= at else None
            return Prediction(None, TARGET(x, step.sigma), (), new)

        return sample_target(predict, grid, EtaNoise(settings, trajectory), first.hold)

    assert torch.equal(edited(narrow, wide, at=6), edited(wide))
    assert torch.equal(edited(narrow, narrow, at=3), edited(narrow))
    late = edited(narrow, wide, at=3)
    assert torch.equal(late[..., 4:], trajectory[0][..., 4:])
    assert not torch.equal(late[..., 1:4], trajectory[0][..., 1:4])
    assert not torch.equal(late, edited(wide))
