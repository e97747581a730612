"""Small plots that a node shows."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SIZE, LEFT, EDGE, BELOW = (512, 288), 56, 16, 48
GROUND, AXIS, TEXT, LINE = (24, 24, 28), (90, 90, 98), (200, 200, 205), (255, 190, 60)
DIM, SHADE = (130, 130, 138), (52, 34, 38)


def line_plot(x: Sequence[float], y: Sequence[float], x_name: str, y_name: str) -> Tensor:
    """A curve over x in 0..1 as a picture [1, 288, 512, 3]; the y axis runs from 0 to the largest value."""
    image = Image.new("RGB", SIZE, GROUND)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    right, bottom, top = SIZE[0] - EDGE, SIZE[1] - BELOW, 2 * EDGE
    highest = max(*y, 1e-9)
    points = [(LEFT + u * (right - LEFT), bottom - v / highest * (bottom - top)) for u, v in zip(x, y)]
    draw.line([(LEFT, top), (LEFT, bottom), (right, bottom)], fill=AXIS)
    for u in (0.0, 0.5, 1.0):
        draw.text((LEFT + u * (right - LEFT), bottom + 6), f"{u:g}", TEXT, font, anchor="ma")
    for v in (0.0, highest / 2, highest):
        draw.text((LEFT - 6, bottom - v / highest * (bottom - top)), f"{v:.2g}", TEXT, font, anchor="rm")
    draw.text(((LEFT + right) / 2, SIZE[1] - 6), x_name, TEXT, font, anchor="mb")
    draw.text((LEFT, top - 6), y_name, TEXT, font, anchor="lb")
    draw.line(points, fill=LINE, width=2)
    for u, v in points:
        draw.ellipse((u - 2, v - 2, u + 2, v + 2), fill=LINE)
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)[None]


def scatter_plot(
    points: Sequence[tuple[float, float]],
    frontier: Sequence[tuple[float, float]],
    chosen: tuple[float, float],
    limit: float,
    x_name: str,
    y_name: str,
) -> Tensor:
    """Points (x, y) as a picture [1, 288, 512, 3].

    The frontier is joined, the chosen point ringed, and x below `limit` shaded.
    """
    image = Image.new("RGB", SIZE, GROUND)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    right, bottom, top = SIZE[0] - EDGE, SIZE[1] - BELOW, 2 * EDGE
    spans = []
    for values in zip(*points):
        low, high = min(values), max(values)
        margin = max(0.06 * (high - low), 1e-3)
        spans.append((low - margin, high + margin))
    (x_low, x_high), (y_low, y_high) = spans

    def at(x: float, y: float) -> tuple[float, float]:
        u, v = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        return LEFT + u * (right - LEFT), bottom - v * (bottom - top)

    if limit > x_low:
        edge = at(min(limit, x_high), y_low)[0]
        draw.rectangle((LEFT, top, edge, bottom), fill=SHADE)
        draw.text((edge + 6, bottom - 6), f"limit {limit:g}", DIM, font, anchor="lb")
    draw.line([(LEFT, top), (LEFT, bottom), (right, bottom)], fill=AXIS)
    for x in (x_low, (x_low + x_high) / 2, x_high):
        draw.text((at(x, y_low)[0], bottom + 6), f"{x:.1f}", TEXT, font, anchor="ma")
    for y in (y_low, (y_low + y_high) / 2, y_high):
        draw.text((LEFT - 6, at(x_low, y)[1]), f"{y:.2f}", TEXT, font, anchor="rm")
    draw.text(((LEFT + right) / 2, SIZE[1] - 6), x_name, TEXT, font, anchor="mb")
    draw.text((LEFT, top - 6), y_name, TEXT, font, anchor="lb")
    draw.line([at(*point) for point in frontier], fill=DIM)
    for u, v in (at(*point) for point in points):
        draw.ellipse((u - 3, v - 3, u + 3, v + 3), fill=TEXT)
    u, v = at(*chosen)
    draw.ellipse((u - 6, v - 6, u + 6, v + 6), outline=LINE, width=2)
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)[None]


ROW, COLUMN, NAME, LONGEST = 24, 92, 92, 40


def table(
    blocks: Sequence[tuple[str, Sequence[tuple[str, str]], Sequence[Sequence[str]]]],
    notes: Sequence[str] = (),
) -> Tensor:
    """Tables one below the other as a picture [1, H, W, 3].

    A block is its title, its columns as (name, what is better), and its rows, each starting with its name.
    Where a block has more rows than LONGEST, the first ones and the last one are drawn.
    """
    blocks = [(title, columns, _shorten(rows)) for title, columns, rows in blocks]
    font, small = ImageFont.load_default(14), ImageFont.load_default(12)
    width = 2 * EDGE + NAME + COLUMN * max(len(columns) for _, columns, _ in blocks)
    notes = [line for note in notes for line in textwrap.wrap(note, (width - 2 * EDGE) // 6)]
    height = 2 * EDGE + sum(ROW * (len(rows) + 4) for _, _, rows in blocks) + ROW * len(notes)
    image = Image.new("RGB", (width, height), GROUND)
    draw, y = ImageDraw.Draw(image), EDGE

    for title, columns, rows in blocks:
        draw.text((EDGE, y), title, LINE, font)
        rights = [EDGE + NAME + COLUMN * (i + 1) for i in range(len(columns))]
        for x, (name, better) in zip(rights, columns):
            draw.text((x, y + ROW), name, TEXT, font, anchor="ra")
            draw.text((x, y + 2 * ROW - 4), better, DIM, small, anchor="ra")
        y += 3 * ROW - 2
        draw.line([(EDGE, y), (width - EDGE, y)], fill=AXIS)
        for name, *values in rows:
            draw.text((EDGE, y + 5), name, DIM, font)
            for x, value in zip(rights, values):
                draw.text((x, y + 5), value, TEXT, font, anchor="ra")
            y += ROW
        y += ROW + 2
    for note in notes:
        draw.text((EDGE, y), note, DIM, small)
        y += ROW
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)[None]


def _shorten(rows: Sequence[Sequence[str]]) -> Sequence[Sequence[str]]:
    if len(rows) <= LONGEST:
        return rows
    return [*rows[: LONGEST - 2], [f"{len(rows) - LONGEST + 1} more"], rows[-1]]
