"""Prompts: the text above a node in the graph, its encoding and its tokens."""

from __future__ import annotations

import hashlib

from comfy_execution.graph_utils import is_link
from torch import Tensor

from ...eta_core.methods.alignment import WORD_END, Token
from .families.text import as_words, encoder_of_rows, has_template, tokenizer_of


def upstream_texts(dynprompt, node_id: str | None, name: str) -> tuple[str, ...]:
    """Every text widget above input `name` of a node, nearest first: what may have been encoded into it."""
    if dynprompt is None or node_id is None:
        return ()
    texts, queue, seen = [], [dynprompt.get_node(node_id)["inputs"].get(name)], set()
    while queue:
        link = queue.pop(0)
        if not is_link(link) or link[0] in seen:
            continue
        seen.add(link[0])
        values = list(dynprompt.get_node(link[0])["inputs"].values())
        texts += [v for v in values if isinstance(v, str)]
        queue += values
    return tuple(dict.fromkeys(texts))


def encode(clip, text: str) -> list:
    """The text's CONDITIONING, as CLIPTextEncode makes it."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def encodes_to(clip, text: str, encoded: Tensor) -> bool:
    """Whether this CLIP makes the tensor `encoded` of the text, up to rounding."""
    own = encode(clip, text)[0][0]
    return own.shape == encoded.shape and bool(
        (own.cpu() - encoded.cpu()).norm() <= 0.01 * encoded.norm().cpu()
    )


def tokens_of(clip, text: str) -> tuple[Token, ...]:
    """The text's own tokens, without start, end and padding; positions are rows of its conditioning."""
    encoder = encoder_of_rows(clip, clip.tokenize(""))
    empty, rows = _ids(_rows(clip, "")), _ids(_rows(clip, text))
    special, around = {id for id in empty if isinstance(id, int)}, (0, 0)
    if has_template(clip):  # its words may stand in the text too
        special, around = set(), (_shared(empty, rows), _shared(empty[::-1], rows[::-1]))
    tokenizer = tokenizer_of(clip, encoder)
    found = []
    for position in range(around[0], len(rows) - around[1]):
        id = rows[position]
        if not isinstance(id, int):
            found.append(Token(position, _id_of(id), WORD_END))
        elif id not in special:
            ((_, piece),) = tokenizer.untokenize([(id, 1.0)])
            found.append(Token(position, id, piece))
    return as_words(found)


def _ids(chunks: list) -> list:
    return [pair[0] for chunk in chunks for pair in chunk]


def _shared(one: list, other: list) -> int:
    """How many items two lists begin with alike."""
    pairs = enumerate(zip(one, other))
    return next((i for i, (a, b) in pairs if a is not b and a != b), min(len(one), len(other)))


def _id_of(embedding: Tensor) -> int:
    """A negative id that tells one row of a textual inversion from others."""
    values = embedding.detach().float().cpu().contiguous().numpy().tobytes()
    return -1 - int.from_bytes(hashlib.sha256(values).digest()[:6], "big")


def chunk_length(clip) -> int:
    """Rows of a conditioning that this CLIP encodes at once."""
    return len(_rows(clip, "")[0])


def _rows(clip, text: str) -> list:
    encoders = clip.tokenize(text)
    return encoders[encoder_of_rows(clip, encoders)]
