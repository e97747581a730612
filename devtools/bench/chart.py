"""Curves side by side as one picture, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Iterator

from PIL import Image, ImageDraw, ImageFont

FINE = 3  # drawn this much larger, then reduced
HEADROOM, APART = (
    4.0,
    0.7,
)  # per cent: above 100, and between curves, so that equal successes can be told apart
PANEL, LEFT, TOP, BELOW, EDGE, LINE = (560, 420), 56, 34, 52, 16, 22
INK, PAPER, GRID = (40, 40, 48), (255, 255, 255), (226, 226, 231)
COLOURS = (
    (214, 64, 69),
    (44, 110, 203),
    (42, 157, 96),
    (236, 151, 31),
    (126, 78, 192),
    (20, 160, 175),
    (120, 84, 60),
    (90, 90, 100),
    (200, 60, 150),
    (160, 170, 40),
    (250, 130, 120),
    (0, 90, 60),
)
SHAPES = (
    (32, 0),
    (4, 0),
    (3, 0),
    (4, 45),
    (3, 180),
    (5, 0),
    (6, 0),
    (3, 90),
    (4, 22),
    (5, 180),
    (6, 30),
    (32, 0),
)  # sides, turned by

Points = list[tuple[float, float]]


def chart(
    panels: dict[str, dict[tuple[str, str], Points]], x_name: str, y_name: str, limit: float, limit_name: str
) -> Image.Image:
    """One panel for each title, its curves by (group, name); the first group's lines are whole, the others'
    dashed.

    Marks grow along a curve. x and y are shared by the panels, with a line at x = `limit`; y ends at 100. The
    legend is below the data. A panel's curves are drawn APART in y.
    """
    xs = [x for curves in panels.values() for points in curves.values() for x, _ in points] + [limit]
    ys = [y for curves in panels.values() for points in curves.values() for _, y in points]
    low, high, bottom = math.floor(min(xs)), math.ceil(max(xs)), 20 * math.floor(min(ys) / 20)
    groups = list(dict.fromkeys(group for curves in panels.values() for group, _ in curves))
    longest = max(len(curves) for curves in panels.values())
    width, height = PANEL[0] * len(panels), PANEL[1] + LINE * (longest + 1)
    sheet = Image.new("RGB", (width * FINE, height * FINE), PAPER)
    for i, (title, curves) in enumerate(panels.items()):
        part = Panel(ImageDraw.Draw(sheet), PANEL[0] * i, low, high, min(bottom, 80))
        part.axes(title, x_name, y_name)
        part.limit(limit, limit_name)
        for k, ((group, _), points) in enumerate(curves.items()):
            shift = APART * ((len(curves) - 1) / 2 - k)
            part.curve([(x, y + shift) for x, y in points], COLOURS[k], SHAPES[k], dashed=group != groups[0])
        for k, (group, name) in enumerate(curves):
            part.legend(k, f"{group}, {name}", COLOURS[k], SHAPES[k], dashed=group != groups[0])
    return sheet.resize((width, height), Image.LANCZOS).quantize(256, Image.Quantize.FASTOCTREE)


class Panel:
    def __init__(self, draw: ImageDraw.ImageDraw, left: int, low: int, high: int, bottom: int):
        self.draw, self.left, self.low, self.high, self.bottom = draw, left, low, high, bottom
        self.font, self.small = ImageFont.load_default(14 * FINE), ImageFont.load_default(12.5 * FINE)

    def place(self, x: float, y: float) -> tuple[float, float]:
        across, up = PANEL[0] - LEFT - EDGE, PANEL[1] - TOP - BELOW
        u = (x - self.low) / (self.high - self.low)
        return (self.left + LEFT + u * across) * FINE, (
            TOP + (100 + HEADROOM - y) / (100 + HEADROOM - self.bottom) * up
        ) * FINE

    def axes(self, title: str, x_name: str, y_name: str) -> None:
        for y in range(self.bottom, 101, 10 if self.bottom else 20):
            self.draw.line([self.place(self.low, y), self.place(self.high, y)], GRID, FINE)
            x, at = self.place(self.low, y)
            self.draw.text((x - 6 * FINE, at), f"{y}", INK, self.small, "rm")
        for x in range(self.low, self.high + 1, 2):
            self.draw.line([self.place(x, self.bottom), self.place(x, 100 + HEADROOM)], GRID, FINE)
            at, y = self.place(x, self.bottom)
            self.draw.text((at, y + 6 * FINE), f"{x}", INK, self.small, "mt")
        middle = (self.left + (PANEL[0] + LEFT - EDGE) / 2) * FINE
        self.draw.text((middle, (PANEL[1] - 10) * FINE), x_name, INK, self.font, "mb")
        self.draw.text((middle, 6 * FINE), title, INK, self.font, "mt")
        self.draw.text(((self.left + 8) * FINE, 6 * FINE), y_name, INK, self.font, "lt")

    def limit(self, x: float, name: str) -> None:
        for line in dashes([self.place(x, self.bottom), self.place(x, 100 + HEADROOM)]):
            self.draw.line(line, INK, FINE)
        at, y = self.place(x, self.bottom)
        self.draw.text((at - 5 * FINE, y - 5 * FINE), name, INK, self.small, "rb")

    def curve(self, points: Points, colour: tuple, shape: tuple, dashed: bool) -> None:
        self.line([self.place(*point) for point in points], colour, dashed)
        for i, point in enumerate(points):
            self.mark(self.place(*point), colour, shape, 3 + 4 * i / max(1, len(points) - 1))

    def line(self, points: Points, colour: tuple, dashed: bool) -> None:
        for part in dashes(points) if dashed else [points]:
            self.draw.line(part, colour, 2 * FINE)

    def mark(self, at: tuple[float, float], colour: tuple, shape: tuple, size: float) -> None:
        sides, turned = shape
        self.draw.regular_polygon((*at, (size + 1) * FINE), sides, turned, fill=PAPER)
        self.draw.regular_polygon((*at, size * FINE), sides, turned, fill=colour)

    def legend(self, row: int, name: str, colour: tuple, shape: tuple, dashed: bool) -> None:
        left, y = self.left + LEFT, PANEL[1] + LINE * (row + 0.5)
        self.line([(left * FINE, y * FINE), ((left + 44) * FINE, y * FINE)], colour, dashed)
        self.mark(((left + 22) * FINE, y * FINE), colour, shape, 6)
        self.draw.text(((left + 54) * FINE, y * FINE), name, INK, self.small, "lm")


def dashes(points: Points, on: float = 6 * FINE, off: float = 4 * FINE) -> Iterator[Points]:
    for (x, y), (to_x, to_y) in zip(points, points[1:]):
        length, gone = math.hypot(to_x - x, to_y - y), 0.0
        while gone < length:
            ends = [at / length for at in (gone, min(gone + on, length))]
            yield [(x + end * (to_x - x), y + end * (to_y - y)) for end in ends]
            gone += on + off
