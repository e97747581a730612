"""SD1, SD2, SDXL: a UNet whose transformer layers attend to the text by cross-attention."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, Upsample
from torch import Tensor
from torch.nn import functional as F

from ....eta_core.methods import Layer
from ....eta_core.methods.attention import probabilities
from ..attention import (
    Attend,
    Key,
    chain,
    chunks_of,
    fills_picture,
    fold,
    outlasting,
    outside_the_blocks_memory,
)
from .base import MapSink

AT_ONCE = 10  # layers, as many as the largest blocks of SDXL have


@dataclass(frozen=True)
class UNet:
    """A UNet for latents of one size.

    layers: its transformer layers by the host's patch key, in the network's order. map_layers: those whose
    maps are read. grid: height and width of these maps. Other packs may leave that grid for some steps (Deep
    Shrink).
    """

    layers: Mapping[Key, Layer]
    map_layers: tuple[Key, ...]
    grid: tuple[int, int]

    def install(self, options: dict, sink: MapSink) -> None:
        reading = _Reading(self, sink)
        chain(options, "attn2", self.map_layers, reading.attend)
        options["sampler_pre_cfg_function"] = [*options.get("sampler_pre_cfg_function", []), reading.close]


class _Reading:
    """The reading of one network call.

    A GPU waits for the start of every kernel, so layers of one shape are read together, AT_ONCE at a time.
    """

    def __init__(self, network: UNet, sink: MapSink):
        self._network, self._sink = network, sink
        self._waiting: list[tuple[Tensor, Tensor]] = []  # queries and keys of layers that are not read yet
        self._shape: tuple = ()  # height and width of their grid, and their heads

    def attend(
        self, key: Key, attend: Attend, q: Tensor, k: Tensor, v: Tensor, extra_options: dict
    ) -> Tensor:
        if self._sink.armed:
            self._take(q, k, extra_options)
        return attend(q, k, v)

    def close(self, args: dict) -> list:
        """The network has answered."""
        self._read()
        return args["conds_out"]

    def _take(self, q: Tensor, k: Tensor, extra_options: dict) -> None:
        sink = self._sink
        if tuple(extra_options["original_shape"][-2:]) != sink.size:
            sink.pass_over()  # another conditioning's area, or a tile
            return
        chunks = chunks_of(len(q), extra_options)
        if chunks and not any(chunk.cond for chunk in chunks):
            return
        if chunks is None or not fills_picture(q, extra_options, sink.size) or k.shape[1] % sink.rows:
            sink.give_up("another pack changes the attention's shape (ToMe, HyperTile, added tokens)")
            return
        shape = (*extra_options["activations_shape"][-2:], extra_options["n_heads"])
        for q_part, k_part in ((q[chunk.rows], k[chunk.rows]) for chunk in chunks if chunk.cond):
            alike = not self._waiting or self._waiting[0][1].shape == k_part.shape
            if shape != self._shape or not alike or len(self._waiting) == (1 if sink.short else AT_ONCE):
                self._read()
            self._shape = shape
            self._waiting.append((outlasting(q_part), outlasting(k_part)))

    def _read(self) -> None:
        """Hand over the maps of the layers that wait."""
        if not self._waiting:
            return
        *grid, heads = self._shape
        with outside_the_blocks_memory():
            q, k = (torch.cat(each) for each in zip(*self._waiting))
            maps = fold(probabilities(q, k, heads).mean(1), self._sink.rows)
            maps = maps.unflatten(1, grid).permute(0, 3, 1, 2)
            if tuple(grid) != self._network.grid:
                maps = F.interpolate(maps, self._network.grid, mode="bilinear")
            for each in maps.chunk(len(self._waiting)):
                self._sink.add(each)
        self._waiting.clear()


def unet_of(model, size: tuple[int, int]) -> UNet | None:
    """The adapter of a MODEL, or None where its network is no UNet with transformer layers."""
    network = model.get_model_object("diffusion_model")
    layers = _layers(network) if hasattr(network, "output_blocks") else {}
    if not layers:
        return None
    readable = _map_layers(layers, size)
    scale = max(layers[key].scale for key in readable)
    return UNet(layers, readable, (-(-size[0] // scale), -(-size[1] // scale)))


def feature_block(network) -> int:
    """The output block that is the second up block's second residual layer (Plug-and-Play)."""
    blocks = network.output_blocks
    rises = (i for i, block in enumerate(blocks) if any(isinstance(module, Upsample) for module in block))
    return min(next(rises, -1) + 2, len(blocks) - 1)


def _layers(network) -> dict[Key, Layer]:
    found, scale = [], 1
    for part, number, block in _blocks(network):
        late = part == "output" and number >= feature_block(network)
        for module in block:
            if isinstance(module, SpatialTransformer):
                found += [((part, number, i), scale, late) for i in range(len(module.transformer_blocks))]
            elif isinstance(module, Downsample):
                scale *= 2
            elif isinstance(module, Upsample):
                scale //= 2
    return {key: Layer(i / len(found), scale, key[0], late) for i, (key, scale, late) in enumerate(found)}


def _blocks(network) -> Iterator[tuple[str, int, Iterable]]:
    yield from (("input", number, block) for number, block in enumerate(network.input_blocks))
    yield "middle", 0, network.middle_block or ()
    yield from (("output", number, block) for number, block in enumerate(network.output_blocks))


def _map_layers(layers: Mapping[Key, Layer], size: tuple[int, int]) -> tuple[Key, ...]:
    """Down and up blocks at a quarter of the latent: 16x16 at 512 px (paper, section 4.3).

    Finer blocks where these have fewer than 16 tokens a side.
    """
    outer = {key: layer for key, layer in layers.items() if layer.part != "middle"} or layers
    wanted = min(4, max(1, min(size) // 16))
    scales = {layer.scale for layer in outer.values()}
    scale = max((s for s in scales if s <= wanted), default=min(scales))
    return tuple(key for key, layer in outer.items() if layer.scale == scale)
