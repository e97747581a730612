"""Plug-and-Play (Tumanyan et al. 2023, arXiv 2211.12572): the source's features in the decoder."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Injection, Layer, Method, Span

GIVERS = ("own rows", "empty prompt")


@dataclass(frozen=True, eq=False)
class PlugAndPlay(Method):
    """In which steps the decoder takes over what the source has.

    features: the residual features of the second up block's second layer. self_attention: q and k of the
    self-attention from that layer on. giver: "own rows" gives the target's prompt and negative prompt the
    source's row of the same kind; "empty prompt" gives both the source's row under the empty prompt, as the
    authors' program does. empty: that prompt as the host has it; None is the sampling's negative prompt.
    skipped: steps that count as done before the sampling's first.
    """

    features: Span
    self_attention: Span
    giver: str = "own rows"
    empty: object = None
    skipped: int = 0

    def __post_init__(self):
        if self.giver not in GIVERS:
            raise ValueError(f"giver '{self.giver}' is unknown: use one of {', '.join(GIVERS)}")

    def takes_one_row(self) -> bool:
        return self.giver == "empty prompt"

    def injection(self, done: int, steps: int, layer: Layer, cond: bool) -> Injection:
        steered = self._steers(self.self_attention, done, steps) and layer.late
        return Injection(q=steered, k=steered)

    def injects_features(self, done: int, steps: int) -> bool:
        return self._steers(self.features, done, steps)

    def reads_source(self, done: int, steps: int) -> bool:
        return self._steers(self.features, done, steps) or self._steers(self.self_attention, done, steps)

    def _steers(self, span: Span, done: int, steps: int) -> bool:
        return span.covers(done + self.skipped, steps)
