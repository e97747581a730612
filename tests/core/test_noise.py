import pytest
import torch

from eta_core.noise import NoiseCandidates, blend, closest


def test_candidates_come_from_one_generator_in_the_references_order():
    draws = NoiseCandidates(7, 3, (4, 2, 2))
    g = torch.Generator("cpu").manual_seed(7)
    for _ in range(2):
        assert torch.equal(draws.draw(), torch.randn((3, 1, 4, 2, 2), generator=g))


def test_every_picture_gets_the_nearest_candidate():
    candidates = torch.randn(6, 1, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    target = torch.cat([candidates[4], candidates[1]]) + 0.1
    assert torch.equal(closest(candidates, target), torch.cat([candidates[4], candidates[1]]))


def test_the_choice_looks_only_inside_the_region():
    a, b = torch.zeros(1, 1, 1, 4), torch.full((1, 1, 1, 4), 1.0)
    target = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])
    region = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])
    candidates = torch.stack([a, b])
    assert torch.equal(closest(candidates, target), a)
    assert torch.equal(closest(candidates, target, region), b)


def test_blend_is_neutral_at_0_and_the_optimal_noise_in_unit_variance_at_1():
    noise, optimal = torch.randn(2, 4, 8, 8), 5 * torch.randn(2, 4, 8, 8)
    assert torch.equal(blend(noise, optimal, 0.0), noise)
    full = blend(noise, optimal, 1.0)
    assert full.flatten(1).std(1).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    torch.testing.assert_close(full[0] / optimal[0], torch.full_like(full[0], float(1 / optimal[0].std())))
    assert blend(noise, optimal, 0.6).std().item() == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("amount", [-0.1, 1.1])
def test_a_blend_outside_0_to_1_is_refused(amount):
    with pytest.raises(ValueError, match=f"noise_blend = {amount}"):
        blend(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), amount)


def test_no_candidates_are_refused():
    with pytest.raises(ValueError, match="noise_candidates = 0"):
        NoiseCandidates(0, 0, (1,))
