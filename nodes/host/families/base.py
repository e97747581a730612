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
    def references(self) -> tuple[tuple[int, int], ...]:
        """Height and width of the latent of each reference picture that the prompt shows the network."""
        ...

    @property
    def slots(self) -> tuple[int, ...]:
        """The rows of the prompt before which they stand, for networks that put them into the text."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the latent."""
        ...

    @property
    def step(self) -> int:
        """How many steps came before this one, read or not."""
        ...

    @property
    def armed(self) -> bool:
        """Whether this call is the step's own prediction; other packs' extra calls are not read."""
        ...

    @property
    def short(self) -> bool:
        """Whether memory is short, so that one layer at a time is to be read."""
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


def is_of(model, network: type | str | None) -> bool:
    """Whether a MODEL's network is of a class of the host's.

    network: that class, None where this host has none; or, for a family of hosts newer than those at hand,
    the letters and digits by which the name of its class is known, in lower case.
    """
    found = model.get_model_object("diffusion_model")
    if not isinstance(network, str):
        return network is not None and isinstance(found, network)
    names = (kind.__name__.lower() for each in (model.model, found) for kind in type(each).__mro__)
    return any(network in "".join(filter(str.isalnum, name)) for name in names)


def tokens_of_references(sink: MapSink, patch: int) -> list[int]:
    """How many tokens each reference picture has. patch: the latent pixels a side of a token."""
    return [-(-height // patch) * -(-width // patch) for height, width in sink.references]


def host_class(module: str, name: str) -> type | None:
    """A class of the host's; None where this host is too old to have it."""
    try:
        return getattr(import_module(module), name, None)
    except ModuleNotFoundError:
        return None
