"""The host's attention slots: whose rows a call has, and patches that chain what other packs installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import NamedTuple

from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

# Hosts newer than 0.33 lay out a block's memory once and give it to every block. What is kept must not lie
# there.
outside_the_blocks_memory: Callable[[], AbstractContextManager[object]] = nullcontext
with suppress(ImportError):
    from comfy.model_prefetch import pause_malloc_graph  # pyright: ignore[reportMissingImports]

    outside_the_blocks_memory = pause_malloc_graph


Key = tuple[
    str, int, int
]  # the host's patch key of a UNet's transformer layer: part, block, index in the block
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
Replacement = Callable[[Key, Attend, Tensor, Tensor, Tensor, dict], Tensor]


class Chunk(NamedTuple):
    """Rows of a network call that belong to one conditioning: the prompt (cond) or the negative (uncond)."""

    cond: bool
    rows: slice


def outlasting(tensor: Tensor, short: bool = False) -> Tensor:
    """What of a block may be kept after it. short: in main memory."""
    if short:
        return tensor.cpu()
    if outside_the_blocks_memory is nullcontext:
        return tensor
    with outside_the_blocks_memory():
        return tensor.clone()


def chunks_of(rows: int, extra_options: dict) -> list[Chunk] | None:
    """The chunks of a call of `rows`, or None where another pack has changed their number."""
    indices = extra_options["cond_or_uncond"]
    each, rest = divmod(rows, len(indices))
    if rest:
        return None
    return [Chunk(index == 0, slice(i * each, (i + 1) * each)) for i, index in enumerate(indices)]


def fills_picture(q: Tensor, extra_options: dict, size: tuple[int, int]) -> bool:
    """Whether the queries are those of the whole picture, one for each place of the grid."""
    height, width = extra_options["activations_shape"][-2:]
    return tuple(extra_options["original_shape"][-2:]) == size and q.shape[1] == height * width


def fold(maps: Tensor, rows: int) -> Tensor:
    """Maps over `rows` rows of text. The host repeats a prompt to a longer partner's length."""
    return maps if maps.shape[-1] == rows else maps.unflatten(-1, (-1, rows)).sum(-2)


def plain_attention(extra_options: dict) -> Attend:
    """The attention that the user runs (flash, sage, split, ...)."""
    options = {"attn_precision": extra_options["attn_precision"], "transformer_options": extra_options}
    return lambda q, k, v: optimized_attention(q, k, v, extra_options["n_heads"], **options)


def chain(model_options: dict, kind: str, layers: Sequence[Key], replacement: Replacement) -> None:
    """Put `replacement` around the attention of `layers` ("attn1" self, "attn2" cross).

    Where another pack has replaced it, that goes on inside. The patch sits under the host's (part, block)
    key, so that what replaces a whole block later, such as PAG, still does.
    """
    options = model_options.setdefault("transformer_options", {})
    placed = options.setdefault("patches_replace", {}).setdefault(kind, {})
    for key in layers:
        if key in placed:
            placed[key] = _around(placed[key], key, layers, replacement)
    for block in dict.fromkeys(key[:2] for key in layers):
        placed[block] = _around(placed.get(block), block, layers, replacement)


def _around(previous, key: tuple, layers: Sequence[Key], replacement: Replacement):
    def attention(q, k, v, extra_options, **kwargs):
        def attend(q, k, v):
            return plain(q, k, v) if previous is None else previous(q, k, v, extra_options, **kwargs)

        plain, here = plain_attention(extra_options), (*key[:2], extra_options["block_index"])
        return replacement(here, attend, q, k, v, extra_options) if here in layers else attend(q, k, v)

    return attention


def chain_steered(model_options: dict, steer: Callable[..., Tensor]) -> None:
    """Have `steer(attend, q, k, v, heads, ...)` answer every attention call of a transformer.

    `attend(q, k, v)` is what the call would have been, other packs' overrides included.
    """
    options = model_options.setdefault("transformer_options", {})
    previous = options.get("optimized_attention_override")

    def attention(plain, q, k, v, heads, *args, **kwargs):
        def attend(q, k, v):
            if previous is None:
                return plain(q, k, v, heads, *args, **kwargs)
            return previous(plain, q, k, v, heads, *args, **kwargs)

        return steer(attend, q, k, v, heads, *args, **kwargs)

    options["optimized_attention_override"] = attention


def chain_joint(model_options: dict, read: Callable[..., None]) -> None:
    """Have `read` see every attention call of a transformer, beside what other packs have put there."""
    options = model_options.setdefault("transformer_options", {})
    previous = options.get("optimized_attention_override")

    def attention(attend, *args, **kwargs):
        with outside_the_blocks_memory():
            read(*args, **kwargs)
        return attend(*args, **kwargs) if previous is None else previous(attend, *args, **kwargs)

    options["optimized_attention_override"] = attention
