"""Prompts: the text above a node in the graph, its encoding and its tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest

from comfy_execution.graph_utils import is_link
from torch import Tensor

from ...eta_core.methods.alignment import UNKNOWN, WORD_END, Token, piece_of

T5, WORD_START, NO_TOKEN = "t5xxl", "\u2581", "<unk>"


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
    name = _encoder(clip, clip.tokenize(""))
    special = {pair[0] for pair in _rows(clip, "")[0] if isinstance(pair[0], int)}
    tokenizer = getattr(clip.tokenizer, name) if name == T5 else clip.tokenizer
    found, position = [], 0
    for chunk in _rows(clip, text):
        for pair in chunk:
            if not isinstance(pair[0], int):
                found.append(Token(position, _id_of(pair[0]), WORD_END))
            elif pair[0] not in special:
                ((_, piece),) = tokenizer.untokenize([pair])
                found.append(Token(position, pair[0], piece))
            position += 1
    return tuple(_as_clip_pieces(found) if name == T5 else found)


def _as_clip_pieces(tokens: list[Token]) -> Iterator[Token]:
    """SentencePiece marks where a word starts, CLIP where it ends; punctuation is a word of its own."""
    tokens = [replace(token, id=UNKNOWN, piece="") if token.piece == NO_TOKEN else token for token in tokens]
    for token, after in zip_longest(tokens, tokens[1:]):
        text = token.piece.removeprefix(WORD_START)
        ends = (
            after is None or after.piece.startswith(WORD_START) or not (text[-1:] + after.piece[:1]).isalnum()
        )
        yield (
            token
            if token.id < 0 and token.id != UNKNOWN
            else replace(token, piece=piece_of(text) + WORD_END * ends)
        )


def _id_of(embedding: Tensor) -> int:
    """A negative id that tells one row of a textual inversion from others."""
    values = embedding.detach().float().cpu().contiguous().numpy().tobytes()
    return -1 - int.from_bytes(hashlib.sha256(values).digest()[:6], "big")


def chunk_length(clip) -> int:
    """Rows of a conditioning that this CLIP encodes at once."""
    return len(_rows(clip, "")[0])


def _rows(clip, text: str) -> list:
    encoders = clip.tokenize(text)
    return encoders[_encoder(clip, encoders)]


def _encoder(clip, encoders: dict) -> str:
    """The encoder whose tokens are the first rows of a conditioning."""
    clips = [getattr(clip.cond_stage_model, name, None) for name in ("clip_l", "clip_g")]
    if T5 in encoders and (
        "g" not in encoders or not any(clips)
    ):  # Flux pools CLIP; SD3 puts CLIP's rows before T5's
        return T5
    return "l" if "l" in encoders else next(iter(encoders))
