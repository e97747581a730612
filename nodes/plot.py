"""Small plots that a node shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SIZE, LEFT, EDGE, BELOW = (512, 288), 56, 16, 48
GROUND, AXIS, TEXT, LINE = (24, 24, 28), (90, 90, 98), (200, 200, 205), (255, 190, 60)


def line_plot(x: Sequence[float], y: Sequence[float], x_name: str, y_name: str) -> Tensor:
    """Points of a curve over x in 0..1 as a picture [1, 288, 512, 3]; the y axis runs from 0 to the largest value."""
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
