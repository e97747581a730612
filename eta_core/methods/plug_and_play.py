"""Plug-and-Play (Tumanyan et al. 2023, arXiv 2211.12572): the source's features in the decoder."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Injection, Layer, Method, Span


@dataclass(frozen=True)
class PlugAndPlay(Method):
    """In which steps the decoder takes over what the source has.

    features: the residual features of the second up block's second layer. self_attention: q and k of the
    self-attention from that layer on.
    """

    features: Span
    self_attention: Span

    def injection(self, done: int, steps: int, layer: Layer, cond: bool) -> Injection:
        steered = self.self_attention.covers(done, steps) and layer.late
        return Injection(q=steered, k=steered)

    def injects_features(self, done: int, steps: int) -> bool:
        return self.features.covers(done, steps)

    def reads_source(self, done: int, steps: int) -> bool:
        return self.features.covers(done, steps) or self.self_attention.covers(done, steps)
