"""Transformers whose image tokens look at the text by cross-attention of their own: Anima, Wan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ....eta_core.methods.attention import mean_to_text, split_heads
from ..attention import chain_joint, chunks_of
from .base import MapSink, host_class
from .steered import SteeredTransformer, layers_of

PADDED = 512  # rows to which these networks fill up their text


@dataclass(frozen=True)
class CrossFamily:
    """A family with cross-attention to the text.

    network: the host's class, None where the host has none. patch: the network's name for the latent pixels a
    side of a token; where it is three numbers, those of time, height and width. blocks: its names for its
    lists of blocks, in order, where editing methods may steer them.
    """

    network: type | None
    patch: str
    blocks: tuple[str, ...] = ()

    def steered_of(self, model, size: tuple[int, int]) -> SteeredTransformer | None:
        """What editing methods steer in a MODEL of this family, else None."""
        reader = self.reader_of(model, size) if self.blocks else None
        if reader is None:
            return None
        layers = layers_of(model, self.blocks, self._side(model))
        return SteeredTransformer(self.blocks, *layers, reader.grid, crosses=True)

    def reader_of(self, model, size: tuple[int, int]) -> CrossReader | None:
        """The adapter of a MODEL of this family, else None."""
        network = model.get_model_object("diffusion_model")
        if self.network is None or not isinstance(network, self.network):
            return None
        side = self._side(model)
        return CrossReader((-(-size[0] // side), -(-size[1] // side)))

    def _side(self, model) -> int:
        patch = getattr(model.get_model_object("diffusion_model"), self.patch)
        return patch if isinstance(patch, int) else patch[-1]


@dataclass(frozen=True)
class CrossReader:
    """The adapter for one size. grid: height and width of the image tokens."""

    grid: tuple[int, int]

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
        image, text = self.grid[0] * self.grid[1], max(PADDED, sink.rows)
        if not sink.armed or (k.shape[-2] == q.shape[-2] != text) or k.shape[-2] not in (text, sink.rows):
            return
        chunks = chunks_of(len(q), transformer_options or {})
        if chunks and not any(chunk.cond for chunk in chunks):
            return
        if chunks is None or mask is not None or q.shape[-2] != image or image == text:
            sink.give_up(
                "the attention of the text cannot be told from others (areas, masked or added tokens, "
                "reference pictures, or a picture of as many tokens as the text)"
            )
            return
        if not options.get("skip_reshape"):
            q, k = split_heads(q, heads), split_heads(k, heads)
        for rows in (chunk.rows for chunk in chunks if chunk.cond):
            maps = mean_to_text(q[rows], k[rows], slice(sink.rows))
            sink.add(maps.unflatten(1, self.grid).permute(0, 3, 1, 2))


ANIMA = CrossFamily(host_class("comfy.ldm.anima.model", "Anima"), "patch_spatial", blocks=("blocks",))
WAN = CrossFamily(host_class("comfy.ldm.wan.model", "WanModel"), "patch_size", blocks=("blocks",))
