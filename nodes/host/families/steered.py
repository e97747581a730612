"""What editing methods steer in a transformer, whichever way its image looks at its text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from torch import nn

from ....eta_core.methods import Layer
from ..attention import Key
from ..models import downscale

LATENT = 8  # pixels of the picture per latent pixel, where methods say how fine a layer is


class Place(NamedTuple):
    """Where an attention call of a block has its tokens.

    image: the image's among the queries. text: the text's among the keys, empty where the image attends
    alone. among_itself: whether the image's tokens stand at the same places among the keys.
    """

    image: slice
    text: slice
    among_itself: bool = True


@dataclass(frozen=True)
class SteeredTransformer:
    """A transformer that methods steer, for latents of one size.

    lists: the network's names for its lists of blocks, in order. layers: the blocks. map_layers: those whose
    maps are read. grid: height and width of the image's tokens. crosses: whether the image looks at the text
    in calls of their own; otherwise both stand in one sequence. text_first, multiple, least_text,
    shows_references: see JointFamily and JointReader.
    """

    lists: tuple[str, ...]
    layers: Mapping[Key, Layer]
    map_layers: tuple[Key, ...]
    grid: tuple[int, int]
    crosses: bool = False
    text_first: bool = True
    multiple: int = 1
    least_text: int = 0
    shows_references: bool = False

    @property
    def image(self) -> int:
        """How many tokens the image has."""
        return self.grid[0] * self.grid[1]

    def blocks_of(self, network: nn.Module) -> Iterator[tuple[Key, nn.Module]]:
        """The network's blocks by key."""
        return zip(
            self.layers, chain.from_iterable(getattr(network, name) for name in self.lists), strict=True
        )

    def place(self, queries: int, keys: int, text: int, references: bool) -> Place | None:
        """Where a call of so many queries and keys has its tokens; None where that cannot be told.

        text: rows of the text as the network is given them. references: whether it is shown pictures.
        """
        if self.crosses:
            return self._crossed(queries, keys, text)
        text, picture = self._filled(text), self._filled(self.image)
        others = keys - text - picture
        if queries == keys == picture:
            return Place(slice(0, self.image), slice(0, 0))
        if queries != keys or others < 0 or (others and not (references and self.shows_references)):
            return None
        first, words = (text, 0) if self.text_first else (0, picture)
        return Place(slice(first, first + self.image), slice(words, words + text))

    def _crossed(self, queries: int, keys: int, text: int) -> Place | None:
        if queries != self.image or text == self.image:
            return None
        if keys == queries:
            return Place(slice(0, self.image), slice(0, 0))
        return Place(slice(0, self.image), slice(0, text), among_itself=False) if keys == text else None

    def words(self, rows: int, text: slice) -> slice | None:
        """Where the rows of a prompt stand among the keys; None where the text is not that prompt's."""
        count, least = text.stop - text.start, max(rows, self.least_text)
        if count < least if self.crosses else count != self._filled(least):
            return None
        return slice(text.start + least - rows, text.start + least)

    def _filled(self, count: int) -> int:
        return -(-count // self.multiple) * self.multiple


def layers_of(model, lists: tuple[str, ...], patch: int) -> tuple[dict[Key, Layer], tuple[Key, ...]]:
    """The layers of a MODEL's lists of blocks, and those of the first list.

    patch: latent pixels a side of a token.
    """
    network = model.get_model_object("diffusion_model")
    counts = [len(getattr(network, name)) for name in lists]
    total, scale = sum(counts), patch * downscale(model) // LATENT
    layers = {("block", 0, i): Layer(i / total, scale, "block", 2 * (i + 1) > total) for i in range(total)}
    return layers, tuple(layers)[: counts[0]]
