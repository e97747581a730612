"""What an adapter offers to the reading of words."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

from torch import Tensor


class MapSink(Protocol):
    """Where an adapter puts what it reads in one network call."""

    @property
    def rows(self) -> int:
        """Rows of the prompt's conditioning."""
        ...

    @property
    def references(self) -> bool:
        """Whether the prompt shows the network reference pictures."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the latent."""
        ...

    @property
    def armed(self) -> bool:
        """Whether this call is the step's own prediction; other packs' extra calls are not read."""
        ...

    def add(self, maps: Tensor) -> None:
        """One layer's attention of the image to each row of the prompt: [B, rows, h, w] on the adapter's
        grid.
        """
        ...

    def pass_over(self) -> None:
        """The call is for a part of the picture alone, and cannot be read."""
        ...

    def give_up(self, reason: str) -> None:
        """The words cannot be read; the reason is told to the user."""
        ...


class WordReader(Protocol):
    """An adapter for one model and one size."""

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the maps."""
        ...

    def install(self, options: dict, sink: MapSink) -> None:
        """Have every main attention call put its maps into `sink`, beside what other packs installed."""
        ...


def host_class(module: str, name: str) -> type | None:
    """A class of the host's; None where this host is too old to have it."""
    try:
        return getattr(import_module(module), name, None)
    except ModuleNotFoundError:
        return None
