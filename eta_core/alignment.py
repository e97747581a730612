"""Words of a prompt <-> positions of its tokens, on token ids; byte-pair pieces ending in `</w>` close a word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WORD_END = "</w>"


@dataclass(frozen=True)
class Token:
    """One token of an encoded prompt: its position (row of the conditioning), id and piece of text."""

    position: int
    id: int
    piece: str


@dataclass(frozen=True)
class Phrase:
    """A word or phrase the user asked for, and the weight of its region."""

    text: str
    weight: float = 1.0


def parse_phrases(text: str) -> tuple[Phrase, ...]:
    """Phrases from text such as "cat, red ball:0.5" (commas or line ends between, `:weight` or `(phrase:weight)`).

    Raises ValueError for empty text or a weight that is not a number above 0.
    """
    parts = [p.strip() for p in text.replace("\n", ",").split(",")]
    phrases = tuple(_parse_phrase(p) for p in parts if p)
    if not phrases:
        raise ValueError(
            "words is empty: type one or more words of the source prompt, for example 'cat' or 'cat, red ball:0.5'"
        )
    return phrases


def _parse_phrase(text: str) -> Phrase:
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1].strip()
    phrase, colon, weight = text.rpartition(":")
    if not colon:
        return Phrase(text)
    try:
        value = float(weight)
    except ValueError:
        raise ValueError(
            f"words: '{weight.strip()}' in '{text}' is not a number; write word:weight, for example cat:0.5"
        ) from None
    if not 0 < value <= 10:
        raise ValueError(
            f"words: the weight {value:g} of '{phrase.strip()}' must be above 0 and at most 10 (1 = neutral)"
        )
    if not phrase.strip():
        raise ValueError(f"words: '{text}' has a weight but no word before the colon")
    return Phrase(phrase.strip(), value)


def words_of(tokens: Sequence[Token]) -> list[str]:
    """The prompt's words in order, each once, put together from their pieces."""
    words, current = [], ""
    for token in tokens:
        current += token.piece.removesuffix(WORD_END)
        if token.piece.endswith(WORD_END):
            words.append(current)
            current = ""
    return list(dict.fromkeys(words + ([current] if current else [])))


def spans(tokens: Sequence[Token], phrase: Sequence[int]) -> list[tuple[int, ...]]:
    """The positions of every occurrence of the phrase's token ids that starts at the start of a word."""
    ids, wanted, found = [t.id for t in tokens], list(phrase), []
    for i in range(len(ids) - len(wanted) + 1):
        starts_word = i == 0 or tokens[i - 1].piece.endswith(WORD_END)
        if wanted and starts_word and ids[i : i + len(wanted)] == wanted:
            found.append(tuple(t.position for t in tokens[i : i + len(wanted)]))
    return found
