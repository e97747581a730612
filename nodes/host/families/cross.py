"""Transformers whose image tokens look at the text by cross-attention of their own: Anima, Wan, FIBO 2."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ....eta_core.methods.attention import mean_to_text, split_heads
from ..attention import chain_joint, chunks_of
from .base import MapSink, host_class, is_of, tokens_of_references
from .steered import SteeredTransformer, layers_of

PADDED = 512  # rows to which most of these networks fill up their text


@dataclass(frozen=True)
class CrossFamily:
    """A family with cross-attention to the text.

    network: the host's class, or what its name has; see is_of. patch: the network's name for the latent
    pixels a side of a token; where it is three numbers, those of time, height and width. least_text: to how
    many rows it fills up the text. before: how many tokens stand before the image's, for a text of so many
    rows. shows_references: whether reference pictures stand behind the image. blocks: its names for its lists
    of blocks, in order, where editing methods may steer them.
    """

    network: type | str | None
    patch: str
    least_text: int = PADDED
    before: Callable[[int], int] = lambda rows: 0
    shows_references: bool = False
    blocks: tuple[str, ...] = ()

    def steered_of(self, model, size: tuple[int, int]) -> SteeredTransformer | None:
        """What editing methods steer in a MODEL of this family, else None."""
        reader = self.reader_of(model, size) if self.blocks else None
        if reader is None:
            return None
        layers = layers_of(model, self.blocks, reader.patch)
        return SteeredTransformer(self.blocks, *layers, reader.grid, crosses=True)

    def reader_of(self, model, size: tuple[int, int]) -> CrossReader | None:
        """The adapter of a MODEL of this family, else None."""
        if not is_of(model, self.network):
            return None
        patch = getattr(model.get_model_object("diffusion_model"), self.patch) if self.patch else 1
        side = patch if isinstance(patch, int) else patch[-1]
        return CrossReader(self, (-(-size[0] // side), -(-size[1] // side)), side)


@dataclass(frozen=True)
class CrossReader:
    """The adapter for one size. grid: height and width of the image tokens. patch: the latent pixels a side
    of a token.
    """

    family: CrossFamily
    grid: tuple[int, int]
    patch: int

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
        text, before = max(self.family.least_text, sink.rows), self.family.before(sink.rows)
        image = self.grid[0] * self.grid[1]
        shown = sum(tokens_of_references(sink, self.patch)) if self.family.shows_references else 0
        asking = before + image + shown
        if not sink.armed or (k.shape[-2] == q.shape[-2] != text) or k.shape[-2] not in (text, sink.rows):
            return
        if before and q.shape[-2] == before:
            return  # these tokens are made of the text before the blocks
        chunks = chunks_of(len(q), transformer_options or {})
        if chunks and not any(chunk.cond for chunk in chunks):
            return
        if chunks is None or mask is not None or q.shape[-2] != asking or asking == text:
            sink.give_up(
                "the attention of the text cannot be told from others (areas, masked or added tokens, "
                "reference pictures, or a picture of as many tokens as the text)"
            )
            return
        if not options.get("skip_reshape"):
            q, k = split_heads(q, heads), split_heads(k, heads)
        for rows in (chunk.rows for chunk in chunks if chunk.cond):
            maps = mean_to_text(q[rows][:, :, before : before + image], k[rows], slice(sink.rows))
            sink.add(maps.unflatten(1, self.grid).permute(0, 3, 1, 2))


ANIMA = CrossFamily(host_class("comfy.ldm.anima.model", "Anima"), "patch_spatial", blocks=("blocks",))
WAN = CrossFamily(host_class("comfy.ldm.wan.model", "WanModel"), "patch_size", blocks=("blocks",))


def _gist_tokens(rows: int) -> int:
    """How many tokens FIBO 2 makes of a text of so many rows: 256 to 512 in steps of 64, for 256 to 2048."""
    share = min(1.0, max(0.0, (rows - 256) / (2048 - 256)))
    return 64 * math.ceil((256 + share * 256) / 64)


# Written from its published network in diffusers: words are keys in a few blocks only, and the network sees
# the rest of the text as tokens of its own, which are no words. Never run in the host.
FIBO_2 = CrossFamily("fibo2", "", least_text=0, before=_gist_tokens, shows_references=True)
