"""Reading where the words of a prompt look, during an inversion, without changing any result."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ...eta_core.masks import MapAverage
from .families import word_reader
from .families.text import rows_of_text
from .steered_rows import SOURCE


class MapRecorder:
    """Gathers the per-token attention maps of a prompt over the steps of a sampling.

    positive: the prompt of the branch that is read, whose `pictures` rows a call may have beside others'.
    problem: why there are no maps, or "".
    """

    def __init__(
        self,
        model,
        positive: list,
        size: tuple[int, int],
        pictures: int = 1,
        branch: str = SOURCE,
    ):
        self._average = MapAverage()
        self._reader = word_reader(model, size)
        self._step_read, self._pictures, self._in_parts = False, pictures, False
        self.steps = 0
        self._branch, self._which = branch, "source" if branch == SOURCE else "target"
        self.size, self.rows = size, rows_of_text(positive)
        shown = positive[0][1].get("reference_latents") or ()
        self.references = tuple((each.shape[-2], each.shape[-1]) for each in shown)
        self.slots = tuple(positive[0][1].get("image_slots") or ())
        self.problem = ""
        if len(positive) != 1:
            self.problem = (
                f"the {self._which} conditioning has {len(positive)} entries (Conditioning Combine or areas) "
                "where maps need one prompt"
            )
        elif "area" in positive[0][1]:
            self.problem = (
                f"the {self._which} conditioning has an area where maps need a prompt of the whole picture"
            )
        elif self._reader is None:
            names = (type(each).__name__ for each in (model.model, model.model.diffusion_model))
            self.problem = f"the attention of this model ({', '.join(names)}) cannot be read"

    def close_step(self) -> None:
        self._average.close_step()
        self.steps += 1
        self._step_read = False

    def maps(self) -> Tensor | None:
        """[B, tokens, h, w] on the CPU; None where `problem` says why."""
        recorded = None if self.problem else self._average.result()
        if recorded is None and not self.problem:
            self.problem = (
                "the network was never asked for the whole picture, only for parts of it (another pack "
                "samples in tiles, as TiledDiffusion does)"
                if self._in_parts
                else f"the {self._which} prompt was active at no step (its timestep range), or the model's "
                "loader computes its attention where it cannot be read (Nunchaku)"
            )
        return recorded

    def install(self, options: dict, rows: Mapping[str, int], short: bool) -> dict:
        """`options` of a network call with the reading added. Only a step's first whole call is read."""
        if self._reader is not None and not self.problem and not self._step_read:
            self._average.reopen_step()
            call = _Reading(self, rows, short)
            self._reader.install(options, call)
            options["sampler_pre_cfg_function"] = [*options.get("sampler_pre_cfg_function", []), call.close]
        return options

    def add(self, maps: Tensor, rows: Mapping[str, int]) -> None:
        """The maps of a call's rows, of which each branch has so many."""
        names = list(rows)
        before = sum(rows[name] for name in names[: names.index(self._branch)])
        if len(maps) == sum(rows.values()) and rows[self._branch] == self._pictures:
            self._average.add(maps[before : before + self._pictures])
        else:
            self.give_up(
                f"another pack has the attention see {len(maps)} rows for {self._pictures} pictures, as "
                "Attention "
                "Couple does"
            )

    def pass_over(self) -> None:
        """A call was for a part of the picture alone."""
        self._in_parts = True

    def give_up(self, reason: str) -> None:
        self.problem = reason

    def end_reading(self) -> None:
        """The step's own prediction is made."""
        self._step_read = True


class _Reading:
    """The reading of one network call, which ends once the guided prediction is made.

    Guidance such as PAG or SAG may call the network again after that, for another purpose.
    """

    def __init__(self, recorder: MapRecorder, branches: Mapping[str, int], short: bool):
        self._recorder, self._branches, self.armed, self.short = recorder, branches, True, short
        self.rows, self.size = recorder.rows, recorder.size
        self.references, self.slots, self.step = recorder.references, recorder.slots, recorder.steps

    def add(self, maps: Tensor) -> None:
        self._recorder.add(maps, self._branches)

    def pass_over(self) -> None:
        self._recorder.pass_over()

    def give_up(self, reason: str) -> None:
        self.armed = False
        self._recorder.give_up(reason)

    def close(self, args: dict) -> list:
        self.armed = False
        self._recorder.end_reading()
        return args["conds_out"]
