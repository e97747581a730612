"""Transformers whose blocks attend to text and image tokens in one sequence (MM-DiT, Esser et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ....eta_core.methods.attention import mean_to_text, split_heads
from ..attention import chain_joint, chunks_of
from .base import MapSink


def every_block(options: dict) -> bool:
    return True


@dataclass(frozen=True)
class JointFamily:
    """A family whose sequence is [text, image], or [image, text].

    network: the host's class. is_main: whether an attention call belongs to a block whose maps are read, told
    by its transformer_options. text_first: the order of the sequence.
    """

    network: type
    is_main: Callable[[dict], bool] = every_block
    text_first: bool = True

    def reader_of(self, model, size: tuple[int, int]) -> JointReader | None:
        """The adapter of a MODEL of this family, else None."""
        network = model.get_model_object("diffusion_model")
        if not isinstance(network, self.network):
            return None
        patch = network.patch_size  # latent pixels a side of a token
        return JointReader(self, (-(-size[0] // patch), -(-size[1] // patch)))


@dataclass(frozen=True)
class JointReader:
    """A joint family's adapter for one size. grid: height and width of the image tokens."""

    family: JointFamily
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
        image, called = self.grid[0] * self.grid[1], transformer_options or {}
        # Some blocks attend among the image's own tokens alone; there is no text to read in them.
        if not sink.armed or not self.family.is_main(called) or k.shape[-2] == image:
            return
        chunks, text = chunks_of(len(q), called), k.shape[-2] - image
        if chunks and not any(chunk.cond for chunk in chunks):
            return
        if chunks is None or mask is not None or text != sink.rows:
            sink.give_up(
                "the text and the picture are not all that the attention sees (areas, masked, padded or "
                "added tokens, reference pictures)"
            )
            return
        if not options.get("skip_reshape"):
            q, k = split_heads(q, heads), split_heads(k, heads)
        for rows in (chunk.rows for chunk in chunks if chunk.cond):
            # Rolled by the image's length, [image, text] becomes [text, image]; attention does not mind the
            # order.
            turned = [t[rows] if self.family.text_first else t[rows].roll(-image, 2) for t in (q, k)]
            maps = mean_to_text(turned[0][:, :, text:], turned[1], text)
            sink.add(maps.unflatten(1, self.grid).permute(0, 3, 1, 2))
