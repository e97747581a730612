"""Prompt-to-Prompt (Hertz et al. 2022, arXiv 2208.01626): the source's maps control the target's."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .base import CrossControl, Fit, Injection, Layer, Method, Span
from .local_blend import LocalBlend


@dataclass(frozen=True, eq=False)
class PromptToPrompt(Method):
    """shares [source rows, target rows] and scale [target rows]: see attention.transfer.

    cross: the steps of each target row. self_attention: the steps in which self-attention of at most half the
    latent's side is the source's. source_prompt: fingerprint of the prompt of the inversion it was made for.
    target_prompt: of the target's text.
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
        """[target rows], 1 where the cross-attention is controlled at this step."""
        return torch.tensor([float(span.covers(done, steps + 1)) for span in self.cross])

    def cross_control(self, done: int, steps: int) -> CrossControl | None:
        weight = self.weight(done, steps)
        if not bool(weight.any()) and (self.blend is None or not self.blend.reads_words):
            return None
        return CrossControl(self.shares, self.scale, weight)

    def injection(self, done: int, steps: int, layer: Layer, cond: bool) -> Injection:
        steered = cond and self.self_attention.covers(done, steps) and layer.scale >= 2
        return Injection(q=steered, k=steered)

    def reads_source(self, done: int, steps: int) -> bool:
        blends = self.blend is not None and self.blend.reads_words and bool(self.blend.source)
        return blends or bool(self.weight(done, steps).any()) or self.self_attention.covers(done, steps)

    def local_blend(self) -> LocalBlend | None:
        return self.blend

    def check_prompts(self, source: str, target: str, target_rows: list[int]) -> str:
        if self.source_prompt != source:
            raise ValueError(
                "EtaPromptToPrompt was made for another source prompt than this inversion's: connect the "
                "same inversion "
                "to both"
            )
        if target_rows != [self.shares.shape[1]]:
            raise ValueError(
                f"EtaPromptToPrompt was made for a target prompt of {self.shares.shape[1]} rows, "
                "EtaSampler's positive has "
                f"{target_rows}: connect the same target prompt to both"
            )
        if self.target_prompt != target:
            return (
                "EtaPromptToPrompt was made for another target prompt than EtaSampler's: words may be mixed "
                "up"
            )
        return ""
