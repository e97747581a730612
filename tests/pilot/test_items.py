import json

import pytest

from pilot import items

GOOD = {"picture": "кот.png", "source_prompt": "a cat on the grass", "target_prompt": "a dog on the grass"}


def listed(tmp_path, name: str, text: str) -> list[items.Item]:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return items.load(tmp_path / name)


def as_json(tmp_path, *rows) -> list[items.Item]:
    return listed(tmp_path, "items.json", json.dumps(rows))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_of_every_column(tmp_path, delimiter):
    head = ["picture", "source_prompt", "target_prompt", "words", "target_words", "mask", "category", "seed"]
    row = ["пёс и кот/кот.png", "a cat", "a dog", "cat", "dog", "mask.png", "animals", "7"]
    (item,) = listed(
        tmp_path, "items.csv", "\ufeff" + "\n".join(delimiter.join(line) for line in (head, row)) + "\n"
    )
    assert item == items.Item(
        1,
        "пёс и кот/кот.png",
        tmp_path,
        "пёс и кот/кот.png",
        "a cat",
        "a dog",
        "cat",
        "dog",
        "mask.png",
        "animals",
        7,
    )


def test_the_three_formats_say_the_same(tmp_path):
    rows = [GOOD, GOOD | {"words": "cat, grass", "seed": 3}]
    head = ["picture", "source_prompt", "target_prompt", "words", "seed"]
    csv = "\n".join(
        ",".join(f'"{row.get(name, "")}"' for name in head) for row in ({n: n for n in head}, *rows)
    )
    found = [
        as_json(tmp_path, *rows),
        listed(tmp_path, "items.jsonl", "\n".join(json.dumps(row) for row in rows)),
        listed(tmp_path, "items.csv", csv),
    ]
    assert found[0] == found[1] == found[2]
    assert [item.error for item in found[0]] == ["", ""]


def test_a_folder_is_its_one_list(tmp_path):
    as_json(tmp_path, GOOD)
    assert len(items.load(tmp_path)) == 1
    (tmp_path / "items.csv").write_text("x")
    with pytest.raises(items.ItemsError, match="items.csv and items.json"):
        items.load(tmp_path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"picture": "a.png", "promt": "a cat"},
            "no column source_prompt, target_prompt; the columns are picture, promt",
        ),
        (GOOD | {"source_prompt": " "}, "source_prompt is empty"),
        (GOOD | {"target_prompt": 5}, "target_prompt is 5: it must be text"),
        (GOOD | {"seed": "x"}, "seed is 'x'"),
        (GOOD | {"seed": -1}, "whole number from 0"),
        (GOOD | {"seed": 1.5}, "seed is 1.5"),
        (GOOD | {"words": "\ud800"}, "half a character"),
        (["a.png"], "must be an object"),
        ("a.png", 'the row is "a.png": it must be an object'),
    ],
)
def test_a_wrong_row_is_an_item_with_its_error_and_the_others_stay(tmp_path, row, said):
    before, wrong, after = as_json(tmp_path, GOOD, row, GOOD)
    assert said in wrong.error
    assert not before.error and not after.error and after.number == 3


def test_wrong_lines_of_a_csv_are_items_with_errors(tmp_path):
    text = (
        'picture,source_prompt,target_prompt\na.png,a cat\na.png,"a "cat",a dog\na.png,a cat,a '
        "dog,x\na.png,a cat,a dog\n"
    )
    found = listed(tmp_path, "items.csv", text)
    assert [item.error.partition(":")[0] for item in found] == [
        "line 2 has 2 cells, the header 3",
        "line 3",
        "line 4 has 4 cells, the header 3",
        "",
    ]


def test_a_quote_that_is_never_closed_is_an_error_of_its_item(tmp_path):
    good, open_quote = listed(
        tmp_path, "items.csv", 'picture,source_prompt,target_prompt\na.png,a cat,a dog\nb.png,"a cat,a dog\n'
    )
    assert not good.error and "line 3" in open_quote.error


def test_a_broken_line_of_jsonl_is_an_error_of_its_item(tmp_path):
    good, broken = listed(tmp_path, "items.jsonl", json.dumps(GOOD) + '\n{"picture": "b.png", "sour')
    assert not good.error and broken.error.startswith("no JSON") and broken.name == "row 2"


@pytest.mark.parametrize("deep", ['{"seed": ' + "1" * 5000 + "}", "[" * 100_000])
def test_json_that_python_will_not_read_is_an_error_of_its_item(tmp_path, deep):
    good, broken = listed(tmp_path, "items.jsonl", json.dumps(GOOD) + "\n" + deep)
    assert not good.error and broken.error


def test_only_a_new_line_ends_a_line_of_a_csv(tmp_path):
    prompt = "a cat\u2028on\x85the\x0bgrass"
    (item,) = listed(tmp_path, "items.csv", f"picture,source_prompt,target_prompt\na.png,{prompt},a dog\n")
    assert (item.source_prompt, item.error) == (prompt, "")


def test_what_a_spreadsheet_leaves_beside_and_below_its_cells_is_nothing(tmp_path):
    (item,) = listed(
        tmp_path, "items.csv", "picture,source_prompt,target_prompt,,\na.png,a cat,a dog,,\n,,,,\n"
    )
    assert (item.error, item.unread) == ("", ())


def test_a_column_that_means_nothing_is_named(tmp_path):
    (item,) = as_json(tmp_path, GOOD | {"word": "cat"})
    assert item.unread == ("word",)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("items.csv", b"picture,source_prompt\n", "holds no item"),
        ("items.csv", b"", "holds no item"),
        ("items.csv", b"picture,picture\na,b", "picture stands there twice"),
        ("items.csv", "picture\nk\u00f6ter.png".encode("latin-1"), "not UTF-8"),
        ("items.json", b"[{]", "no JSON"),
        ("items.json", b'{"a": 1}', "must be a list of items"),
        ("items.txt", b"", "must be .csv"),
        ("", b"", "needs one of mapping_file.json"),
    ],
)
def test_a_list_that_cannot_be_read_says_why(tmp_path, name, content, said):
    if name:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(items.ItemsError, match=said):
        items.load(tmp_path / name)


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("a cat on the grass", "a dog on the grass", "cat"),
        ("a red ball on the wood", "a blue heart on the wood", "red ball"),
        ("a cat, on the grass.", "a dog on the sand.", "cat, grass"),
        ("a cat", "a cat with a hat", ""),
        ("a cat", "a cat", ""),
    ],
)
def test_words_that_are_not_named_are_those_that_go(source, target, words):
    assert items.gone(source, target) == words


def test_words_that_are_named_stay(tmp_path):
    named, found = as_json(tmp_path, GOOD | {"words": ["grass", "cat"]}, GOOD)
    assert (named.words, named.target_words) == ("grass, cat", "dog")
    assert (found.words, found.target_words) == ("cat", "dog")


def test_a_key_depends_on_what_an_item_says_and_not_on_its_place(tmp_path):
    other = GOOD | {"seed": 5}
    first = as_json(tmp_path, GOOD, other)
    grown = as_json(tmp_path, other | {"seed": 6}, GOOD, other)
    assert [item.key for item in grown[1:]] == [item.key for item in first]
    assert len({item.key for item in grown}) == 3


def test_equal_rows_are_items_of_their_own(tmp_path):
    found = as_json(tmp_path, GOOD, GOOD, GOOD, {}, {})
    assert len({item.key for item in found}) == 5


@pytest.mark.parametrize(("eta", "said"), [("", None), (None, None), (0, 0.0), ("0.25", 0.25), (1, 1.0)])
def test_an_eta_of_its_own_is_part_of_an_item(tmp_path, eta, said):
    row = {"picture": "a.png", "source_prompt": "a cat", "target_prompt": "a dog"}
    (tmp_path / "items.json").write_text(json.dumps([row, row | {"eta": eta}]))
    plain, own = items.load(tmp_path)
    assert own.eta == said and (own.key == plain.key) is False
    assert (own.repeat == 1) is (said is None)


@pytest.mark.parametrize("eta", ["a", -0.1, 1.5, True, [1], "nan", float("nan")])
def test_what_is_no_eta_is_told(tmp_path, eta):
    row = {"picture": "a.png", "source_prompt": "a cat", "target_prompt": "a dog", "eta": eta}
    (tmp_path / "items.json").write_text(json.dumps([row]))
    (item,) = items.load(tmp_path)
    assert "it must be a number from 0 to 1" in item.error
