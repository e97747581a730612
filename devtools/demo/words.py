"""The embedded model's vocabulary, and captions as rows of it.

The host's prompt has 77 positions, all behind the caption filled with the end token. They carry one key, so
one position whose attention logit gets log(number of end tokens) stands for all of them: much cheaper to
train on.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# word or word piece -> id in CLIP's vocabulary; None: every token that is not listed
ROWS = {
    "<unknown>": None,
    "<start>": 49406,
    "<end>": 49407,
    "cat": 2368,
    "dog": 1929,
    "fox": 3240,
    "panda": 12952,
    "bear": 4298,
    "frog": 11438,
    "pig|": 12009,
    "|let": 1094,
    "penguin": 14952,
    "apple": 3055,
    "orange": 4287,
    "strawberry": 10233,
    "sunflower": 21559,
    "heart": 1936,
    "ball": 1069,
    "red": 736,
    "yellow": 4481,
    "green": 1901,
    "blue": 1746,
    "purple": 5496,
    "grass": 5922,
    "sand": 5094,
    "sky": 2390,
    "snow": 2583,
    "brick|": 13937,
    "|work": 951,
    "night": 930,
    "water": 1573,
    "wood": 1704,
    "a": 320,
    "an": 550,
    "the": 518,
    "photo": 1125,
    "picture": 1674,
    "of": 539,
    "on": 525,
    "in": 530,
}
PIECES = {"piglet": ("pig|", "|let"), "brickwork": ("brick|", "|work")}
INDEX = {word: row for row, word in enumerate(ROWS)}
LENGTH = 16  # longest caption with start, and the one end position
PROMPT = 77


def encode_caption(captions: list[str]) -> tuple[Tensor, Tensor]:
    """(rows [B, LENGTH], log weights [B, 1, 1, LENGTH]) of captions made of known words."""
    rows = torch.full((len(captions), LENGTH), INDEX["<end>"])
    weights = torch.full((len(captions), 1, 1, LENGTH), -math.inf)
    for i, caption in enumerate(captions):
        pieces = [piece for word in caption.split() for piece in PIECES.get(word, (word,))]
        ids = [INDEX["<start>"], *(INDEX[piece] for piece in pieces)]
        rows[i, : len(ids)] = torch.tensor(ids)
        weights[i, ..., : len(ids)] = 0.0
        weights[i, ..., len(ids)] = math.log(PROMPT - len(ids))
    return rows, weights
