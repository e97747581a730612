import random
from itertools import combinations, product

import pytest

from eta_core.methods.alignment import (
    UNKNOWN,
    Phrase,
    Prompt,
    Token,
    align,
    align_refined,
    align_replaced,
    changed_words,
    pair,
    parse_factors,
    parse_phrases,
    parse_spans,
    spans,
)

# "a corgi, a red ball and a corgi": corgi is two pieces
PIECES = [
    ("a</w>", 1),
    ("cor", 2),
    ("gi</w>", 3),
    (",</w>", 4),
    ("a</w>", 1),
    ("red</w>", 5),
    ("ball</w>", 6),
    ("and</w>", 7),
    ("a</w>", 1),
    ("cor", 2),
    ("gi</w>", 3),
]
TOKENS = tuple(Token(i + 1, id, piece) for i, (piece, id) in enumerate(PIECES))


def phrase(*ids: int) -> list[Token]:
    pieces = {id: piece for piece, id in PIECES}
    return [Token(i, id, pieces[id]) for i, id in enumerate(ids)]


def test_a_word_is_not_the_beginning_of_a_longer_one():
    """Where the end of a word is not in its id."""
    catfish = [Token(0, 1, "cat"), Token(1, 2, "fish</w>"), Token(2, 1, "cat</w>")]
    assert spans(catfish, [Token(0, 1, "cat</w>")]) == [(2,)]


def test_a_word_is_found_however_it_was_cut_up():
    assert spans(
        [Token(0, 1, "red</w>"), Token(1, 2, "hair"), Token(2, 3, "ed</w>")], [Token(0, 9, "haired</w>")]
    ) == [(1, 2)]


def test_what_the_vocabulary_has_no_token_for_is_nowhere():
    unknown = Token(0, UNKNOWN, "</w>")
    assert spans([unknown], [unknown]) == []


def test_a_row_of_an_embedding_is_told_by_its_id():
    rows = [Token(0, -5, "</w>"), Token(1, -6, "</w>")]
    assert spans(rows, [Token(0, -6, "</w>")]) == [(1,)]


def test_a_word_of_two_tokens_is_found_at_every_place():
    assert spans(TOKENS, phrase(2, 3)) == [(2, 3), (10, 11)]


def test_a_phrase_is_found_as_a_whole():
    assert spans(TOKENS, phrase(5, 6)) == [(6, 7)]
    assert spans(TOKENS, phrase(6, 5)) == []


def test_the_end_of_a_word_is_not_a_word():
    assert spans(TOKENS, phrase(3)) == []


def test_a_phrase_of_no_tokens_is_nowhere():
    assert spans(TOKENS, []) == []


def test_words_are_put_together_from_their_pieces():
    assert Prompt(tuple(TOKENS), 77).vocabulary == ["a", "corgi", ",", "red", "ball", "and"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("embedding:foo", (Phrase("embedding:foo"),)),
        ("embedding:foo:0.5, ((cat:2))", (Phrase("embedding:foo", 0.5), Phrase("cat", 2.0))),
        ("cat", (Phrase("cat"),)),
        (" cat ,red ball:0.5\ngrass", (Phrase("cat"), Phrase("red ball", 0.5), Phrase("grass"))),
        ("(cat:1.2)", (Phrase("cat", 1.2),)),
        ("(cat)", (Phrase("cat"),)),
    ],
)
def test_words_are_read_as_a_user_types_them(text, expected):
    assert parse_phrases(text) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "words is empty"),
        (" , ,", "words is empty"),
        ("cat:much", "'much'"),
        ("cat:-1", "-1 of 'cat'"),
        ("cat:nan", "nan"),
        (":2", "no word"),
    ],
)
def test_what_cannot_be_read_is_named(text, named):
    with pytest.raises(ValueError, match=named):
        parse_phrases(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("dog, red ball:0.5\nsky:0", (Phrase("dog", 2.0), Phrase("red ball", 0.5), Phrase("sky", 0.0))),
        ("(dog:3)", (Phrase("dog", 3.0),)),
    ],
)
def test_a_word_without_a_factor_gets_the_default(text, expected):
    assert parse_factors("equalizer_words", text, 2.0) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("dog:-1", "factor -1 of 'dog' must lie in 0..10"),
        ("dog:10.5", "factor 10.5 of 'dog' must lie in 0..10"),
        ("dog:nan", "factor nan of 'dog'"),
        ("dog:big", "'big' in 'dog:big' is not a number; write "),
        (":2", "':2' has a weight but no word"),
    ],
)
def test_a_factor_that_cannot_be_is_named(text, named):
    with pytest.raises(ValueError, match=named):
        parse_factors("equalizer_words", text, 1.0)


def test_steps_of_a_word_run_from_start_to_end_or_up_to_one_number():
    assert parse_spans("word_steps", "") == ()
    assert parse_spans("word_steps", "dog:0.1-0.2, red ball : 0.8") == (
        ("dog", 0.1, 0.2),
        ("red ball", 0.0, 0.8),
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("dog", "'dog' has no steps; write .* for example dog:0-0.2"),
        ("dog:-0.2", "'' in 'dog:-0.2' is not a number"),
        ("dog:0.1-0.2-0.3", "'0.1-0.2-0.3' of 'dog' is not start-end"),
        ("dog:x-0.2", "word_steps: 'x' in 'dog:x-0.2' is not a number; write for example dog:0-0.2"),
        ("dog:0.2-y", "'y' in 'dog:0.2-y' is not a number"),
    ],
)
def test_steps_that_cannot_be_read_are_named(text, named):
    with pytest.raises(ValueError, match=named):
        parse_spans("word_steps", text)


# --- alignment ------------------------------------------------------------------------------------


def prompt(text: str, rows: int = 8, chunk: int = 8) -> Prompt:
    """A prompt as encoded: words between blanks, pieces of a word between bars; each chunk with a start and
    an end.
    """
    pieces = [piece for word in text.split() for piece in f"{word}</w>".split("|")]
    places = [i // (chunk - 2) * chunk + 1 + i % (chunk - 2) for i in range(len(pieces))]
    tokens = (Token(at, int.from_bytes(piece.encode()), piece) for at, piece in zip(places, pieces))
    return Prompt(tuple(tokens), rows, chunk)


def partners(shares) -> list:
    """The source row of each target row that stands for one whole source token, else its shares."""
    return [part[0][0] if len(part) == 1 and part[0][1] == 1.0 else part for part in shares]


def brute_force(x, y) -> list[int | None]:
    """Of all longest common subsequences the one whose last pair, then last but one, ... stands earliest."""
    for length in range(min(len(x), len(y)), 0, -1):
        found = [
            (b, a)
            for a, b in product(combinations(range(len(x)), length), combinations(range(len(y)), length))
            if all(x[i] == y[j] for i, j in zip(a, b))
        ]
        if found:
            b, a = min(found, key=lambda ba: [place for pair in reversed(list(zip(*ba))) for place in pair])
            return [a[b.index(j)] if j in b else None for j in range(len(y))]
    return [None] * len(y)


def test_partners_are_those_of_every_longest_common_subsequence_tried():
    words = [w for length in range(5) for w in product("ab", repeat=length)] + [
        "abcab",
        "cabca",
        "bcbac",
        "aacbb",
    ]
    for x, y in product(words, repeat=2):
        assert pair(x, y) == brute_force(x, y), (x, y)


def test_an_item_that_repeats_takes_its_early_partner():
    assert pair("aa", "a") == [0]
    assert pair("a", "aa") == [0, None]
    assert pair("abab", "ab") == [0, 1]


def test_words_of_a_prompt_are_their_tokens():
    assert [[t.position for t in word] for word in prompt("a cor|gi sits").words] == [[1], [2, 3], [4]]


def test_refined_keeps_equal_words_and_leaves_new_ones_their_own():
    aligned = align_refined(prompt("a cat"), prompt("a big cat"))
    #                                    start a  big cat end padding
    assert partners(aligned.shares) == [0, 1, (), 2, 3, 5, 6, 7]
    assert (aligned.removed, aligned.added) == ((), (2,))


def test_refined_meets_end_with_end_where_the_target_is_shorter():
    aligned = align_refined(prompt("a big cat"), prompt("a dog"))
    #                                   start a  dog end padding
    assert partners(aligned.shares) == [0, 1, (), 4, 4, 5, 6, 7]
    assert (aligned.removed, aligned.added) == ((2, 3), (2,))


def test_refined_gives_the_same_prompt_its_own_rows():
    aligned = align_refined(prompt("a cor|gi"), prompt("a cor|gi"))
    assert partners(aligned.shares) == list(range(8))
    assert (aligned.removed, aligned.added) == ((), ())


def test_replaced_shares_a_word_out_among_the_tokens_that_take_its_place():
    aligned = align_replaced(prompt("a cat sits"), prompt("a cor|gi sits"))
    half = ((2, 0.5),)
    assert partners(aligned.shares) == [0, 1, half, half, 3, 4, 6, 7]
    assert (aligned.removed, aligned.added) == ((2,), (2, 3))


def test_replaced_gives_one_token_all_of_a_longer_word():
    aligned = align_replaced(prompt("a cor|gi sits"), prompt("a cat sits"))
    assert partners(aligned.shares) == [0, 1, ((2, 1.0), (3, 1.0)), 4, 5, 5, 6, 7]
    assert (aligned.removed, aligned.added) == ((2, 3), (2,))


def test_replaced_pairs_the_tokens_of_words_of_equal_length():
    aligned = align_replaced(prompt("cor|gi sits"), prompt("poo|dle sits"))
    assert partners(aligned.shares) == list(range(8))
    assert (aligned.removed, aligned.added) == ((1, 2), (1, 2))


def test_prompts_of_other_length_cannot_be_replaced_and_both_are_counted():
    with pytest.raises(ValueError, match="source prompt has 2 words, the target 3; use mode refine"):
        align_replaced(prompt("a cor|gi"), prompt("a big cat"))


def test_changed_words_join_where_they_are_neighbours():
    words = prompt("a big cor|gi on red grass", rows=16)
    assert changed_words(words, (2, 4, 6)) == ("big corgi", "red")
    assert changed_words(words, (2, 5, 6, 7, 9)) == ("big", "on red grass")
    assert changed_words(words, ()) == ()


def test_punctuation_is_no_word_and_parts_phrases():
    words = prompt("a red , cor|gi : 3 ( big )", rows=16)
    assert changed_words(words, range(16)) == ("a red", "corgi", "3", "big")


@pytest.mark.parametrize(
    ("pieces", "text"), [("caf|Ã©", "café"), ("b|Ã|¤r", "bär"), ("ðŁ|Ĳ±", "\N{CAT FACE}")]
)
def test_words_beyond_ascii_are_told_as_they_were_typed(pieces, text):
    assert prompt(pieces).vocabulary == [text]
    assert changed_words(prompt(f"a {pieces}"), (2,)) == (text,)


def test_a_phrase_is_told_at_every_place_where_it_stands():
    words = prompt("a cor|gi and a cor|gi", rows=16, chunk=16)
    assert words.rows_of("corgi") == (2, 3, 6, 7)
    assert words.rows_of("and a") == (4, 5)
    assert words.rows_of("cat") == ()


@pytest.mark.parametrize(
    ("source", "target", "replaces"),
    [
        ("a cat on grass", "a dog on grass", True),
        ("a cat on grass", "a cor|gi on grass", True),
        ("a cor|gi on grass", "a cor|al on grass", True),
        ("a cat on the cat", "a dog on the cat", True),
        ("a big red cat on grass", "a red fluffy cat on grass", False),
        ("a photo of a cat on the grass", "a photo of cat on the green grass", False),
        ("a cat and a dog", "a dog and a cat", True),
        ("a cat", "a big cat", False),
    ],
)
def test_words_are_replaced_only_where_they_were_swapped_in_their_places(source, target, replaces):
    pair = prompt(source, rows=16), prompt(target, rows=16)
    assert align(*pair) == (align_replaced if replaces else align_refined)(*pair)


def test_every_chunk_of_a_long_prompt_has_a_start_and_an_end_of_its_own():
    long = prompt(" ".join(f"w{i}" for i in range(77)), rows=154, chunk=77)
    places = [long.special(row) for row in range(154)]
    assert places[:77] == [-1, *[None] * 75, 0]
    assert places[77:] == [-1, None, None, *range(74)]
    short = prompt("a cat", rows=154, chunk=77)
    assert [short.special(row) for row in (0, 1, 2, 3, 4, 76, 77, 78, 79)] == [
        -1,
        None,
        None,
        0,
        1,
        73,
        -1,
        0,
        1,
    ]


def test_a_word_that_moves_to_the_next_chunk_keeps_its_partner():
    aligned = align_refined(prompt("a b c d e f", rows=16), prompt("a new b c d e f", rows=16))
    #                                    start a  new b  c  d  e end start f  end padding
    assert partners(aligned.shares) == [0, 1, (), 2, 3, 4, 5, 7, 8, 6, 9, 11, 12, 13, 14, 15]


def test_a_chunk_the_source_does_not_have_is_new():
    aligned = align_refined(prompt("a b"), prompt("a b c d e f g", rows=16))
    assert partners(aligned.shares) == [0, 1, 2, (), (), (), (), 3, *[()] * 8]
    assert aligned.added == (3, 4, 5, 6, 9)


def templated(text: str, pad: int = 0) -> Prompt:
    """A prompt as encoded in one piece, with a template of two rows before it and three behind."""
    words = tuple(
        Token(i + 2, int.from_bytes(word.encode()), f"{word}</w>") for i, word in enumerate(text.split())
    )
    return Prompt(words, len(words) + 5 + pad, 0)


def test_a_template_behind_the_words_keeps_its_partners_wherever_it_stands():
    shares = align_refined(templated("a b c d e f g h i j"), templated("a b new c")).shares
    assert partners(shares) == [0, 1, 2, 3, (), 4, 12, 13, 14]
    shares = align_refined(templated("a b"), templated("a big b", pad=2)).shares
    assert partners(shares) == [0, 1, 2, (), 3, 4, 5, 6, (), ()]
    assert partners(align_refined(templated(""), templated("a b")).shares) == [0, 1, (), (), 2, 3, 4]
    assert partners(align_refined(templated("a b"), templated("")).shares) == [0, 1, 4, 5, 6]


# --- long texts -----------------------------------------------------------------------------------


def table(x, y):
    """Prompt-to-Prompt's own table of scores, for `pair`."""
    score = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i, a in enumerate(x, 1):
        for j, b in enumerate(y, 1):
            score[i][j] = max(score[i][j - 1], score[i - 1][j], score[i - 1][j - 1] + (1 if a == b else -1))
    partners, i, j = [None] * len(y), len(x), len(y)
    while i and j:
        if score[i][j] == score[i][j - 1]:
            j -= 1
        elif score[i][j] == score[i - 1][j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            partners[j] = i
    return partners


def test_partners_are_those_of_the_whole_table():
    draw = random.Random(0)
    for _ in range(400):
        x, y = (
            [draw.randrange(draw.choice((2, 5, 20))) for _ in range(draw.randrange(30))] for _ in range(2)
        )
        assert pair(x, y) == table(x, y)


class Counted(str):
    """A text that counts how often it is compared."""

    compared = 0

    def __eq__(self, other):
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


@pytest.mark.parametrize("words", [("b", "a"), "abcdefghijklmnopqrstuvwxyz"])
def test_twice_the_words_take_twice_the_comparisons(words):
    def comparisons(count: int) -> int:
        Counted.compared = 0
        source, target = (
            [Counted(other + words[i % len(words)]) for i in range(count)] for other in ("", "x")
        )
        texts = [text + "</w>" for text in (*source, *target)]
        tokens = [Token(i + 1, i, Counted(text)) for i, text in enumerate(texts)]
        prompt = Prompt(tuple(tokens), len(tokens) + 2, len(tokens) + 2)
        pair(source, target + source)
        for phrase in dict.fromkeys(changed_words(prompt, range(0, len(tokens), 3))):
            prompt.rows_of(phrase)
        for row in range(prompt.rows):
            prompt.special(row)
        return Counted.compared

    assert comparisons(2000) <= 2.5 * comparisons(1000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("猫、赤い ボール：0.5，犬", [("猫", 1.0), ("赤い ボール", 0.5), ("犬", 1.0)]),
        ("16:9", [("16:9", 1.0)]),
        ("cat, a 16:9:0.5", [("cat", 1.0), ("a 16:9", 0.5)]),
        ("4:3, cat:2", [("4:3", 1.0), ("cat", 2.0)]),
    ],
)
def test_words_as_they_are_written_elsewhere(text, expected):
    assert parse_phrases(text) == tuple(Phrase(*each) for each in expected)
