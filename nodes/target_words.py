"""The target's own words: where they look while the target is sampled is free, too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..eta_core import masks
from ..eta_core.trajectory import Trajectory
from . import host
from .shaping import picture_for, refined, shaped

Places = Sequence[Sequence[int]]  # the rows of every occurrence of a phrase


@dataclass(frozen=True, eq=False)
class TargetWords:
    """Words of the target prompt, and how a mask is made of where they look.

    phrases: the rows of each in the target's conditioning. read: share of the steps in which they are read,
    the first ones. level: of the attention, None for each picture's own. image [1 or B, H, W, C]: whose edges
    the mask follows, or None. prompt: fingerprint of the target's text.
    """

    phrases: tuple[Places, ...]
    weights: tuple[float, ...]
    read: float
    level: float | None
    grow: int
    blur: float
    image: Tensor | None
    prompt: str

    def start(self, model, target: host.Branch, trajectory: Trajectory) -> WordsInSampling:
        """The words for one sampling of one variant. Raises ValueError where they cannot be read."""
        return WordsInSampling(self, model, target, trajectory)

    def region(self, maps: Tensor, latent_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Where the words look, [B, *size] in 0..1, from the attention of every row [B, rows, h, w]."""
        each = torch.stack([masks.phrase_map(maps, places, latent_size) for places in self.phrases], 1)
        image = picture_for(self.image, len(maps), size)
        if image is not None:
            each = refined(each, image, size)
        soft = masks.join_phrases(each.unbind(1), self.weights)
        return shaped(masks.threshold(soft, self.level), size, self.level != 0, self.grow, self.blur)


class WordsInSampling:
    """The words in one sampling, and where they have looked so far."""

    def __init__(self, words: TargetWords, model, target: host.Branch, trajectory: Trajectory):
        self._words, self._name = words, target.name
        self._latent_size, self._size = trajectory.latent_size, trajectory.picture_size
        self._recorder = host.MapRecorder(
            model, target.positive, self._latent_size, trajectory.batch, target.name
        )
        if host.is_compiled(model):
            self._recorder.give_up(
                "torch.compile is on this model, and compiled code cannot follow what is read in some steps "
                "only"
            )
        if self._recorder.problem:
            raise self._unreadable()

    def reads(self, done: int, steps: int) -> bool:
        """Whether the words are read in the step after `done` of `steps`."""
        return done < math.ceil(self._words.read * steps)

    def patch(self, options: dict, rows: Mapping[str, int], short: bool) -> dict:
        """`options` of a network call with the reading added, where the target is among its rows."""
        return self._recorder.install(options, rows, short) if self._name in rows else options

    def found(self) -> Tensor:
        """Where the words look, by all steps up to the one that is done: [B, H, W] in 0..1, in pixels."""
        self._recorder.close_step()
        maps = self._recorder.maps()
        if maps is None:
            raise self._unreadable()
        return self._words.region(maps, self._latent_size, self._size)

    def _unreadable(self) -> ValueError:
        return ValueError(
            f"where the target's words look cannot be read: {self._recorder.problem}; disconnect Eta Target "
            "Words, and give EtaSampler a mask with room for the new thing"
        )
