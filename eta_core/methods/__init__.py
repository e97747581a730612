"""Editing methods laid over the inversion: what each borrows from the source branch, at which steps and layers.

A method is a value. The host's layers are told by `Layer`; how maps and features are borrowed is in attention.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Fit = Callable[[Tensor], Tensor]  # a user's mask at the latent's size, as `fitted` wants it


class Span(NamedTuple):
    """From `start` to `end` as fractions of the steps, 0 = first (noise end), 1 = last; start = end is never."""

    start: float
    end: float

    def check(self, name: str) -> Span:
        if not (math.isfinite(self.start) and math.isfinite(self.end) and 0 <= self.start <= self.end <= 1):
            raise ValueError(
                f"{name} runs from {self.start:g} to {self.end:g}: fractions of the steps, 0 <= start <= end <= 1"
            )
        return self

    def covers(self, done: int, steps: int) -> bool:
        """Whether the step after `done` finished ones lies in it (Prompt-to-Prompt's rounding)."""
        return int(self.start * steps) <= done < int(self.end * steps)


NEVER = Span(0.0, 0.0)


class Layer(NamedTuple):
    """A transformer layer of a UNet.

    share: its place in the network's order, 0 = first, below 1. scale: the latent's side / its grid's. part: "input",
    "middle" or "output". late: in the decoder from the second up block's second residual layer on.
    """

    share: float
    scale: int
    part: str
    late: bool


class Borrow(NamedTuple):
    """What self-attention takes from the source branch; of kind 0, the positive rows, or 1, the negative ones."""

    q: bool = False
    k: bool = False
    v: bool = False

    def __or__(self, other: Borrow) -> Borrow:
        return Borrow(*(a or b for a, b in zip(self, other)))


@dataclass(frozen=True, eq=False)
class LocalBlend:
    """The picture is held on the source where neither branch looks at the words (Prompt-to-Prompt, local blend).

    source, target: rows of the words' tokens in each conditioning. From the step after `start` of the steps on.
    threshold: of each map's maximum (reference: 0.3). mask [B or 1, 1, H, W]: instead of the words.
    """

    source: tuple[int, ...]
    target: tuple[int, ...]
    threshold: float = 0.3
    start: float = 0.2
    mask: Tensor | None = None

    def __post_init__(self):
        if self.mask is None and not self.source and not self.target:
            raise ValueError(
                "the local blend has no words: name words of either prompt in blend_words, or switch it off"
            )
        if not 0 <= self.threshold < 1:
            raise ValueError(
                f"blend_threshold = {self.threshold:g}: it runs from 0 to below 1 (reference: 0.3)"
            )

    def acts(self, done: int, steps: int) -> bool:
        return done >= int(self.start * steps)

    def region(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """[B, 1, H, W] in 0..1 from the words' maps, each [B, h, w]."""
        if self.mask is not None:
            return self.mask
        regions = []
        for words in maps:
            spread = F.interpolate(F.max_pool2d(words[:, None], 3, 1, 1), size, mode="nearest")
            regions.append(spread > self.threshold * spread.amax((-2, -1), keepdim=True))
        return torch.stack(regions).any(0).float()


@dataclass(frozen=True, eq=False)
class PromptToPrompt:
    """Hertz et al. 2022 (arXiv 2208.01626): attention maps of the source prompt steer those of the target prompt.

    shares [source rows, target rows] and scale [target rows]: see attention.transfer. cross: the steps of each target
    row. self_attention: the steps in which self-attention of at most half the latent's side is the source's.
    source_prompt: fingerprint of the inversion it was made for. target_prompt: of the target's text.
    """

    shares: Tensor
    scale: Tensor
    cross: tuple[Span, ...]
    self_attention: Span
    blend: LocalBlend | None = None
    source_prompt: str = ""
    target_prompt: str = ""

    def fitted(self, fit: Fit) -> PromptToPrompt:
        if self.blend is None or self.blend.mask is None:
            return self
        return replace(self, blend=replace(self.blend, mask=fit(self.blend.mask)))

    def weight(self, done: int, steps: int) -> Tensor:
        """[target rows], 1 where the cross-attention is steered at this step."""
        return torch.tensor([float(span.covers(done, steps + 1)) for span in self.cross])

    def steers_cross(self, done: int, steps: int) -> bool:
        return any(span.covers(done, steps + 1) for span in set(self.cross))

    def borrows(self, done: int, steps: int, layer: Layer, kind: int) -> Borrow:
        steered = kind == 0 and self.self_attention.covers(done, steps) and layer.scale >= 2
        return Borrow(q=steered, k=steered)

    def reads(self, done: int, steps: int) -> bool:
        """Whether the source branch is wanted at this step."""
        recorded = self.blend is not None and self.blend.mask is None and bool(self.blend.source)
        return self.steers_cross(done, steps) or self.self_attention.covers(done, steps) or recorded


@dataclass(frozen=True, eq=False)
class MasaCtrl:
    """Cao et al. 2023 (arXiv 2304.08465): from a step and a layer on, the target attends to the source's keys and values.

    regions: where the thing is in the source and where it is wanted, each [B or 1, 1, H, W] at the latent's size; None
    attends everywhere.
    """

    steps: Span
    start_layer: float = 10 / 16
    regions: tuple[Tensor, Tensor] | None = None

    def fitted(self, fit: Fit) -> MasaCtrl:
        return self if self.regions is None else replace(self, regions=tuple(map(fit, self.regions)))

    def borrows(self, done: int, steps: int, layer: Layer, kind: int) -> Borrow:
        steered = self.steps.covers(done, steps) and layer.share >= self.start_layer
        return Borrow(k=steered, v=steered)

    def reads(self, done: int, steps: int) -> bool:
        return self.start_layer < 1 and self.steps.covers(done, steps)


@dataclass(frozen=True)
class PlugAndPlay:
    """Tumanyan et al. 2023 (arXiv 2211.12572): the source's features and self-attention maps in the decoder.

    features: steps in which the residual features of the second up block's second layer are the source's;
    self_attention: steps in which q and k of the self-attention from there on are.
    """

    features: Span
    self_attention: Span

    def fitted(self, fit: Fit) -> PlugAndPlay:
        return self

    def borrows(self, done: int, steps: int, layer: Layer, kind: int) -> Borrow:
        steered = self.self_attention.covers(done, steps) and layer.late
        return Borrow(q=steered, k=steered)

    def reads(self, done: int, steps: int) -> bool:
        return self.features.covers(done, steps) or self.self_attention.covers(done, steps)


Method = PromptToPrompt | MasaCtrl | PlugAndPlay
