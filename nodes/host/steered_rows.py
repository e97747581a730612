"""Which rows of a network call belong to which branch, and what the source leaves there for the targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from ...eta_core.masks import tile_batch
from .attention import Chunk, chunks_of, outlasting

if TYPE_CHECKING:
    from .steering import StepMethods

SOURCE = "source"
Part = tuple[str, bool, slice]  # branch, cond, rows


class SteeredRows:
    """One network call: which of its rows belong to which branch.

    armed: until the guided prediction is made. Guidance such as PAG or SAG calls the network again after
    that; such a call is steered by the source's own such call, and not recorded. short: what the source
    leaves waits in main memory.
    """

    def __init__(self, step: StepMethods, rows: Mapping[str, int], short: bool):
        self._step, self._branches, self._short = step, step.branches, short
        ends = accumulate(rows.values())
        self._rows = {
            name: slice(end - count, end) for (name, count), end in zip(rows.items(), ends, strict=True)
        }
        self._last_row = sum(rows.values())
        self._all_together = {SOURCE, *self._branches} <= set(rows)
        self._armed = True
        self._found: dict[tuple, list[Part]] = {}

    def install(self, options: dict) -> None:
        options["sampler_pre_cfg_function"] = [*options.get("sampler_pre_cfg_function", []), self._disarm]
        if SOURCE in self._rows and self._step.plan.guided:
            options["disable_cfg1_optimization"] = True

    def _disarm(self, args: dict) -> list:
        self._armed = False
        return args["conds_out"]

    def _parts(self, count: int, extra_options: dict) -> list[Part]:
        """(branch, cond, rows) of a call of `count` rows, the source's first. Nothing where the rows are not
        ours.
        """
        known = (count, tuple(extra_options["cond_or_uncond"]))
        if known not in self._found:  # every layer asks
            self._found[known] = list(self._parts_of(chunks_of(count, extra_options)))
        return self._found[known]

    def _parts_of(self, chunks: list[Chunk] | None) -> Iterator[Part]:
        if not chunks or chunks[0].rows.stop != self._last_row:
            return
        for name in sorted(self._rows, key=lambda name: name != SOURCE):
            for chunk in chunks:
                first, rows = chunk.rows.start, self._rows[name]
                yield name, chunk.cond, slice(first + rows.start, first + rows.stop)

    def _keep(self, place: tuple, cond: bool, values: Iterable[Tensor | None]) -> None:
        kept = tuple(values)
        if not self._all_together:
            kept = tuple(None if value is None else outlasting(value, self._short) for value in kept)
        self._step.kept[place, cond, self._armed] = kept

    def _of_source(self, place: tuple, cond: bool, like: Tensor) -> tuple[Tensor | None, ...] | None:
        """What the source left at a place, on the device of `like`."""
        kept = self._step.kept.get((place, cond or self._step.plan.one_row, self._armed))
        return kept and tuple(None if value is None else value.to(like.device) for value in kept)

    def _forget(self, place: tuple) -> None:
        """Free what the source left at a place once every branch has been in the same call."""
        if self._all_together:
            for cond in (True, False):
                self._step.kept.pop((place, cond, self._armed), None)


def on_grid(region: Tensor, grid: tuple[int, ...], rows: int) -> Tensor:
    """A region [B or 1, 1, H, W] on a layer's grid, flat: [rows, h * w]."""
    return tile_batch(F.interpolate(region, grid, mode="area").flatten(1), rows)
