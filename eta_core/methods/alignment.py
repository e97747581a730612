"""Words of a prompt <-> positions of its tokens, on token ids.

Pieces are those of a byte-level byte-pair encoding (Radford et al. 2019) as CLIP has it: `</w>` closes a
word.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import punctuation

WORD_END = "</w>"
EMBEDDING = "embedding:"  # how a prompt names a textual inversion

_VISIBLE = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_HIDDEN = [byte for byte in range(256) if byte not in _VISIBLE]
BYTES = {chr(byte): byte for byte in _VISIBLE} | {chr(256 + i): byte for i, byte in enumerate(_HIDDEN)}
CHARACTERS = {byte: character for character, byte in BYTES.items()}

UNKNOWN = -(2**63)


@dataclass(frozen=True)
class Token:
    """One token of an encoded prompt: its position (row of the conditioning), id and piece of text.

    A row of a textual-inversion embedding has a negative id, told by its values, and no text. UNKNOWN is the
    id of what the vocabulary has no token for: one such word cannot be told from another.
    """

    position: int
    id: int
    piece: str


@dataclass(frozen=True)
class Phrase:
    """A word or phrase the user asked for, and the weight of its region."""

    text: str
    weight: float = 1.0


def parse_phrases(text: str) -> tuple[Phrase, ...]:
    """Phrases of text such as "cat, red ball:0.5", with commas or line ends between them.

    A weight is written `:weight` or `(phrase:weight)`. Raises ValueError for empty text or a weight that is
    not a number above 0.
    """
    phrases = _weighted("words", text, 1.0, "cat:0.5")
    if not phrases:
        raise ValueError(
            "words is empty: type one or more words of the prompt, for example 'cat' or 'cat, red ball:0.5'"
        )
    for phrase in phrases:
        if not 0 < phrase.weight <= 10:
            raise ValueError(
                f"words: the weight {phrase.weight:g} of '{phrase.text}' must be above 0 and at most 10 (1 = "
                "neutral)"
            )
    return phrases


def parse_factors(field: str, text: str, default: float) -> tuple[Phrase, ...]:
    """Phrases with a factor each, "dog, red:0.5"; `default` where none is given. ValueError outside 0..10."""
    phrases = _weighted(field, text, default, "dog:2")
    for phrase in phrases:
        if not 0 <= phrase.weight <= 10:
            raise ValueError(
                f"{field}: the factor {phrase.weight:g} of '{phrase.text}' must lie in 0..10 (1 = neutral)"
            )
    return phrases


def parse_spans(field: str, text: str) -> tuple[tuple[str, float, float], ...]:
    """(phrase, start, end) from text such as "dog:0-0.2, sitting:0.8" (one number is the end)."""
    found = []
    for phrase, span in _pairs(field, text):
        example = f"{phrase}:0-0.2"
        if span is None:
            raise ValueError(
                f"{field}: '{phrase}' has no steps; write word:end or word:start-end, for example {example}"
            )
        numbers = span.split("-") if "-" in span else ["0", span]
        if len(numbers) != 2:
            raise ValueError(f"{field}: '{span}' of '{phrase}' is not start-end; write for example {example}")
        found.append((phrase, *(_number(field, number, f"{phrase}:{span}", example) for number in numbers)))
    return tuple(found)


def _weighted(field: str, text: str, default: float, example: str) -> tuple[Phrase, ...]:
    return tuple(
        Phrase(phrase, default if weight is None else _number(field, weight, f"{phrase}:{weight}", example))
        for phrase, weight in _pairs(field, text)
    )


SEPARATORS = re.compile("[,\n\u3001\uff0c]")  # also the Japanese comma and the full-width one
COLON = "\uff1a"  # full-width
RATIO = re.compile(r"\d+\s*:\s*\d+")  # as in "16:9", which is one word


def _pairs(field: str, text: str) -> list[tuple[str, str | None]]:
    """(phrase, what stands after its last colon or None) of each part of a list of words."""
    found = []
    for part in (p.strip() for p in SEPARATORS.split(text.replace(COLON, ":"))):
        while part.startswith("(") and part.endswith(")"):
            part = part[1:-1].strip()
        name = EMBEDDING if part.startswith(EMBEDDING) else ""
        phrase, colon, value = part.removeprefix(name).rpartition(":")
        if RATIO.fullmatch(part):
            phrase, colon, value = "", "", ""
        if colon and not phrase.strip():
            raise ValueError(f"{field}: '{part}' has a weight but no word before the colon")
        if part:
            found.append((name + phrase.strip(), value.strip()) if colon else (part, None))
    return found


def _number(field: str, text: str, part: str, example: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"{field}: '{text}' in '{part}' is not a number; write for example {example}"
        ) from None


def text_of(word: Sequence[Token]) -> str:
    """A word's text from its pieces, whose characters stand for bytes of UTF-8."""
    pieces = "".join(token.piece.removesuffix(WORD_END) for token in word)
    return bytes(BYTES[c] for c in pieces if c in BYTES).decode("utf-8", "replace")


def piece_of(text: str) -> str:
    """Text as a piece: the inverse of `text_of`."""
    return "".join(CHARACTERS[byte] for byte in text.encode("utf-8"))


def words_of(tokens: Sequence[Token]) -> tuple[tuple[Token, ...], ...]:
    """The tokens of each word."""
    found, current = [], []
    for token in tokens:
        current.append(token)
        if token.piece.endswith(WORD_END):
            found.append(tuple(current))
            current = []
    return tuple(found + ([tuple(current)] if current else []))


def _key(word: Sequence[Token]) -> tuple | None:
    """What tells a word from others, however it is written and cut into tokens; None where nothing does."""
    if any(token.id == UNKNOWN for token in word):
        return None
    return (text_of(word).casefold(), *(token.id for token in word if token.id < 0))


@dataclass(frozen=True)
class Prompt:
    """An encoded prompt: its tokens and its conditioning's rows, in chunks of `chunk` (77 for CLIP).

    chunk 0: the words stand together, with the encoder's template and padding before and behind them. text:
    what was encoded.
    """

    tokens: tuple[Token, ...]
    rows: int
    chunk: int = 77
    text: str = ""

    @cached_property
    def words(self) -> tuple[tuple[Token, ...], ...]:
        """The tokens of each word."""
        return words_of(self.tokens)

    @cached_property
    def texts(self) -> list[str]:
        """The text of each word."""
        return [text_of(word) for word in self.words]

    @property
    def vocabulary(self) -> list[str]:
        """The words as text, in order, each once."""
        return list(dict.fromkeys(filter(None, self.texts)))

    def rows_of(self, phrase: str) -> tuple[int, ...]:
        """The rows of every occurrence of a phrase that `changed_words` made."""
        if phrase not in self._rows:
            wanted = phrase.split(" ")
            found = _occurrences(wanted, self.texts, self._texts_at)
            words = (word for i in found for word in self.words[i : i + len(wanted)])
            self._rows[phrase] = tuple(token.position for word in words for token in word)
        return self._rows[phrase]

    @cached_property
    def _rows(self) -> dict[str, tuple[int, ...]]:
        """What `rows_of` has found."""
        return {}

    def spans(self, phrase: Sequence[Token]) -> list[tuple[int, ...]]:
        """The positions of every occurrence of the phrase's words, whole words alone."""
        wanted = [_key(word) for word in words_of(phrase)]
        if not wanted or None in wanted:
            return []
        found = _occurrences(wanted, self._keys, self._keys_at)
        return [tuple(t.position for word in self.words[i : i + len(wanted)] for t in word) for i in found]

    @cached_property
    def _keys(self) -> list[tuple | None]:
        return [_key(word) for word in self.words]

    @cached_property
    def _keys_at(self) -> Mapping[tuple | None, list[int]]:
        return _places(self._keys)

    @cached_property
    def _texts_at(self) -> Mapping[str, list[int]]:
        return _places(self.texts)

    @cached_property
    def _last_words(self) -> Mapping[int, int]:
        """The last row with a word of each chunk, by the chunk's start token's row."""
        last: dict[int, int] = {}
        for token in self.tokens:
            start = token.position - token.position % self.chunk
            if token.position > start:
                last[start] = max(last.get(start, start), token.position)
        return last

    def special(self, row: int) -> int | None:
        """The row's place after its chunk's last word (0 = the end token), -1 for a start token, None for a
        word.
        """
        start = row - row % self.chunk
        if row == start:
            return -1
        last = self._last_words.get(start, start)
        return None if row <= last else row - last - 1


def spans(tokens: Sequence[Token], phrase: Sequence[Token]) -> list[tuple[int, ...]]:
    """`Prompt.spans` of tokens whose rows do not matter."""
    return Prompt(tuple(tokens), 0).spans(phrase)


@dataclass(frozen=True)
class Alignment:
    """Which source tokens each target token stands for.

    shares: for each row of the target its (source row, share) pairs; empty where the target's token is new.
    removed, added: the rows of words that stand in one prompt only.
    """

    shares: tuple[tuple[tuple[int, float], ...], ...]
    removed: tuple[int, ...]
    added: tuple[int, ...]


def _places(values: Sequence) -> Mapping:
    """Where each value stands."""
    found = defaultdict(list)
    for i, value in enumerate(values):
        found[value].append(i)
    return found


def _occurrences(wanted: Sequence, values: Sequence, places: Mapping) -> list[int]:
    """Where `wanted` begins in `values`: only where its rarest value stands is looked at."""
    rarest = min(range(len(wanted)), key=lambda i: len(places.get(wanted[i], ())))
    starts = (place - rarest for place in places.get(wanted[rarest], ()))
    return [i for i in starts if i >= 0 and list(values[i : i + len(wanted)]) == list(wanted)]


def pair(x: Sequence, y: Sequence) -> list[int | None]:
    """For each item of y the index of its partner in x, or None: the longest common subsequence.

    Needleman-Wunsch with match 1, mismatch -1 and gap 0, early partners first (Prompt-to-Prompt's alignment).
    A row of its scores is one whole number whose bit j is 0 where the score rises at item j of y (Hyyro
    2004), so that the time grows with the texts' length and hardly with its square.
    """
    equal, every = defaultdict(int), (1 << len(y)) - 1
    for j, item in enumerate(y):
        equal[item] |= 1 << j
    rows = [every]
    for item in x:
        same = rows[-1] & equal.get(item, 0)
        rows.append((rows[-1] + same | rows[-1] - same) & every)
    partners: list[int | None] = [None] * len(y)
    i, j = len(x), len(y)
    while i and j:
        if rows[i] >> (j - 1) & 1:
            j -= 1
        elif not rows[i - 1] >> (j - 1) & 1:
            i -= 1
        else:
            i, j = i - 1, j - 1
            partners[j] = i
    return partners


def align_refined(source: Prompt, target: Prompt) -> Alignment:
    """Prompt-to-Prompt's refinement: equal tokens in equal order belong together; the target's others are
    new.
    """
    partners = pair([t.id for t in source.tokens], [t.id for t in target.tokens])
    found = {
        t.position: ((source.tokens[i].position, 1.0),)
        for t, i in zip(target.tokens, partners)
        if i is not None
    }
    kept = set(filter(lambda i: i is not None, partners))
    return Alignment(
        _with_special(found, source, target),
        tuple(t.position for i, t in enumerate(source.tokens) if i not in kept),
        tuple(t.position for t, i in zip(target.tokens, partners) if i is None),
    )


def align_replaced(source: Prompt, target: Prompt) -> Alignment:
    """Word n of the target takes the place of word n of the source (Prompt-to-Prompt, replacement).

    A word of other length shares its tokens' attention out evenly. Raises ValueError for another number of
    words.
    """
    if len(source.words) != len(target.words):
        raise ValueError(
            f"mode replace needs prompts of equal length: the source prompt has {len(source.words)} words, "
            f"the target {len(target.words)}; "
            "use mode refine"
        )
    found, removed, added = {}, [], []
    for old, new in zip(source.words, target.words):
        if [t.id for t in old] != [t.id for t in new]:
            removed += [t.position for t in old]
            added += [t.position for t in new]
        for k, token in enumerate(new):
            one_to_one = len(old) == len(new)
            shares = (
                ((old[k].position, 1.0),) if one_to_one else tuple((t.position, 1 / len(new)) for t in old)
            )
            found[token.position] = shares
    return Alignment(_with_special(found, source, target), tuple(removed), tuple(added))


def _with_special(found: dict, source: Prompt, target: Prompt) -> tuple:
    """The shares of every row: start to start, end to end, padding to the same row (Prompt-to-Prompt)."""
    if not target.chunk:
        return _with_template(found, source, target)
    ends = {row - row % source.chunk: row for row in range(source.rows) if source.special(row) == 0}

    def shares(row: int) -> tuple:
        place = target.special(row)
        if place is None:
            return found.get(row, ())
        partner = ends.get(row - row % target.chunk) if place == 0 else row
        return ((partner, 1.0),) if partner is not None and partner < source.rows else ()

    return tuple(shares(row) for row in range(target.rows))


def _with_template(found: dict, source: Prompt, target: Prompt) -> tuple:
    """The shares of every row: what stands before the words by its row, what stands behind by its place
    there.
    """
    (first, last), (start, end) = _word_rows(source, target), _word_rows(target, source)

    def shares(row: int) -> tuple:
        if start <= row < end:
            return found.get(row, ())
        partner = row if row < start else row - end + last
        return () if first <= partner < last or partner >= source.rows else ((partner, 1.0),)

    return tuple(shares(row) for row in range(target.rows))


def _word_rows(prompt: Prompt, other: Prompt) -> tuple[int, int]:
    """The row of a prompt's first word, and that behind its last; without words, where the other's begin."""
    own, others = ([token.position for token in each.tokens] for each in (prompt, other))
    return (own[0], own[-1] + 1) if own else (others[0], others[0]) if others else (0, 0)


def changed_words(prompt: Prompt, rows: Sequence[int]) -> tuple[str, ...]:
    """The words with a token among `rows`, in order. Neighbours form a phrase; punctuation parts them."""
    phrases: list[list[str]] = []
    touched, open_phrase = set(rows), False
    for word, text in zip(prompt.words, prompt.texts):
        changed = _touched(word, touched) and not set(text) <= set(punctuation)
        if changed and not open_phrase:
            phrases.append([])
        if changed:
            phrases[-1].append(text)
        open_phrase = changed
    return tuple(map(" ".join, phrases))


def align(source: Prompt, target: Prompt) -> Alignment:
    """Replaced where nothing but words in their places changed, else refined."""
    refined = align_refined(source, target)
    if len(source.words) != len(target.words):
        return refined
    replaced = align_replaced(source, target)
    return replaced if _touches(source, target, replaced) == _touches(source, target, refined) else refined


def _touches(source: Prompt, target: Prompt, aligned: Alignment) -> tuple[int, int]:
    """How many words of each prompt an alignment takes for changed."""
    gone, new = set(aligned.removed), set(aligned.added)
    return sum(_touched(word, gone) for word in source.words), sum(
        _touched(word, new) for word in target.words
    )


def _touched(word: Sequence[Token], rows: Collection[int]) -> bool:
    return any(token.position in rows for token in word)
