"""MasaCtrl (Cao et al. 2023, arXiv 2304.08465): the target attends to the source's keys and values."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from .base import Fit, Injection, Layer, Method, Span


@dataclass(frozen=True, eq=False)
class MasaCtrl(Method):
    """steps, start_layer: from which step and which share of the layers on.

    regions: where the thing is in the source and where it is wanted, each [B or 1, 1, H, W] at the latent's
    size; None attends everywhere. free: where the target keeps keys and values of its own but for the share
    `mixed_in` (KV-Edit, arXiv 2502.17363; ProEdit, arXiv 2512.22118); None nowhere.
    """

    steps: Span
    start_layer: float = 10 / 16
    regions: tuple[Tensor, Tensor] | None = None
    free: Tensor | None = None
    mixed_in: float = 0.0

    def fitted(self, fit: Fit) -> MasaCtrl:
        regions = None if self.regions is None else (fit(self.regions[0]), fit(self.regions[1]))
        return replace(self, regions=regions, free=None if self.free is None else fit(self.free))

    def source_share(self) -> Tensor | None:
        return None if self.free is None else 1 - (1 - self.mixed_in) * self.free

    def injection(self, done: int, steps: int, layer: Layer, cond: bool) -> Injection:
        steered = self.steps.covers(done, steps) and layer.share >= self.start_layer
        return Injection(k=steered, v=steered)

    def reads_source(self, done: int, steps: int) -> bool:
        return self.start_layer < 1 and self.steps.covers(done, steps)

    def attention_regions(self) -> tuple[Tensor, Tensor] | None:
        return self.regions
