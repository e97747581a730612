"""Text encoders: which rows of a conditioning are whose tokens, and where words begin and end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile, zip_longest

from ....eta_core.methods.alignment import UNKNOWN, WORD_END, Token, piece_of, text_of

T5, CLIPS = "t5xxl", ("l", "g", "h")
WORD_START, SPACE, NO_TOKEN = "\u2581", piece_of(" "), "<unk>"
# tokens of the template behind the prompt that an encoder drops
DROPPED = {"LongCatImageTEModel": 5, "MingImageTEModel": 3}


def rows_of_text(positive: list) -> int:
    """Rows of the text as the network's attention sees them.

    Anima's network makes them itself, one for each of T5's ids beside the conditioning. Ming-Image's sees
    those of the conditioning, which are no words, and behind them one for each token.
    """
    cond, extra = positive[0]
    ids, tokens = extra.get("t5xxl_ids"), extra.get("direct_context")
    if ids is not None:
        return ids.shape[-1]
    return cond.shape[1] + (0 if tokens is None else tokens.shape[1])


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
    names = (encoder, f"clip_{encoder}")
    return next(
        (getattr(clip.tokenizer, name) for name in names if hasattr(clip.tokenizer, name)), clip.tokenizer
    )


def span_of(rows: Sequence, empty: Sequence, padding: int) -> tuple[int, int]:
    """Where the prompt's own tokens begin and end among `rows`, an encoder's ids for it with its template.

    empty: the rows of an empty prompt. padding: the id that fills up, on either side.
    """
    first = _count(rows, lambda row: row == padding)
    rows, empty = _without(rows, padding), _without(empty, padding)
    head = _common(rows, empty)
    tail = min(_common(rows[::-1], empty[::-1]), len(empty) - head)
    return first + head, first + len(rows) - tail


def shift_of(clip, encoded: int, tokens: int) -> int:
    """How many rows before its token's place a prompt's row stands in a conditioning of `encoded` rows.

    Encoders cut off what their template puts before the prompt, or put pictures there; what follows stays, up
    to what DROPPED says.
    """
    kinds = (kind.__name__ for kind in type(clip.cond_stage_model).__mro__)
    return tokens - sum(DROPPED.get(kind, 0) for kind in kinds) - encoded


def as_words(tokens: Sequence[Token], pieces: Sequence[str]) -> tuple[Token, ...]:
    """Tokens whose pieces mark the end of a word, as CLIP's do; the encoder's own mark where one starts.

    pieces: those of a text of two words, from which the encoder's mark is known. The pieces of Qwen, Llama
    and Mistral stand for bytes, those of SentencePiece for characters.
    """
    bytewise = any(piece.startswith(SPACE) for piece in pieces)
    start, as_piece = (SPACE, str) if bytewise else (WORD_START, piece_of)
    return tuple(_by_starts(tokens, start, as_piece))


def _by_starts(tokens: Sequence[Token], start: str, as_piece: Callable[[str], str]) -> Iterator[Token]:
    """Most encoders mark where a word starts, CLIP where it ends. Punctuation is a word of its own."""
    tokens = [replace(token, id=UNKNOWN, piece="") if token.piece == NO_TOKEN else token for token in tokens]
    for token, after in zip_longest(tokens, tokens[1:]):
        if token.id < 0 and token.id != UNKNOWN:  # a textual inversion has no text
            yield token
            continue
        piece = as_piece(token.piece.removeprefix(start))
        following = start if after is None else after.piece
        ends = following.startswith(start) or _parts(piece, as_piece(following))
        yield replace(token, piece=piece + (WORD_END if ends else ""))


def _parts(piece: str, following: str) -> bool:
    """Whether a word ends between two pieces: neither is part of a character, and one is no letter."""
    text, after = (text_of([Token(0, 0, each)]) for each in (piece, following))
    return "\ufffd" not in text[-1:] + after[:1] and not (text[-1:] + after[:1]).isalnum()


def _without(rows: Sequence, padding: int) -> list:
    first, last = (_count(each, lambda row: row == padding) for each in (rows, rows[::-1]))
    return list(rows[first : len(rows) - last])


def _common(one: Sequence, other: Sequence) -> int:
    return _count(list(zip(one, other)), lambda pair: pair[0] == pair[1])


def _count(rows: Sequence, wanted: Callable[..., bool]) -> int:
    return sum(1 for _ in takewhile(wanted, rows))
