"""Text encoders: which rows of a conditioning are whose tokens, and where words begin and end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import zip_longest

from ....eta_core.methods.alignment import UNKNOWN, WORD_END, Token, piece_of

T5 = "t5xxl"
WORD_START, NO_TOKEN = "\u2581", "<unk>"  # of SentencePiece
SPACE, BLANKS = (
    "\u0120",
    ("\u0120", "\u010a"),
)  # of a byte-level vocabulary: before a word; space and line end


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
    return getattr(clip.tokenizer, encoder, clip.tokenizer)


def has_template(clip) -> bool:
    """Whether a prompt is encoded inside a conversation of the host's, as for Qwen."""
    return hasattr(clip.tokenizer, "llama_template")


def as_words(tokens: list[Token]) -> tuple[Token, ...]:
    """Tokens whose pieces mark the end of a word, as CLIP's do, by the marks that their vocabulary has."""
    if any(token.piece.endswith(WORD_END) for token in tokens):
        return tuple(tokens)
    if any(WORD_START in token.piece for token in tokens):
        tokens = [
            replace(token, id=UNKNOWN, piece="") if token.piece == NO_TOKEN else token for token in tokens
        ]
        return tuple(_ended(tokens, WORD_START, piece_of))
    return tuple(_ended([token for token in tokens if token.piece not in BLANKS], SPACE, lambda text: text))


def _ended(tokens: list[Token], mark: str, as_piece: Callable[[str], str]) -> Iterator[Token]:
    """`mark` stands where a word starts. CLIP marks where it ends, and punctuation is a word of its own."""
    for token, after in zip_longest(tokens, tokens[1:]):
        if token.id < 0 and token.id != UNKNOWN:  # a textual inversion has no text
            yield token
            continue
        text = token.piece.removeprefix(mark)
        following = mark if after is None else after.piece
        ends = following.startswith(mark) or not (_in_word(text[-1:]) and _in_word(following[:1]))
        yield replace(token, piece=as_piece(text) + (WORD_END if ends else ""))


def _in_word(character: str) -> bool:
    """Whether a character belongs into a word. One beyond ASCII may be a part of a character, byte by
    byte.
    """
    return not character or character.isalnum() or not character.isascii()
