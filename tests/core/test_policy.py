import json
import math

import pytest

from eta_core.evidence.metrics import METRICS
from eta_core.evidence.policy import POLICIES, judge, parse_policy, worst
from eta_core.evidence.report import Report, report_of_json

UNTOUCHED = {
    "background_psnr": math.inf,
    "background_ms_ssim": 1.0,
    "background_mean_difference": 0.0,
    "background_changed_area": 0.0,
    "changed_area": 12.0,
}


def verdict_of(policy, **figures) -> str:
    return worst(judge(Report(({**UNTOUCHED, **figures},)), policy))


# --- reports --------------------------------------------------------------------------------------


def test_a_report_comes_back_from_its_json():
    report = Report(
        (
            {"background_psnr": math.inf, "pie_lpips": math.nan},
            {"background_psnr": 31.25, "pie_lpips": math.nan},
        ),
        {"pie_lpips": "no weights"},
        {"changed_above": 5.0},
    )
    text = report.to_json()
    back = report_of_json(text)
    assert str(back) == str(report)
    assert json.loads(text, parse_constant=pytest.fail)["pictures"][0] == {
        "background_psnr": "inf",
        "pie_lpips": None,
    }


def test_the_mean_leaves_out_what_was_not_measured():
    found = Report(
        ({"pie_psnr": 30.0, "pie_lpips": math.nan}, {"pie_psnr": math.nan}, {"pie_psnr": 20.0})
    ).mean()
    assert found["pie_psnr"] == 25
    assert math.isnan(found["pie_lpips"])


def test_one_pictures_figures_alone_are_a_report():
    assert report_of_json('{"background_psnr": 31, "changed_area": "inf"}').pictures == (
        {"background_psnr": 31.0, "changed_area": math.inf},
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no JSON.*EtaMetrics"),
        ("{]", "no JSON"),
        ("[]", "no picture"),
        ("{}", "no picture"),
        ('{"pictures": []}', "no picture"),
        ('{"pictures": [3]}', "no picture"),
        ('{"pictures": {"background_psnr": 3}}', "no picture"),
        ('{"background_psnr": 1' + "0" * 400 + "}", "401 digits"),
        ('{"pictures": [{"changed_area": 1}], "not_measured": ["x"]}', "not_measured of the figures"),
        ('{"pictures": [{"changed_area": 1}], "settings": {"x": Infinity}}', "not finite"),
        ('{"background_psnr": 1, "background_psnr": 50}', "background_psnr twice"),
        ("[" * 100_000, "nested 100000 deep"),
        ('{"background_psnr": "high"}', "background_psnr is 'high'"),
        ('{"background_psnr": true}', "background_psnr is True"),
        ('{"background_psnr": [1]}', r"background_psnr is \[1\]"),
    ],
)
def test_figures_that_cannot_be_read_are_named(text, named):
    with pytest.raises(ValueError, match=named):
        report_of_json(text)


# --- policies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POLICIES)
def test_a_picture_pasted_back_passes_every_shipped_policy(name):
    assert verdict_of(POLICIES[name]) == "pass"


@pytest.mark.parametrize("name", POLICIES)
def test_a_picture_that_was_not_edited_is_looked_at(name):
    assert verdict_of(POLICIES[name], changed_area=0.0) == "review"


@pytest.mark.parametrize("name", POLICIES)
def test_another_photograph_is_rejected(name):
    """Two unrelated ones: 10.3 dB, MS-SSIM 0.11, 25 CIEDE2000 apart."""
    figures = {"background_psnr": 10.3, "background_ms_ssim": 0.11, "background_mean_difference": 25.0}
    assert verdict_of(POLICIES[name], **figures, background_changed_area=99.8) == "reject"


def test_the_shipped_policies_grow_milder():
    """A VAE's round trip (35.9 dB, 0.95 CIEDE2000) will do for an advertisement, not for a catalogue."""
    lost = dict(
        background_psnr=35.9, background_ms_ssim=0.97, background_mean_difference=0.95, changed_area=9.7
    )
    lost |= {"background_changed_area": 2.7}
    assert [verdict_of(policy, **lost) for policy in POLICIES.values()] == ["reject", *["pass"] * 4]
    worse = dict(background_psnr=20.0, background_ms_ssim=0.61, background_mean_difference=5.2)
    assert [verdict_of(policy, **lost | worse) for policy in POLICIES.values()] == [
        "reject",
        "reject",
        "review",
        "pass",
        "pass",
    ]


CUSTOM = {
    "background_psnr": {"pass": {"min": 30}, "review": {"min": 25}},
    "changed_area": {"pass": {"min": 1, "max": 40}, "review": {"max": 60}},
    "background_mse": {"pass": {"max": 0.01}},
}


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, "pass"),
        ({"background_psnr": 30.0}, "pass"),
        ({"background_psnr": 29.99}, "review"),
        ({"background_psnr": 25.0}, "review"),
        ({"background_psnr": 24.99}, "reject"),
        ({"changed_area": 0.5}, "review"),
        ({"changed_area": 40.5}, "review"),
        ({"changed_area": 61.0}, "reject"),
        ({"background_mse": 0.011}, "reject"),
        ({"background_psnr": 29.0, "changed_area": 61.0}, "reject"),
    ],
)
def test_limits_are_included_and_the_worst_figure_decides(figures, expected):
    figures = {"background_mse": 0.0} | figures
    assert verdict_of(parse_policy(json.dumps(CUSTOM)), **figures) == expected


def test_every_broken_limit_is_a_reason_and_a_kept_one_is_none():
    report = Report(({"background_psnr": 20.0, "changed_area": 50.0, "background_mse": 0.01},))
    (found,) = judge(report, parse_policy(json.dumps(CUSTOM)))
    assert found.verdict == "reject"
    assert found.reasons == (
        "reject: background PSNR is 20.00 dB, must be at least 25",
        "review: changed area is 50.00 %, must be at least 1 and at most 40",
    )


def test_every_picture_is_judged_and_the_worst_is_the_batchs():
    report = Report(tuple({"background_psnr": value} for value in (50.0, 20.0, 27.0)))
    found = judge(report, parse_policy('{"background_psnr": {"pass": {"min": 30}, "review": {"min": 25}}}'))
    assert [verdict.verdict for verdict in found] == ["pass", "reject", "review"]
    assert worst(found) == "reject"


def test_a_figure_that_is_missing_is_an_error_with_its_reason():
    policy = parse_policy('{"pie_lpips": {"pass": {"max": 0.1}}}')
    with pytest.raises(ValueError, match="pie_lpips, which picture 1 lacks: put squeeze.pth.*leave it out"):
        judge(Report(({"pie_lpips": math.nan},), {"pie_lpips": "put squeeze.pth into models/lpips"}), policy)
    with pytest.raises(ValueError, match="picture 2 lacks: it was not measured"):
        judge(Report(({"pie_lpips": 0.0}, {"pie_psnr": 1.0})), policy)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no JSON.*write it like"),
        ('{"background_psnr": {"pass": {"min": 3}}', "no JSON"),
        ("{}", "limits nothing"),
        ('{"pie_mse": {"pass": {"max": 1' + "0" * 400 + "}}}", "401 digits"),
        ("[" * 100_000, "nested 100000 deep"),
        ("[1]", "limits nothing"),
        (
            '{"psnr": {"pass": {"min": 3}}}',
            "limits psnr, which is no metric: the metrics are background_psnr",
        ),
        ('{"pie_mse": 3}', 'pie_mse is 3: it needs "pass"'),
        ('{"pie_mse": {"review": {"max": 3}}}', 'needs "pass"'),
        ('{"pie_mse": {"pass": {"max": 3}, "reject": {"min": 9}}}', 'needs "pass" and may have "review"'),
        ('{"pie_mse": {"pass": {}}}', 'pie_mse, pass is {}: it takes "min"'),
        ('{"pie_mse": {"pass": 3}}', "pie_mse, pass is 3"),
        ('{"pie_mse": {"pass": {"below": 3}}}', '"min", "max" or both'),
        ('{"pie_mse": {"pass": {"max": "3"}}}', 'limit "3": limits are numbers'),
        ('{"pie_mse": {"pass": {"max": true}}}', "limit true"),
        ('{"pie_mse": {"pass": {"max": NaN}}}', "limit NaN"),
        ('{"pie_mse": {"pass": {"max": Infinity}}}', "limit Infinity"),
        ('{"pie_mse": {"pass": {"min": 4, "max": 3}}}', "contradicts itself.*min must not be above max"),
        (
            '{"pie_psnr": {"pass": {"min": 3}, "review": {"min": 4}}}',
            "at least 3 to pass, but at least 4 for review",
        ),
        ('{"pie_mse": {"pass": {"max": 3}, "review": {"max": 2}}}', "review must be the wider"),
        ('{"pie_mse": {"pass": {"max": 3}, "review": {"min": 1, "max": 5}}}', "review must be the wider"),
        ('{"pie_mse": {"pass": {"max": 3}}, "pie_mse": {"pass": {"max": 4}}}', "pie_mse twice"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(text, named):
    with pytest.raises(ValueError, match=named):
        parse_policy(text)


def test_the_shipped_policies_could_be_written_as_json():
    for policy in POLICIES.values():
        text = json.dumps(
            {
                name: {
                    level: {
                        end: value
                        for end, value in (("min", limits.low), ("max", limits.high))
                        if math.isfinite(value)
                    }
                    for level, limits in (("pass", both.ok), ("review", both.review))
                }
                for name, both in policy.items()
            }
        )
        assert parse_policy(text) == policy
        assert set(policy) <= set(METRICS)


def test_a_figure_of_a_newer_pack_is_kept():
    report = report_of_json('{"pictures": [{"pie_mse": 0.1, "wonder": 3}]}')
    assert report.pictures[0]["wonder"] == 3.0 and report.mean()["wonder"] == 3.0
    assert worst(judge(report, parse_policy('{"pie_mse": {"pass": {"max": 1}}}'))) == "pass"
