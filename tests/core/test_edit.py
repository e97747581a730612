"""The backward loop on models in closed form."""

from itertools import pairwise

import pytest
import torch

from eta_core.ddim import ancestral_step, eta_step
from eta_core.edit import Prediction, sample_target
from eta_core.eta import EtaSchedule, paper_strong
from eta_core.frame import DIFFUSION
from eta_core.hold import NO_HOLD, Hold
from eta_core.invert import invert, record
from eta_core.masks import resolve, tile_batch
from eta_core.noise import EtaNoise, NoiseSettings, RecordedNoise, ReferenceEtaNoise
from eta_core.schedule import Grid, ddim_grid, grid_from_levels
from tests.core.toy import gaussian_denoiser, scaled_linear_table

GRID = ddim_grid(20, scaled_linear_table())
SOURCE, TARGET = gaussian_denoiser(0.5, 0.8), gaussian_denoiser(-1.5, 0.6)
NO_ETA, LINEAR, FULL = (
    EtaSchedule(((0.0, 0.0),)),
    EtaSchedule(((0.0, 0.0), (1.0, 0.4))),
    EtaSchedule(((0.0, 1.0),)),
)
LEFT = torch.zeros(1, 1, 8, 6)
LEFT[..., :3] = 1.0
SOFT = torch.rand(3, 1, 8, 6, generator=torch.Generator().manual_seed(8))


@pytest.fixture
def latent():
    return 0.5 + 0.8 * torch.randn(3, 4, 8, 6, generator=torch.Generator().manual_seed(1))


def play(
    x,
    settings,
    target=TARGET,
    source=SOURCE,
    strategy=EtaNoise,
    hold=NO_HOLD,
    blends=lambda step: (),
    reads=lambda step: False,
    grid=GRID,
):
    """The target sampled from the trajectory x. blends: hold masks by step; reads: steps that ask for the
    source anyway.
    """

    def predict(step, x_source, x_target, needed):
        seen = source(x_source, step.sigma) if needed or reads(step) else None
        return Prediction(seen, target(x_target, step.sigma), blends(step))

    return sample_target(predict, grid, strategy(settings, x), hold)


def trajectory_of(latent, recorded=False):
    return record(SOURCE, latent, GRID, seed=11) if recorded else invert(SOURCE, latent, GRID)[0]


def run(latent, settings, strategy=EtaNoise, **more):
    x = trajectory_of(latent, strategy is RecordedNoise)
    return x, play(x, settings, strategy=strategy, **more)


def reading_steps(settings, latent):
    noise = ReferenceEtaNoise(settings, trajectory_of(latent))
    return [step for step in GRID.downward() if noise.reads_source(step)]


def test_the_target_moves_to_its_own_data(latent):
    _, edited = run(latent, NoiseSettings(paper_strong(), (0,)))
    assert edited.mean().item() == pytest.approx(-1.5, abs=0.25)


def test_a_picture_of_a_batch_equals_the_same_picture_alone(latent):
    settings = NoiseSettings(LINEAR, (5,))
    _, together = run(latent, settings)
    for i in range(3):
        _, alone = run(latent[i : i + 1], settings)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("strategy", [EtaNoise, ReferenceEtaNoise, RecordedNoise])
@pytest.mark.parametrize("region", [None, SOFT])
def test_each_variant_of_each_picture_equals_a_run_of_its_own(latent, strategy, region):
    """Variants stand one after the other, each with all pictures; every picture keeps its own region and
    mask.
    """
    settings = NoiseSettings(LINEAR, (5, 6, 7), blend=0.3, region=region)
    _, together = run(latent, settings, strategy, hold=Hold(1 - SOFT))
    assert together.shape == (9, 4, 8, 6)
    for variant in range(3):
        for i in range(3):
            own = None if region is None else region[i : i + 1]
            one = NoiseSettings(LINEAR, (5 + variant,), blend=0.3, region=own)
            _, alone = run(latent[i : i + 1], one, strategy, hold=Hold(1 - SOFT[i : i + 1]))
            torch.testing.assert_close(together[3 * variant + i], alone[0], rtol=0, atol=1e-6)
    assert not torch.allclose(together[:3], together[3:6], atol=1e-2)


def test_skipping_the_source_branch_changes_nothing(latent):
    """Evaluating the source at every step, read or not, gives the same numbers."""
    settings = NoiseSettings(paper_strong(), (2,))
    calls = []

    def counted(x, sigma):
        calls.append(sigma)
        return SOURCE(x, sigma)

    x, lazy = run(latent, settings, ReferenceEtaNoise, source=counted)
    assert len(calls) == len(reading_steps(settings, latent)) == 8 < GRID.steps
    eager = play(x, settings, source=counted, strategy=ReferenceEtaNoise, reads=lambda step: True)
    assert torch.equal(lazy, eager)
    assert len(calls) == 8 + GRID.steps


def test_the_source_branch_stands_on_the_trajectory_at_every_step(latent):
    x, seen = trajectory_of(latent), []

    def predict(step, source, target, needed):
        assert torch.equal(source, x[step.index]) and not needed
        seen.append(step.index)
        return Prediction(None, TARGET(target, step.sigma))

    sample_target(predict, GRID, EtaNoise(NoiseSettings(NO_ETA, (0,)), x))
    assert seen == list(range(20, 0, -1))


@pytest.mark.parametrize(
    "settings",
    [
        NoiseSettings(NO_ETA, (0,)),
        NoiseSettings(LINEAR, (0,), candidates=1),
        NoiseSettings(LINEAR, (0,), region=torch.zeros(1, 1, 8, 6)),
    ],
)
def test_where_nothing_reads_it_the_source_is_never_computed(latent, settings):
    assert reading_steps(settings, latent) == []
    run(latent, settings, ReferenceEtaNoise, source=None)


def test_the_trajectory_tells_the_source_without_the_network(latent):
    """The source that DDIM inverted plays back exactly. So its own prediction is the one that the inversion
    found, not what the network says at the step's noisier point.
    """
    x, fresh = trajectory_of(latent), NoiseSettings(LINEAR, (5,))
    run(latent, fresh, source=None)
    for step in GRID.downward():
        found = EtaNoise(fresh, x)._denoised(step, None)
        played = eta_step(x[step.index], found, step.sigma, step.sigma_next, 0.0, None)
        torch.testing.assert_close(played, x[step.index - 1], rtol=1e-5, atol=1e-4)


def test_noise_chosen_by_the_trajectory_is_as_near_to_the_source_as_noise_chosen_by_the_network(latent):
    """Under the source's own prompt both come near to the source, and nearer than random noise."""
    x = trajectory_of(latent)

    def distance(strategy, candidates):
        noises = NoiseSettings(FULL, tuple(range(8)), candidates)
        ends = play(x, noises, target=SOURCE, strategy=strategy)
        return float((ends - x[0].repeat(8, 1, 1, 1)).square().mean())

    ours, theirs = distance(EtaNoise, 100), distance(ReferenceEtaNoise, 100)
    assert ours < 1.02 * theirs and max(ours, theirs) < distance(EtaNoise, 1)


def test_a_region_of_zeros_is_eta_zero_and_of_ones_no_region(latent):
    _, plain = run(latent, NoiseSettings(NO_ETA, (0,)))
    _, masked = run(latent, NoiseSettings(LINEAR, (0,), region=torch.zeros(1, 1, 8, 6)))
    assert torch.equal(plain, masked)
    _, everywhere = run(latent, NoiseSettings(LINEAR, (0,)))
    _, ones = run(latent, NoiseSettings(LINEAR, (0,), region=torch.ones(1, 1, 8, 6)))
    torch.testing.assert_close(everywhere, ones, rtol=0, atol=1e-5)


def test_the_candidates_are_chosen_by_the_source_inside_the_region_alone_unless_parity_wants_all_of_it(
    latent,
):
    x = trajectory_of(latent)
    other = LEFT * x + (1 - LEFT) * trajectory_of(latent.flip(0))

    def inside(points, chooses):
        return play(points, NoiseSettings(LINEAR, (0,), region=LEFT, choose_in_region=chooses))[..., :3]

    assert torch.equal(inside(x, True), inside(other, True))
    assert not torch.allclose(inside(x, False), inside(other, False), atol=1e-2)


def test_a_region_above_1_scales_eta_up(latent):
    twice = EtaSchedule(((0.0, 0.0), (1.0, 0.8)))
    _, scaled = run(latent, NoiseSettings(LINEAR, (0,), candidates=1, region=torch.full((1, 1, 8, 6), 2.0)))
    _, plain = run(latent, NoiseSettings(twice, (0,), candidates=1))
    torch.testing.assert_close(scaled, plain, rtol=0, atol=1e-5)


def test_a_region_that_takes_eta_above_1_is_refused():
    with pytest.raises(ValueError, match="eta reaches 0.4 and a region scales it by 3: .* lower eta_scale"):
        NoiseSettings(LINEAR, (0,), region=LEFT * 3)


def test_a_full_lock_leaves_exactly_the_source_outside(latent):
    x, edited = run(latent, NoiseSettings(LINEAR, (0,), region=LEFT), hold=Hold(1 - LEFT))
    assert torch.equal(edited[..., 3:], x[0][..., 3:])
    assert not torch.equal(edited[..., :3], x[0][..., :3])


def test_a_lock_that_frees_everything_is_no_lock(latent):
    _, free = run(latent, NoiseSettings(LINEAR, (0,)))
    _, locked = run(latent, NoiseSettings(LINEAR, (0,)), hold=Hold(torch.zeros(1, 1, 8, 6)))
    assert torch.equal(free, locked)


def test_only_what_every_mask_frees_is_free(latent):
    top = torch.zeros(1, 1, 8, 6)
    top[..., :4, :] = 1.0
    x, edited = run(latent, NoiseSettings(LINEAR, (0,)), hold=Hold(1 - LEFT), blends=lambda step: (1 - top,))
    held = (LEFT * top == 0).expand_as(edited)
    assert torch.equal(edited[held], x[0][held])
    assert (edited - x[0])[~held].abs().min() > 0


def test_a_mask_holds_the_end_of_the_step_it_is_asked_for(latent):
    """Held in the first half, the edit is that of the second half alone, begun on the trajectory."""
    x, half = trajectory_of(latent), torch.zeros(1, 1, 8, 6)
    held = play(x, NoiseSettings(NO_ETA, (0,)), blends=lambda step: (1 - half,) if step.index > 10 else ())
    begun = x[10]
    for step in list(GRID.downward())[10:]:
        denoised = TARGET(begun, step.sigma)
        begun = denoised + step.sigma_next * (begun - denoised) / step.sigma
    torch.testing.assert_close(held, begun, rtol=0, atol=1e-5)


# --- edit-friendly: the noise of a recorded trajectory --------------------------------------------


def test_the_recorded_noise_leads_the_source_model_back_to_the_source(latent):
    x, back = run(latent, NoiseSettings(NO_ETA, (0, 1)), strategy=RecordedNoise, target=SOURCE)
    torch.testing.assert_close(back, torch.cat([x[0], x[0]]), rtol=0, atol=1e-5)


def test_the_recorded_noise_leads_back_to_a_source_at_noise_level_0(latent):
    """The last step has no noise to put back; the source's remainder takes its place."""
    table = scaled_linear_table()
    grid = grid_from_levels([*(table[i] for i in (999, 600, 300, 20)), 0.0], DIFFUSION, table)
    x = record(SOURCE, latent, grid, seed=11)
    back = play(x, NoiseSettings(NO_ETA, (0,)), target=SOURCE, strategy=RecordedNoise, grid=grid)
    torch.testing.assert_close(back, x[0], rtol=0, atol=1e-5)


def test_the_recorded_noise_keeps_the_sources_structure_in_an_edit(latent):
    x, edited = run(latent, NoiseSettings(NO_ETA, (0,)), strategy=RecordedNoise)
    assert edited.mean().item() == pytest.approx(-1.5, abs=0.25)
    assert torch.corrcoef(torch.stack([edited.flatten(), x[0].flatten()]))[0, 1].item() > 0.9


def test_eta_1_renews_all_of_the_recorded_noise(latent):
    """What is left is DDPM from the trajectory's noise end with the run's own noise."""
    x = trajectory_of(latent, recorded=True)
    renewed = play(x, NoiseSettings(FULL, (3,), candidates=1), strategy=RecordedNoise)
    assert torch.equal(renewed, play(x, NoiseSettings(FULL, (3,), candidates=1)))


def test_recorded_noise_is_renewed_in_the_region_alone(latent):
    x, edited = run(
        latent, NoiseSettings(FULL, (3,), candidates=1, region=LEFT), strategy=RecordedNoise, target=SOURCE
    )
    torch.testing.assert_close(edited[..., 3:], x[0][..., 3:], rtol=0, atol=1e-5)
    assert (edited - x[0])[..., :3].std() > 0.3


def test_partly_renewed_noise_keeps_its_variance(latent):
    """0.6 of new noise leaves sqrt(1 - 0.6^2) = 0.8 of the recorded."""
    grid = Grid((GRID.sigmas[10], GRID.sigmas[20]), (0.5, 1.0))
    x = torch.stack([latent, 14 * latent.flip(0)])

    def end(eta):
        settings = NoiseSettings(EtaSchedule(((0.0, eta),)), (3,), candidates=1)
        return play(x, settings, strategy=RecordedNoise, grid=grid)

    (step,) = grid.downward()
    down, _ = ancestral_step(1.0, step.sigma, step.sigma_next)
    mean = eta_step(x[1], TARGET(x[1], step.sigma), step.sigma, down, 0.0, None)
    torch.testing.assert_close(
        end(0.6), mean + 0.8 * (end(0.0) - mean) + 0.6 * (end(1.0) - mean), rtol=0, atol=1e-4
    )


def test_noise_blended_in_full_points_to_the_sources_next_point(latent):
    """With noise_blend 1 the noise is the way from the step's mean to the source's next point, at unit
    variance.
    """
    grid = Grid((GRID.sigmas[10], GRID.sigmas[20]), (0.5, 1.0))
    x, eta = torch.stack([latent, 14 * latent.flip(0)]), EtaSchedule(((0.0, 0.4),))
    (step,) = grid.downward()
    denoised = SOURCE(x[1], step.sigma)
    noise = ReferenceEtaNoise(NoiseSettings(eta, (3,), blend=1.0), x).renewal(step, denoised).noise
    down, _ = ancestral_step(0.4, step.sigma, step.sigma_next)
    way = x[0] - eta_step(x[1], denoised, step.sigma, down, 0.0, None)
    torch.testing.assert_close(noise, way / way.flatten(1).std(1).view(-1, 1, 1, 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("amount", [0.1, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("region", [None, LEFT])
def test_blended_noise_keeps_the_noise_level_of_the_step(latent, amount, region):
    """The optimal noise goes along the predicted noise. Added up plainly, both are louder than the step's
    level: with amount 1 by as much as sigma_down + sigma_up is above sqrt(sigma_down^2 + sigma_up^2).
    """
    x = trajectory_of(latent)
    step = list(GRID.downward())[4]
    settings = NoiseSettings(EtaSchedule(((0.0, 0.7),)), (3,), blend=amount, region=region)
    denoised = SOURCE(x[step.index], step.sigma)

    def level(point, sigma):
        noise = (point - denoised) / sigma
        return float((noise if region is None else noise[..., :3]).square().mean().sqrt())

    moved = EtaNoise(settings, x).take(step, x[step.index], denoised, denoised)
    loud = eta_step(x[step.index], denoised, step.sigma, *EtaNoise(settings, x).renewal(step, denoised))
    before = level(x[step.index], step.sigma)
    assert level(moved, step.sigma_next) == pytest.approx(before, rel=0.06)
    assert amount < 0.6 or level(loud, step.sigma_next) > 1.15 * before


def share_of_the_edit(latent, steps: int, hold: Hold) -> float:
    """How far the held edit has come on the way from the source to the free edit, mean over all values."""
    grid = ddim_grid(steps, scaled_linear_table())
    x = invert(SOURCE, latent, grid)[0]
    free, held = (play(x, NoiseSettings(NO_ETA, (0,)), grid=grid, hold=each) for each in (NO_HOLD, hold))
    way = free - x[0]
    return float(((held - x[0]) * way).sum() / way.square().sum())


@pytest.mark.parametrize("value", [0.25, 0.5, 0.75])
def test_a_soft_lock_lets_the_same_share_of_the_edit_through_at_any_number_of_steps(latent, value):
    hold = Hold(torch.full((1, 1, 8, 6), value))
    shares = [share_of_the_edit(latent, steps, hold) for steps in (8, 20, 50)]
    assert max(shares) - min(shares) < 0.1 * max(shares), shares


def test_a_soft_lock_leads_from_the_edit_to_the_source_without_a_turn(latent):
    locks = [Hold(torch.full((1, 1, 8, 6), value)) for value in (0.0, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)]
    shares = [share_of_the_edit(latent, 20, hold) for hold in locks]
    assert shares[0] == 1 and shares[-1] == 0
    assert all(more > less + 0.02 for more, less in pairwise(shares)), shares


def test_an_edge_is_held_by_as_much_in_every_step(latent):
    """A latent pixel that a hard mask covers by half: what lies outside pulls it back at each step."""
    half = torch.full((1, 1, 8, 6), 0.5)
    x, source = trajectory_of(latent)[0], latent.flip(0)
    held = Hold(lock=torch.ones(1, 1, 8, 6), edge=half).apply(x, source, share=1 / 20)
    torch.testing.assert_close(held, (x + source) / 2)
    soft = Hold(lock=half, edge=half).apply(x, source, share=1 / 20)
    torch.testing.assert_close(soft, source + 0.5 ** (1 / 20) * (x - source))


def test_variants_of_a_batch_are_held_by_each_pictures_own_masks():
    """Two pictures, two variants: a local blend leaves alone what another edit has of that picture."""
    source, x = torch.zeros(2, 4, 2, 2), torch.ones(4, 4, 2, 2)
    regions, blend = torch.zeros(2, 1, 2, 2), torch.ones(4, 1, 2, 2)
    regions[0, ..., 0] = 1
    edge = torch.ones(2, 1, 2, 2)
    held = Hold(regions=regions).apply(x, source, share=0.1, blends=[blend])
    assert torch.equal(held[:, 0, :, 0], torch.tensor([[1.0, 1], [0, 0], [1, 1], [0, 0]]))
    assert not held[..., 1].any()
    locked = Hold(lock=regions, edge=edge).apply(x, source, share=0.1)
    assert torch.equal(locked, 1 - tile_batch(regions, 4).expand_as(x))


# --- where an edit begins -------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [EtaNoise, RecordedNoise])
def test_an_edit_that_begins_on_the_way_is_the_rest_of_one_that_stood_on_the_trajectory_until_there(
    latent, strategy
):
    x = trajectory_of(latent, strategy is RecordedNoise)
    noise = strategy(NoiseSettings(NO_ETA, (0,)), x)
    seen = []

    def predict(step, source, target, needed):
        seen.append(step.index)
        return Prediction(SOURCE(source, step.sigma), TARGET(target, step.sigma))

    begun = sample_target(predict, GRID, noise, first=12)
    assert seen == list(range(12, 0, -1))
    held = torch.ones(1, 1, 8, 6)
    stood = play(
        x, NoiseSettings(NO_ETA, (0,)), strategy=strategy, blends=lambda s: (held,) if s.index > 12 else ()
    )
    torch.testing.assert_close(begun, stood, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("start", "steps", "index"),
    [(1.0, 50, 50), (0.64, 50, 32), (0.64, 5, 4), (0.6, 10, 6), (0.7, 10, 7), (0.9, 10, 9), (0.1, 10, 1)],
)
def test_an_edit_begins_where_the_references_skip_ends(start, steps, index):
    """Skipped are int((1 - start) N) steps; 0.36 of 50 is 18, whatever floats make of it."""
    assert ddim_grid(steps, scaled_linear_table()).first_step(start) == index


@pytest.mark.parametrize("start", [0.0, -0.1, 1.01, float("nan")])
def test_a_start_outside_the_way_is_refused(start):
    with pytest.raises(ValueError, match="start is"):
        GRID.first_step(start)


def test_shares_of_regions_that_add_up_to_one_are_within_eta_one():
    masks = torch.rand(3, 1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) + 0.5
    region = sum(resolve([(mask.clamp(max=1), "share") for mask in masks]))
    NoiseSettings(EtaSchedule(((0.0, 1.0),)), (0,), region=region)


def test_a_local_blend_of_variants_beside_a_region_of_each_picture():
    blends, regions = torch.rand(4, 1, 8, 6), torch.rand(2, 1, 8, 6)  # 2 variants of 2 pictures
    x, source = torch.randn(4, 4, 8, 6), torch.randn(2, 4, 8, 6)
    together = Hold(regions=regions).apply(x, source, 0.1, (blends,))
    for row in range(4):
        one, picture = slice(row, row + 1), slice(row % 2, row % 2 + 1)
        alone = Hold(regions=regions[picture]).apply(x[one], source[picture], 0.1, (blends[one],))
        assert torch.equal(together[one], alone)
