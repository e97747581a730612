"""The benchmark's picture and what stands for a curve; the figures themselves come from
`python dev.py bench`.
"""

import pytest

from devtools.bench import chart


def near(colour: tuple, wanted: tuple) -> bool:
    return max(abs(a - b) for a, b in zip(colour, wanted)) < 16


@pytest.fixture(scope="module")
def picture():
    panels = {"left": {("a", "x"): [(20.0, 0.0), (30.0, 100.0)]}, "right": {("b", "y"): [(25.0, 50.0)]}}
    return chart.chart(panels, "dB", "%", 35.5, "limit").convert("RGB")


def test_every_point_is_marked_where_it_lies(picture):
    right, top = chart.PANEL[0] - chart.EDGE, chart.TOP
    height = chart.PANEL[1] - chart.BELOW - top
    for left, x, y in ((0, 20, 0), (0, 30, 100), (chart.PANEL[0], 25, 50)):
        across = (x - 20) / 16 * (right - chart.LEFT)
        down = (100 + chart.HEADROOM - y) / (100 + chart.HEADROOM) * height
        at = (round(left + chart.LEFT + across), round(top + down))
        assert near(picture.getpixel(at), chart.COLOURS[0]), (x, y)


def test_the_legend_lies_below_the_data(picture):
    below = picture.crop((0, chart.PANEL[1], *picture.size))
    assert any(near(below.getpixel((chart.LEFT + 22, y)), chart.COLOURS[0]) for y in range(chart.LINE))
    right = below.crop((chart.PANEL[0], 0, *below.size))
    assert any(near(right.getpixel((chart.LEFT + 22, y)), chart.COLOURS[0]) for y in range(chart.LINE))


def test_dashes_stay_on_the_line_and_leave_gaps():
    parts = list(chart.dashes([(0.0, 0.0), (30.0, 40.0)], on=6, off=4))
    assert parts[0] == [(0.0, 0.0), pytest.approx((3.6, 4.8))] and parts[1][0] == pytest.approx((6.0, 8.0))
    assert len(parts) == 5 and all(4 * x == pytest.approx(3 * y) for part in parts for x, y in part)
