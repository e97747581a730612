"""Transformers whose blocks attend to text and image tokens in one sequence (MM-DiT, Esser et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count

from torch import Tensor

from ....eta_core.methods.attention import mean_to_text, split_heads
from ..attention import chain_joint, chunks_of
from .base import MapSink, is_of, tokens_of_references
from .steered import SteeredTransformer, layers_of

MOST_READ = 10  # blocks read at a step, evenly spaced: each costs one more attention


def every_block(options: dict) -> bool:
    return True


def in_order(options: dict) -> bool:
    """Whether a call is made by one of the numbered blocks, not by what prepares the text before them."""
    return "block_index" in options


@dataclass(frozen=True)
class JointFamily:
    """A family whose sequence is [text, image, references], or [image, references, text].

    network: the host's class, or what its name has; see is_of. is_main: whether an attention call belongs to
    a block whose maps are read, told by its transformer_options. text_first: the order of the sequence.
    patch: the network's name for the latent pixels a side of a token. padded_to: the network's name for the
    number to whose multiples it pads the text and the image, each behind its own tokens. shows_references:
    whether reference pictures stand behind the image. least_text: to how many rows the host pads a MODEL's
    shorter prompts, before them. prefix: the text, with reference pictures at its slots, asks in calls of
    its own and never sees the image, whose calls see everything; the host keeps what the text's calls made.
    blocks: the network's names for its lists of blocks, in order, where editing methods may steer them; the
    maps of the first list are read.
    """

    network: type | str | None
    is_main: Callable[[dict], bool] = every_block
    text_first: bool = True
    patch: str = "patch_size"
    padded_to: str = ""
    shows_references: bool = False
    least_text: Callable[[object], int] = lambda model: 0
    prefix: bool = False
    blocks: tuple[str, ...] = ()

    def steered_of(self, model, size: tuple[int, int]) -> SteeredTransformer | None:
        """What editing methods steer in a MODEL of this family, else None."""
        reader = self.reader_of(model, size) if self.blocks else None
        if reader is None:
            return None
        return SteeredTransformer(
            self.blocks,
            *layers_of(model, self.blocks, reader.patch),
            reader.grid,
            text_first=self.text_first,
            multiple=reader.multiple,
            least_text=reader.least_text,
            shows_references=self.shows_references,
        )

    def reader_of(self, model, size: tuple[int, int]) -> JointReader | None:
        """The adapter of a MODEL of this family, else None."""
        if not is_of(model, self.network):
            return None
        network = model.get_model_object("diffusion_model")
        patch = getattr(network, self.patch) if self.patch else 1
        multiple = getattr(network, self.padded_to, None) if self.padded_to else None
        grid = -(-size[0] // patch), -(-size[1] // patch)
        blocks = len(getattr(network, self.blocks[0])) if self.blocks else 1
        return JointReader(self, grid, multiple or 1, self.least_text(model), patch, blocks)


@dataclass(frozen=True)
class JointReader:
    """A joint family's adapter for one size.

    grid: height and width of the image tokens. patch: the latent pixels a side of a token. blocks: how many
    blocks have calls that can be read.
    """

    family: JointFamily
    grid: tuple[int, int]
    multiple: int = 1
    least_text: int = 0
    patch: int = 1
    blocks: int = 1

    def install(self, options: dict, sink: MapSink) -> None:
        chain_joint(options, partial(self._read, sink, count()))

    def _read(
        self,
        sink: MapSink,
        main_calls: Iterator[int],
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        mask: Tensor | None = None,
        transformer_options: dict | None = None,
        **options,
    ) -> None:
        called = transformer_options or {}
        image = self.grid[0] * self.grid[1]
        text, picture = (self._padded(count) for count in (max(sink.rows, self.least_text), image))
        shown = tokens_of_references(sink, self.patch)
        # Some blocks attend among the tokens of one kind alone; no word is read in them.
        alone = {text, picture, sum(shown), *shown}
        if not sink.armed or not self.family.is_main(called) or k.shape[-2] in alone:
            return
        chunks, others = chunks_of(len(q), called), k.shape[-2] - text - picture
        if self.family.prefix and (mask is not None or q.shape[-2] != picture or others < sum(shown)):
            return
        if chunks and not any(chunk.cond for chunk in chunks):
            return
        # Counted, for not every host numbers the blocks of every family. Other blocks at each step.
        block = next(main_calls) % self.blocks
        if (block + sink.step) % -(-self.blocks // MOST_READ):
            return
        if self.family.prefix:
            expected = others == sum(shown)
        else:
            expected = others == 0 or (others > 0 and bool(shown) and self.family.shows_references)
        if chunks is None or mask is not None or not expected:
            sink.give_up(
                "the text and the picture are not all that the attention sees (areas, masked, padded or "
                "added tokens, reference pictures)"
            )
            return
        if not options.get("skip_reshape"):
            q, k = split_heads(q, heads), split_heads(k, heads)
        before = text if self.family.text_first and not self.family.prefix else 0
        places, words = slice(before, before + image), self._words(sink, picture + others, shown)
        for rows in (chunk.rows for chunk in chunks if chunk.cond):
            maps = mean_to_text(q[rows][:, :, places], k[rows], words)
            sink.add(maps.unflatten(1, self.grid).permute(0, 3, 1, 2))

    def _words(self, sink: MapSink, image: int, shown: list[int]) -> slice | list[int]:
        """The keys of the prompt's rows. image: how many are the image's and the references'."""
        first = max(sink.rows, self.least_text) - sink.rows + (0 if self.family.text_first else image)
        if not self.family.prefix or not shown:
            return slice(first, first + sink.rows)
        slots = [*sink.slots, *[sink.rows] * len(shown)][: len(shown)]  # the host's own rule for missing ones
        return [
            row + sum(count for slot, count in zip(slots, shown) if slot <= row) for row in range(sink.rows)
        ]

    def _padded(self, count: int) -> int:
        return -(-count // self.multiple) * self.multiple
