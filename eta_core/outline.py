"""A region's outline as polygons in percent of the picture."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

GRID = 128  # an outline is drawn on a grid of at most this side, and covers the region
Point = tuple[float, float]


def outlines(region: Tensor) -> list[list[Point]]:
    """The polygons that cover a region [H, W], where it is above 0: (x, y) in percent, clockwise.

    Holes are covered. An empty region has none.
    """
    height, width = (min(side, GRID) for side in region.shape)
    cells = F.adaptive_max_pool2d((region > 0).float()[None], (height, width))[0] > 0
    loops = _loops(cells.numpy())
    return [
        [(100 * x / width, 100 * y / height) for y, x in _corners(loop)] for loop in loops if _area(loop) > 0
    ]


def _loops(cells: np.ndarray) -> list[list[tuple[int, int]]]:
    """Closed walks along the borders of the cells, each cell on the right-hand side; points are (y, x)."""
    padded = np.pad(cells, 1)
    around = (  # neighbour, the border to it from and to, from the cell's top left corner
        (padded[:-2, 1:-1], (0, 0), (0, 1)),
        (padded[1:-1, 2:], (0, 1), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (1, 0)),
        (padded[1:-1, :-2], (1, 0), (0, 0)),
    )
    onward: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for neighbour, start, end in around:
        for y, x in np.argwhere(cells & ~neighbour).tolist():
            onward.setdefault((y + start[0], x + start[1]), []).append((y + end[0], x + end[1]))
    loops = []
    while onward:
        loop = [next(iter(onward))]
        while loop[-1] in onward:
            ends = onward[loop[-1]]
            loop.append(ends.pop())
            if not ends:
                del onward[loop[-2]]
        loops.append(loop[:-1])
    return loops


def _corners(loop: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The points where a walk turns."""
    steps = zip(loop[-1:] + loop[:-1], loop, loop[1:] + loop[:1])
    return [here for before, here, after in steps if not (before[0] == after[0] or before[1] == after[1])]


def _area(loop: list[tuple[int, int]]) -> float:
    """Positive for a walk around cells, negative for one around a hole."""
    return sum(x * b - a * y for (y, x), (b, a) in zip(loop, loop[1:] + loop[:1])) / 2
