import pytest

from eta_core.alignment import Phrase, Token, parse_phrases, spans, words_of

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


def test_a_word_of_two_tokens_is_found_at_every_place():
    assert spans(TOKENS, [2, 3]) == [(2, 3), (10, 11)]


def test_a_phrase_is_found_as_a_whole():
    assert spans(TOKENS, [5, 6]) == [(6, 7)]
    assert spans(TOKENS, [6, 5]) == []


def test_the_end_of_a_word_is_not_a_word():
    assert spans(TOKENS, [3]) == []


def test_a_phrase_of_no_tokens_is_nowhere():
    assert spans(TOKENS, []) == []


def test_words_are_put_together_from_their_pieces():
    assert words_of(TOKENS) == ["a", "corgi", ",", "red", "ball", "and"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
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
