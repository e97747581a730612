import math

import pytest
import torch

from eta_core.eta import EtaSchedule, paper_gentle, paper_strong
from eta_core.evidence.tune import CURVES, Trial, best, frontier, prefers_target, search


def known(schedule: EtaSchedule) -> tuple[float, float]:
    """Early noise edits, late noise costs the background."""
    eta = [schedule(t / 20) for t in range(21)]
    early, late = sum(eta[12:]) / 9, sum(eta[:9]) / 9
    return math.tanh(1.5 * early) + 0.2 * late, 32 - 12 * late - 6 * early


@pytest.mark.parametrize("shape", CURVES)
@pytest.mark.parametrize("limit, reachable", [(27.0, 0.848), (29.0, 0.635)])
def test_sixteen_trials_come_near_the_best_that_keeps_the_limit(shape, limit, reachable):
    """`reachable`: the best of 4096 curves spread evenly over the parametric shape."""
    trials = search(known, limit, shape, 16)
    assert len(trials) == 16 and len({trial.schedule for trial in trials}) == 16
    assert [(trial.edit, trial.background) for trial in trials] == [known(trial.schedule) for trial in trials]
    chosen = best(trials, limit)
    assert chosen.background >= limit and chosen.edit > 0.97 * reachable


def test_the_first_curves_are_no_noise_the_papers_and_the_most_noise():
    zero, gentle, strong, most = (trial.schedule for trial in search(known, 27.0, "start, peak, power", 4))
    times = [i / 50 for i in range(51)]
    assert not any(map(zero, times)) and all(most(t) >= max(gentle(t), strong(t)) for t in times)
    assert [gentle(t) for t in times] == pytest.approx(list(map(paper_gentle(), times)))
    assert [strong(t) for t in times] == pytest.approx(list(map(paper_strong(), times)))


def test_the_same_search_tries_the_same_curves():
    one, two = (search(known, 27.0, "free", 9) for _ in range(2))
    assert one == two


@pytest.mark.parametrize("shape", CURVES)
def test_curves_are_in_steps_that_the_fields_of_eta_schedule_take(shape):
    for schedule, *_ in search(known, 27.0, shape, 12):
        assert all(round(value, 2) == value for point in schedule.points for value in point)
        assert 0.05 <= schedule.power <= 10 and round(20 * schedule.power) == pytest.approx(
            20 * schedule.power
        )


def test_figures_that_never_change_are_searched_all_the_same():
    trials = search(lambda schedule: (0.5, 30.0), 27.0, "free", 8)
    assert len({trial.schedule for trial in trials}) == 8


def test_no_curve_is_tried_twice_where_little_is_left_to_gain():
    trials = search(lambda schedule: (schedule(0.5) + schedule(0.9), 40.0), 27.0, "start, peak, power", 26)
    assert len({trial.schedule for trial in trials}) == 26


def test_a_limit_that_no_curve_keeps_has_no_best():
    trials = search(known, 40.0, "start, peak, power", 8)
    assert len(trials) == 8 and best(trials, 40.0) is None


def test_fewer_trials_than_the_first_curves_are_refused():
    with pytest.raises(ValueError, match="trials = 3: use at least 4"):
        search(known, 27.0, "free", 3)


def test_the_frontier_is_what_nothing_beats():
    curve = EtaSchedule(((0.0, 0.0),))
    a, b, c, d, e = (
        Trial(curve, *figures)
        for figures in ((0.1, 30.0), (0.2, 28.0), (0.15, 27.0), (0.4, 20.0), (0.4, 19.0))
    )
    assert frontier([d, c, e, a, b]) == [a, b, d]


# --- which prompt a model sees --------------------------------------------------------------------

SIGMAS = (2.0, 1.0)


def sees(source: torch.Tensor, target: torch.Tensor, region: torch.Tensor) -> float:
    """Of a picture of ones, by a model that takes it for `source` or `target`."""
    clean = torch.ones(1, 2, 4, 4)
    return prefers_target(
        lambda x, sigma: (source.expand_as(x), target.expand_as(x)), clean, SIGMAS, region
    ).item()


EVERYWHERE = torch.ones(1, 1, 4, 4)


@pytest.mark.parametrize("source, target, expected", [(0.0, 1.0, 1.0), (1.0, 0.0, -1.0), (0.5, 0.5, 0.0)])
def test_the_prompt_that_predicts_the_picture_is_the_one_that_is_seen(source, target, expected):
    assert sees(torch.tensor(source), torch.tensor(target), EVERYWHERE) == pytest.approx(expected)


def test_only_the_region_is_looked_at():
    half = EVERYWHERE.clone()
    half[..., :2] = 0
    target = torch.zeros(1, 1, 4, 4)
    target[..., 2:] = 1
    assert sees(torch.zeros(()), target, half) == pytest.approx(1.0)
    assert sees(torch.zeros(()), target, 1 - half) == pytest.approx(0.0)


def test_every_picture_of_a_batch_is_asked_on_noise_of_its_levels_the_same_at_every_call():
    seen = []

    def predict(x, sigma):
        seen.append((x - 1) / sigma)
        return x, torch.stack([torch.ones_like(x[0]), x[1]])

    for _ in range(2):
        found = prefers_target(predict, torch.ones(2, 2, 4, 4), SIGMAS, EVERYWHERE)
        assert found.tolist() == pytest.approx([1.0, 0.0])
    assert all(torch.allclose(noise[0], noise[1]) and noise.std() > 0.5 for noise in seen)
    assert (
        torch.equal(seen[0], seen[2])
        and torch.equal(seen[1], seen[3])
        and not torch.allclose(seen[0], seen[1])
    )
