"""What an editing method can ask for, and the terms in which it asks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .attention import mixture, transfer

if TYPE_CHECKING:
    from .local_blend import LocalBlend

Fit = Callable[[Tensor], Tensor]  # brings a user's mask to the latent's size


class Span(NamedTuple):
    """From `start` to `end`, fractions of the steps: 0 = first (noise end), 1 = last. start = end: never."""

    start: float
    end: float

    def check(self, name: str) -> Span:
        """This span. Raises ValueError unless 0 <= start <= end <= 1."""
        if not (math.isfinite(self.start) and math.isfinite(self.end) and 0 <= self.start <= self.end <= 1):
            raise ValueError(
                f"{name} runs from {self.start:g} to {self.end:g}: fractions of the steps, 0 <= start <= end "
                "<= 1"
            )
        return self

    def covers(self, done: int, steps: int) -> bool:
        """Whether the step after `done` finished ones lies in it (Prompt-to-Prompt's rounding)."""
        return int(self.start * steps) <= done < int(self.end * steps)


NEVER = Span(0.0, 0.0)


class Layer(NamedTuple):
    """A layer of a UNet's transformers, or a block of a transformer.

    share: its place in the network's order, 0 = first, below 1. scale: the side of its grid's cells, in
    latent pixels of 8 picture pixels. part: "input", "middle" or "output", or "block" of a transformer. late:
    in the decoder from the second up block's second residual layer on, or in a transformer's later half.
    """

    share: float
    scale: int
    part: str
    late: bool


class Injection(NamedTuple):
    """Which of q, k and v the source's self-attention injects into the target's."""

    q: bool = False
    k: bool = False
    v: bool = False

    def __or__(self, other: Injection) -> Injection:
        return Injection(self.q or other.q, self.k or other.k, self.v or other.v)


@dataclass(frozen=True, eq=False)
class CrossControl:
    """How the source's cross-attention maps control the target's in one step; see attention.mixture.

    shares [source rows, target rows], scale [target rows], weight [target rows] in 0..1; weight 0 everywhere
    steers nothing.
    """

    shares: Tensor
    scale: Tensor
    weight: Tensor

    @cached_property
    def steers(self) -> bool:
        return bool(self.weight.any())

    def change(self, source: Tensor, target: Tensor) -> Tensor:
        """What the target's maps gain, from both branches' [B, heads, Q, rows]."""
        if target.device not in self._mixtures:
            self._mixtures[target.device] = tuple(t.to(target) for t in self._mixture)
        return transfer(source, target, *self._mixtures[target.device])

    @cached_property
    def _mixture(self) -> tuple[Tensor, Tensor]:
        return mixture(self.shares, self.weight, self.scale)

    @cached_property
    def _mixtures(self) -> dict[torch.device, tuple[Tensor, ...]]:
        """The same on each device, brought there once a step and not once a layer."""
        return {}


class Method:
    """An editing method. This base asks for nothing; a method overrides what it uses.

    `done` of `steps` are finished when a step begins.
    """

    def fitted(self, fit: Fit) -> Method:
        """This method with its masks brought to the latent's size."""
        return self

    def reads_source(self, done: int, steps: int) -> bool:
        """Whether the source branch is needed at this step."""
        return False

    def injection(self, done: int, steps: int, layer: Layer, cond: bool) -> Injection:
        """What self-attention takes from the source. cond: in the prompt's rows, else the negative's."""
        return Injection()

    def source_share(self) -> Tensor | None:
        """How much of the injected keys and values is the source's, [B or 1, 1, H, W]; None is all."""
        return None

    def injects_features(self, done: int, steps: int) -> bool:
        """Whether the residual features of the second up block's second layer are the source's.

        A transformer has none: there it is the values of its later half (RF-Edit, arXiv 2411.04746).
        """
        return False

    def cross_control(self, done: int, steps: int) -> CrossControl | None:
        """How cross-attention is controlled at this step; None where its maps are not even read."""
        return None

    def attention_regions(self) -> tuple[Tensor, Tensor] | None:
        """Where the thing is in the source and where it is wanted: injected attention keeps these apart."""
        return None

    def local_blend(self) -> LocalBlend | None:
        """What holds the picture outside the words."""
        return None

    def takes_one_row(self) -> bool:
        """Whether one row of the source, under a prompt of its own, gives to both halves of the guidance."""
        return False

    def check_prompts(self, source: str, target: str, target_rows: list[int]) -> str:
        """A warning where the method was made for another target prompt, else "".

        source, target: fingerprints of the inversion's prompt and of the target's text. target_rows: rows of
        each entry of the target's conditioning. Raises ValueError where the method does not fit them at all.
        """
        return ""
