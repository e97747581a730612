"""Text encoders: which rows of a conditioning are whose tokens, and where words begin and end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest

from ....eta_core.methods.alignment import UNKNOWN, WORD_END, Token, piece_of

T5 = "t5xxl"
WORD_START, NO_TOKEN = "\u2581", "<unk>"


def encoder_of_rows(clip, encoders: dict) -> str:
    """The encoder whose tokens are the first rows of a conditioning, by its name in `encoders`.

    Flux takes only a pooled vector from CLIP, its rows are T5's. SD3 puts CLIP's rows before T5's.
    """
    clips = [getattr(clip.cond_stage_model, name, None) for name in ("clip_l", "clip_g")]
    if T5 in encoders and ("g" not in encoders or not any(clips)):
        return T5
    return "l" if "l" in encoders else next(iter(encoders))


def tokenizer_of(clip, encoder: str):
    """The tokenizer of an encoder named by `encoder_of_rows`."""
    return getattr(clip.tokenizer, encoder) if encoder == T5 else clip.tokenizer


def as_words(tokens: list[Token], encoder: str) -> tuple[Token, ...]:
    """Tokens whose pieces mark the end of a word, as CLIP's do."""
    return tuple(_from_sentencepiece(tokens)) if encoder == T5 else tuple(tokens)


def _from_sentencepiece(tokens: list[Token]) -> Iterator[Token]:
    """SentencePiece marks where a word starts, CLIP where it ends. Punctuation is a word of its own."""
    tokens = [replace(token, id=UNKNOWN, piece="") if token.piece == NO_TOKEN else token for token in tokens]
    for token, after in zip_longest(tokens, tokens[1:]):
        if token.id < 0 and token.id != UNKNOWN:  # a textual inversion has no text
            yield token
            continue
        text = token.piece.removeprefix(WORD_START)
        following = WORD_START if after is None else after.piece
        ends = following.startswith(WORD_START) or not (text[-1:] + following[:1]).isalnum()
        yield replace(token, piece=piece_of(text) + (WORD_END if ends else ""))
