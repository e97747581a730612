"""Transformers whose blocks attend to text and image tokens in one sequence (MM-DiT, Esser et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ....eta_core.methods.attention import mean_to_text, split_heads
from ..attention import chain_joint, chunks_of
from .base import MapSink
from .steered import SteeredTransformer, layers_of


def every_block(options: dict) -> bool:
    return True


def in_order(options: dict) -> bool:
    """Whether a call is made by one of the numbered blocks, not by what prepares the text before them."""
    return "block_index" in options


@dataclass(frozen=True)
class JointFamily:
    """A family whose sequence is [text, image], or [image, text].

    network: the host's class, None where the host has none. is_main: whether an attention call belongs to a
    block whose maps are read, told by its transformer_options. text_first: the order of the sequence. patch:
    the network's name for the latent pixels a side of a token. padded_to: the network's name for the number
    to whose multiples it pads the text and the image, each behind its own tokens. shows_references: whether
    reference pictures stand behind the image. least_text: to how many rows the host pads a MODEL's shorter
    prompts, before them. prefix: the text asks in calls of its own and never sees the image, whose calls see
    everything; the host keeps what the text's calls made. blocks: the network's names for its lists of
    blocks, in order, where editing methods may steer them; the maps of the first list are read.
    """

    network: type | None
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
        patch = getattr(model.get_model_object("diffusion_model"), self.patch)
        return SteeredTransformer(
            self.blocks,
            *layers_of(model, self.blocks, patch),
            reader.grid,
            text_first=self.text_first,
            multiple=reader.multiple,
            least_text=reader.least_text,
            shows_references=self.shows_references,
        )

    def reader_of(self, model, size: tuple[int, int]) -> JointReader | None:
        """The adapter of a MODEL of this family, else None."""
        network = model.get_model_object("diffusion_model")
        if self.network is None or not isinstance(network, self.network):
            return None
        patch = getattr(network, self.patch) if self.patch else 1
        multiple = getattr(network, self.padded_to, None) if self.padded_to else None
        grid = -(-size[0] // patch), -(-size[1] // patch)
        return JointReader(self, grid, multiple or 1, self.least_text(model))


@dataclass(frozen=True)
class JointReader:
    """A joint family's adapter for one size. grid: height and width of the image tokens."""

    family: JointFamily
    grid: tuple[int, int]
    multiple: int = 1
    least_text: int = 0

    def install(self, options: dict, sink: MapSink) -> None:
        chain_joint(options, partial(self._read, sink))

    def _read(
        self,
        sink: MapSink,
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
        # Some blocks attend among the image's or the text's own tokens alone; no word is read in them.
        if not sink.armed or not self.family.is_main(called) or k.shape[-2] in (text, picture):
            return
        if self.family.prefix and (mask is not None or q.shape[-2] != picture):
            return
        chunks, others = chunks_of(len(q), called), k.shape[-2] - text - picture
        if chunks and not any(chunk.cond for chunk in chunks):
            return
        expected = others == 0 or (others > 0 and sink.references and self.family.shows_references)
        if chunks is None or mask is not None or not expected:
            sink.give_up(
                "the text and the picture are not all that the attention sees (areas, masked, padded or "
                "added tokens, reference pictures)"
            )
            return
        if not options.get("skip_reshape"):
            q, k = split_heads(q, heads), split_heads(k, heads)
        first = max(sink.rows, self.least_text) - sink.rows
        before = 0 if self.family.prefix else text
        words, places = slice(first, first + sink.rows), slice(before, before + image)
        for rows in (chunk.rows for chunk in chunks if chunk.cond):
            # Rolled by the image's length, [image, text] becomes [text, image]; attention does not mind the
            # order.
            turned = [t[rows] if self.family.text_first else t[rows].roll(-picture, 2) for t in (q, k)]
            maps = mean_to_text(turned[0][:, :, places], turned[1], words)
            sink.add(maps.unflatten(1, self.grid).permute(0, 3, 1, 2))

    def _padded(self, count: int) -> int:
        return -(-count // self.multiple) * self.multiple
