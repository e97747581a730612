"""Attention of a UNet: which layers there are, reading them, and steering them by the source branch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from comfy.ldm.flux.model import Flux
from comfy.ldm.modules.attention import SpatialTransformer, optimized_attention
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, Upsample
from torch import Tensor
from torch.nn import functional as F

from ...eta_core.masks import MapAverage
from ...eta_core.methods import Layer
from ...eta_core.methods.attention import mean_to_text, probabilities, split_heads

Key = tuple[str, int, int]


def attention_layers(model) -> dict[Key, Layer]:
    """The transformer layers of a UNet by the host's patch key, in the network's order; empty for any other network."""
    unet, found, scale = model.get_model_object("diffusion_model"), [], 1
    if not hasattr(unet, "output_blocks"):
        return {}
    for part, number, block in _blocks(unet):
        late = part == "output" and number >= feature_block(unet)
        for module in block:
            if isinstance(module, SpatialTransformer):
                found += [((part, number, i), scale, late) for i in range(len(module.transformer_blocks))]
            elif isinstance(module, Downsample):
                scale *= 2
            elif isinstance(module, Upsample):
                scale //= 2
    return {key: Layer(i / len(found), scale, key[0], late) for i, (key, scale, late) in enumerate(found)}


def _blocks(unet) -> Iterator[tuple[str, int, Iterable]]:
    yield from (("input", number, block) for number, block in enumerate(unet.input_blocks))
    yield "middle", 0, unet.middle_block or ()
    yield from (("output", number, block) for number, block in enumerate(unet.output_blocks))


def feature_block(unet) -> int:
    """The output block that is the second up block's second residual layer (Plug-and-Play)."""
    rises = (
        i
        for i, block in enumerate(unet.output_blocks)
        if any(isinstance(module, Upsample) for module in block)
    )
    return min(next(rises, -1) + 2, len(unet.output_blocks) - 1)


def map_layers(layers: Mapping[Key, Layer], size: tuple[int, int]) -> list[Key]:
    """The layers the maps are read from: down and up blocks at a quarter of the latent, 16x16 at 512 px (paper), finer
    where that is coarser than 16 tokens."""
    layers = {key: layer for key, layer in layers.items() if layer.part != "middle"}
    wanted = min(4, max(1, min(size) // 16))
    scales = {layer.scale for layer in layers.values()}
    scale = max((s for s in scales if s <= wanted), default=min(scales, default=0))
    return [key for key, layer in layers.items() if layer.scale == scale]


def map_grid(layers: Mapping[Key, Layer], size: tuple[int, int]) -> tuple[int, int]:
    """The grid of `map_layers`, from which other packs may depart for some steps (Deep Shrink)."""
    scale = max((layers[key].scale for key in map_layers(layers, size)), default=1)
    return -(-size[0] // scale), -(-size[1] // scale)


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
Replacement = Callable[[Key, Attend, Tensor, Tensor, Tensor, dict], Tensor]


def chain(model_options: dict, kind: str, layers: Sequence[Key], replacement: Replacement) -> None:
    """Put `replacement` around the attention ("attn1" self, "attn2" cross) of `layers`, around other packs' where they are.

    It sits under the host's (name, number) key, so that what replaces a whole block later, such as PAG, still does.
    """
    placed = (
        model_options.setdefault("transformer_options", {})
        .setdefault("patches_replace", {})
        .setdefault(kind, {})
    )
    for key in layers:
        if key in placed:
            placed[key] = _around(placed[key], key, layers, replacement)
    for block in dict.fromkeys(key[:2] for key in layers):
        placed[block] = _around(placed.get(block), block, layers, replacement)


def plain_attention(extra_options: dict) -> Attend:
    """The attention the user runs (flash, sage, split, ...)."""
    options = {"attn_precision": extra_options["attn_precision"], "transformer_options": extra_options}
    return lambda q, k, v: optimized_attention(q, k, v, extra_options["n_heads"], **options)


def _around(previous, key: tuple, layers: Sequence[Key], replacement: Replacement):
    def attention(q, k, v, extra_options, **kwargs):
        def attend(q, k, v):
            return plain(q, k, v) if previous is None else previous(q, k, v, extra_options, **kwargs)

        plain, here = plain_attention(extra_options), (*key[:2], extra_options["block_index"])
        return replacement(here, attend, q, k, v, extra_options) if here in layers else attend(q, k, v)

    return attention


class Chunk(NamedTuple):
    """Rows of a network call that belong to one conditioning: kind 0 = positive, 1 = negative."""

    kind: int
    rows: slice


def chunks_of(rows: int, extra_options: dict) -> list[Chunk] | None:
    """The chunks of a call of `rows`, or None where another pack has changed their number."""
    kinds = extra_options["cond_or_uncond"]
    each, rest = divmod(rows, len(kinds))
    return None if rest else [Chunk(kind, slice(i * each, (i + 1) * each)) for i, kind in enumerate(kinds)]


def fills_picture(q: Tensor, extra_options: dict, size: tuple[int, int]) -> bool:
    """Whether the queries are the whole picture's, one for each place of the grid."""
    height, width = extra_options["activations_shape"][-2:]
    return tuple(extra_options["original_shape"][-2:]) == size and q.shape[1] == height * width


def fold(maps: Tensor, tokens: int) -> Tensor:
    """Maps over `tokens` tokens; the host repeats a prompt to a longer partner's length."""
    return maps.unflatten(-1, (-1, tokens)).sum(-2)


def joint_patch(model) -> int:
    """Latent pixels a side of a token in a network whose blocks attend to text and picture in one sequence, text first; else 0."""
    network = model.get_model_object("diffusion_model")
    return network.patch_size if isinstance(network, (Flux, MMDiT)) else 0


def chain_joint(model_options: dict, read: Callable[..., None]) -> None:
    """Have `read` see every attention call of such a network, beside what other packs have put there."""
    options = model_options.setdefault("transformer_options", {})
    previous = options.get("optimized_attention_override")

    def attention(attend, *args, **kwargs):
        read(*args, **kwargs)
        return attend(*args, **kwargs) if previous is None else previous(attend, *args, **kwargs)

    options["optimized_attention_override"] = attention


class MapRecorder:
    """Reads the conditional rows' attention to the text into per-token maps without changing any result."""

    def __init__(self, model, positive: list, size: tuple[int, int]):
        self._average = MapAverage()
        self._armed = True
        self._size = size
        self._tokens = positive[0][0].shape[1]
        layers = attention_layers(model) if len(positive) == 1 else {}
        self._layers, self._grid = map_layers(layers, size), map_grid(layers, size)
        self._patch = joint_patch(model)
        if self._patch:
            self._grid = (-(-size[0] // self._patch), -(-size[1] // self._patch))
        self.problem = ""
        if len(positive) != 1:
            self.problem = f"the source conditioning has {len(positive)} entries (Conditioning Combine or areas) where maps need one prompt"
        elif "area" in positive[0][1]:
            self.problem = "the source conditioning has an area where maps need a prompt of the whole picture"
        elif not self._layers and not self._patch:
            self.problem = f"{type(model.model).__name__} has neither a UNet's cross-attention nor joint attention that can be read"

    def close_step(self) -> None:
        self._average.close_step()
        self._armed = True

    def _disarm(self, args: dict) -> list:
        """The step's own prediction is made; guidance such as PAG or SAG may call the network again, for another purpose."""
        self._armed = False
        return args["conds_out"]

    def maps(self) -> Tensor | None:
        """[B, tokens, h, w] on the CPU; None where `problem` says why."""
        recorded = None if self.problem else self._average.result()
        if recorded is None and not self.problem:
            self.problem = "the source prompt was active at no step (its timestep range)"
        return recorded

    def install(self, model_options: dict) -> dict:
        if self._patch:
            chain_joint(model_options, self._read_joint)
        else:
            chain(model_options, "attn2", self._layers, self._attention)
        model_options["sampler_pre_cfg_function"] = [
            *model_options.get("sampler_pre_cfg_function", []),
            self._disarm,
        ]
        return model_options

    def _attention(
        self, key: Key, attend: Attend, q: Tensor, k: Tensor, v: Tensor, extra_options: dict
    ) -> Tensor:
        if self._armed:
            self._read(q, k, extra_options)
        return attend(q, k, v)

    def _read(self, q: Tensor, k: Tensor, extra_options: dict) -> None:
        if tuple(extra_options["original_shape"][-2:]) != self._size:
            return  # the part of the picture that is another conditioning's area
        chunks = chunks_of(len(q), extra_options)
        if chunks and not any(chunk.kind == 0 for chunk in chunks):
            return
        if chunks is None or not fills_picture(q, extra_options, self._size) or k.shape[1] % self._tokens:
            self.problem = "another pack changes the attention's shape (ToMe, HyperTile, added tokens)"
            return
        for rows in (chunk.rows for chunk in chunks if chunk.kind == 0):
            maps = fold(probabilities(q[rows], k[rows], extra_options["n_heads"]).mean(1), self._tokens)
            maps = maps.unflatten(1, tuple(extra_options["activations_shape"][-2:])).permute(0, 3, 1, 2)
            self._average.add(F.interpolate(maps, self._grid, mode="bilinear"))

    def _read_joint(
        self, q: Tensor, k: Tensor, v: Tensor, heads: int, mask=None, transformer_options=None, **options
    ) -> None:
        picture = self._grid[0] * self._grid[1]
        if (
            not self._armed
            or self.problem
            or transformer_options.get("block_type") == "single"
            or k.shape[-2] == picture
        ):
            return
        chunks, tokens = chunks_of(len(q), transformer_options), k.shape[-2] - picture
        if chunks and not any(chunk.kind == 0 for chunk in chunks):
            return
        if chunks is None or mask is not None or tokens != self._tokens:
            self.problem = "the text and the picture are not all that the attention sees (areas, masked, padded or added tokens, reference pictures)"
            return
        if not options.get("skip_reshape"):
            q, k = split_heads(q, heads), split_heads(k, heads)
        for rows in (chunk.rows for chunk in chunks if chunk.kind == 0):
            maps = mean_to_text(q[rows, :, tokens:], k[rows], tokens)
            self._average.add(maps.unflatten(1, self._grid).permute(0, 3, 1, 2))
