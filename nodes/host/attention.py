"""Cross-attention of a UNet: which layers, and reading them without changing any result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from comfy.ldm.modules.attention import SpatialTransformer, optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, Upsample
from torch import Tensor

from ...eta_core.masks import MapAverage


class CrossAttention(NamedTuple):
    """Where a cross-attention layer sits, by the host's patch key, and how much smaller than the latent its grid is."""

    key: tuple[str, int, int]
    scale: int


def cross_attention_layers(model) -> list[CrossAttention]:
    """The cross-attention layers of a UNet's down and up blocks; empty for any other network."""
    unet, layers, scale = model.get_model_object("diffusion_model"), [], 1
    for name in ("input", "output"):
        for number, block in enumerate(getattr(unet, f"{name}_blocks", ())):
            for module in block:
                if isinstance(module, SpatialTransformer):
                    layers += [CrossAttention((name, number, i), scale) for i in range(len(module.transformer_blocks))]
                scale = (
                    scale * 2
                    if isinstance(module, Downsample)
                    else scale // 2
                    if isinstance(module, Upsample)
                    else scale
                )
    return layers


def map_layers(layers: Sequence[CrossAttention], size: tuple[int, int]) -> list[CrossAttention]:
    """The layers the maps are read from: a quarter of the latent, 16x16 at 512 px (paper), finer where that is coarser
    than 16 tokens."""
    wanted = min(4, max(1, min(size) // 16))
    scales = {layer.scale for layer in layers}
    scale = max((s for s in scales if s <= wanted), default=min(scales, default=0))
    return [layer for layer in layers if layer.scale == scale]


class MapRecorder:
    """Reads the conditional rows' cross-attention into per-token maps without changing any result."""

    def __init__(self, model, positive: list, size: tuple[int, int]):
        self._average = MapAverage()
        self._armed = True
        self._size = size
        self._tokens = positive[0][0].shape[1]
        self._layers = map_layers(cross_attention_layers(model), size) if len(positive) == 1 else []
        self.problem = ""
        if len(positive) != 1:
            self.problem = f"the source conditioning has {len(positive)} entries (Conditioning Combine or areas) where maps need one prompt"
        elif not self._layers:
            self.problem = f"{type(model.model).__name__} has no UNet cross-attention to read"

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
        """Wrap the layers' replacements in `model_options`, so that other packs' stay in force."""
        replaced = (
            model_options.setdefault("transformer_options", {})
            .setdefault("patches_replace", {})
            .setdefault("attn2", {})
        )
        for layer in self._layers:
            replaced[layer.key] = self._wrap(replaced.get(layer.key, replaced.get(layer.key[:2])))
        model_options["sampler_pre_cfg_function"] = [*model_options.get("sampler_pre_cfg_function", []), self._disarm]
        return model_options

    def _wrap(self, previous):
        def attention(q, k, v, extra_options):
            if self._armed:
                self._read(q, k, extra_options)
            if previous is not None:
                return previous(q, k, v, extra_options)
            return optimized_attention(
                q,
                k,
                v,
                extra_options["n_heads"],
                attn_precision=extra_options["attn_precision"],
                transformer_options=extra_options,
            )

        return attention

    def _read(self, q: Tensor, k: Tensor, extra_options: dict) -> None:
        height, width = extra_options["activations_shape"][-2:]
        chunks = extra_options["cond_or_uncond"]
        if (
            tuple(extra_options["original_shape"][-2:]) != self._size
            or q.shape[1] != height * width
            or len(q) % len(chunks)
            or k.shape[1] % self._tokens
        ):
            self.problem = (
                "another pack or an area changes the attention's shape (areas, ToMe, HyperTile, added tokens)"
            )
            return
        conditional = [i for i, kind in enumerate(chunks) if kind == 0]
        if conditional:
            rows = torch.cat(
                [torch.arange(i * (len(q) // len(chunks)), (i + 1) * (len(q) // len(chunks))) for i in conditional]
            ).to(q.device)
            self._average.add(
                self._probabilities(q[rows], k[rows], extra_options["n_heads"]).unflatten(1, (height, width))
            )

    def _probabilities(self, q: Tensor, k: Tensor, heads: int) -> Tensor:
        """[rows, queries, tokens], the mean over heads; a prompt repeated to a longer partner's length is folded back."""
        q, k = (t.unflatten(-1, (heads, -1)).transpose(1, 2).float() for t in (q, k))
        p = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1).mean(1)
        return p.unflatten(-1, (-1, self._tokens)).sum(-2)
