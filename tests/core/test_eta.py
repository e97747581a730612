import pytest

from eta_core.eta import EtaSchedule, flow_gentle, flow_strong, paper_gentle, paper_strong, parse_curve
from eta_core.frame import FLOW
from tests.core.toy import scaled_linear_table

STEPS_OF_50 = [(1 + 20 * i) / 999 for i in range(50)]


@pytest.mark.parametrize(
    ("eta", "maximum", "acting"),
    [
        (paper_strong(), 0.668, 20),
        (paper_gentle(), 0.195, 35),
        (EtaSchedule(((0.0, 0.0), (1.0, 0.4))), 0.393, 50),
    ],
)
def test_the_papers_settings_act_where_the_paper_says(eta, maximum, acting):
    values = [eta(t) for t in STEPS_OF_50]
    assert max(values) == pytest.approx(maximum, abs=6e-4)
    assert sum(v > 0 for v in values) == acting


@pytest.mark.parametrize(
    ("paper", "flow"), [(paper_strong(), flow_strong()), (paper_gentle(), flow_gentle())]
)
def test_the_flows_presets_have_the_papers_eta_where_the_noise_is_the_same(paper, flow):
    for t, sigma in enumerate(scaled_linear_table()):
        assert flow(FLOW.level(sigma)) == pytest.approx(paper(t / 999), abs=0.007)


def test_outside_its_points_a_curve_is_constant():
    eta = EtaSchedule(((0.3, 0.1), (0.6, 0.5)))
    assert eta(0.0) == eta(0.3) == 0.1
    assert eta(0.6) == eta(1.0) == 0.5


def test_power_bends_and_cosine_eases():
    ends = ((0.0, 0.0), (1.0, 1.0))
    assert EtaSchedule(ends, power=2)(0.5) == pytest.approx(0.25)
    assert EtaSchedule(ends, shape="cosine")(0.5) == pytest.approx(0.5)
    assert EtaSchedule(ends, shape="cosine")(0.25) == pytest.approx(0.1464466)


def test_a_curve_passes_through_all_its_points():
    eta = EtaSchedule(parse_curve("0:0.1, 0.5:0.9; 1:0.3"))
    assert [eta(t) for t in (0.0, 0.25, 0.5, 0.75, 1.0)] == pytest.approx([0.1, 0.5, 0.9, 0.6, 0.3])


@pytest.mark.parametrize(
    ("points", "named"),
    [
        (((0.0, 1.2),), "eta = 1.2"),
        (((-0.1, 0.0),), "t = -0.1"),
        (((0.5, 0.1), (0.5, 0.2)), "ascend"),
        ((), "at least one point"),
    ],
)
def test_points_that_mean_nothing_are_named(points, named):
    with pytest.raises(ValueError, match=named):
        EtaSchedule(points)


@pytest.mark.parametrize("power", [0.0, -1.0, float("nan"), float("inf")])
def test_a_power_that_is_no_power_is_refused(power):
    with pytest.raises(ValueError, match="power"):
        EtaSchedule(((0.0, 0.0), (1.0, 1.0)), power=power)


@pytest.mark.parametrize("text", ["0.5", "a:b", "0.1:0.2:0.3"])
def test_a_point_that_cannot_be_read_is_quoted(text):
    with pytest.raises(ValueError, match=f"'{text}'"):
        parse_curve(text)
