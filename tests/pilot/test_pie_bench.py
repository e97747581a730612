import json

import numpy as np
import pytest

from pilot import items, pie_bench, pie_table

BORDER = 4 * 512 - 4


def entry(**changes) -> dict:
    return {
        "image_path": "1_change_object/x.jpg",
        "original_prompt": "a [ cat ] sitting on a bench",
        "editing_prompt": "a [dog] sitting on a bench",
        "editing_instruction": "change the cat to a dog",
        "editing_type_id": "1",
        "blended_word": "cat dog",
        "mask": [600, 2],
    } | changes


def loaded(tmp_path, **entries) -> list[items.Item]:
    (tmp_path / "mapping_file.json").write_text(json.dumps(entries))
    return items.load(tmp_path)


def test_a_mask_by_hand():
    """600 is row 1, column 88; a run may go over the end of a row."""
    found = pie_bench.mask((600, 2, 3 * 512 - 3, 5))
    by_hand = np.zeros((512, 512), bool)
    by_hand[1, 88:90] = True
    by_hand[2, 509:512] = True
    by_hand[3, 0:2] = True
    by_hand[0] = by_hand[511] = True
    by_hand[:, 0] = by_hand[:, 511] = True
    assert (found == by_hand).all()
    assert found.sum() == BORDER + 2 + 2 + 1


def test_no_run_leaves_the_borders():
    assert pie_bench.mask(()).sum() == BORDER


def test_a_run_ends_with_the_picture():
    found = pie_bench.mask((512 * 512 - 600, 10**9))
    assert found.sum() == BORDER + 87  # row 510, columns 424 to 510: the rest of it is border


@pytest.mark.parametrize("runs", [(1,), (1, -2), (1, "2"), (1, 2.5), (True, 2)])
def test_what_is_no_run_length_is_refused(runs):
    with pytest.raises(ValueError, match="run lengths"):
        pie_bench.mask(runs)


def test_runs_of_a_mask_give_the_mask():
    inside = np.zeros((512, 512), bool)
    inside[5:9, 3:400] = inside[8:40, 500:512] = True
    runs = pie_bench.runs_of(inside)
    assert runs[:4] == [5 * 512 + 3, 397, 6 * 512 + 3, 397] and len(runs) == 2 * (4 + 32)
    inside[[0, -1]] = inside[:, [0, -1]] = True
    assert (pie_bench.mask(tuple(runs)) == inside).all()


def test_an_entry_becomes_an_item(tmp_path):
    (tmp_path / "annotation_images").mkdir()
    (item,) = loaded(tmp_path, **{"000000000007": entry()})
    assert item == items.Item(
        1,
        "000000000007",
        tmp_path / "annotation_images",
        "1_change_object/x.jpg",
        "a cat sitting on a bench",
        "a dog sitting on a bench",
        "cat",
        "dog",
        (600, 2),
        "change object",
    )


def test_brackets_go_and_leave_no_gap(tmp_path):
    (found,) = loaded(tmp_path, a=entry(editing_prompt="a [dog]'s [red]-haired friend"))
    assert found.target_prompt == "a dog's red-haired friend"


@pytest.mark.parametrize(
    ("text", "halves"),
    [("", ("", "")), (None, ("", "")), ("cat dog", ("cat", "dog")), ("a b c d", ("a b", "c d"))],
)
def test_blended_words(text, halves):
    assert pie_bench.blended(text) == halves


def test_no_word_is_guessed_where_the_benchmark_names_none(tmp_path):
    (item,) = loaded(tmp_path, a=entry(blended_word=""))
    assert (item.words, item.target_words, item.error) == ("", "", "")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"blended_word": "a b c"}, "blended_word is 'a b c'"),
        ({"original_prompt": None}, "source_prompt is empty"),
    ],
)
def test_a_wrong_entry_is_an_item_with_its_error(tmp_path, wrong, said):
    good, bad = loaded(tmp_path, a=entry(), b=entry(**wrong))
    assert not good.error and said in bad.error


def test_an_entry_without_a_column_is_named(tmp_path):
    without = entry()
    del without["editing_prompt"]
    _, bad = loaded(tmp_path, a=entry(), b=without)
    assert bad.name == "b" and "no column target_prompt" in bad.error


def row(scored: str = "given", status: str = "ok", **figures) -> dict:
    return {"key": str(figures), "status": status, "scored": scored, "figures": [figures]}


def test_the_tables_means_leave_out_what_has_no_background_and_no_mask_of_its_own():
    rows = [
        row(pie_psnr=20.0, pie_mse=0.01, structure_distance=None),
        row(pie_psnr=30.0, pie_mse=0.03, structure_distance=0.05),
        row(pie_psnr=None, pie_mse=None, structure_distance=0.01),
        row(scored="auto", pie_psnr=99.0),
        row(status="error"),
    ]
    assert pie_table.cells(rows) == ["30.00", "25.00", "-", "200.00", "-", "-", "-"]
    assert pie_table.cells([row(scored="auto", pie_psnr=99.0)]) == []


def test_the_table_has_the_published_rows_beside_ours(tmp_path):
    folder = tmp_path / pie_table.ROWS["Direct Inversion + PtP"].folder
    folder.mkdir()
    (folder / "results.jsonl").write_text(
        json.dumps(row(pie_psnr=21.5)) + "\n" + json.dumps(row(status="error")) + "\n"
    )
    lines = pie_table.write(tmp_path).splitlines()
    assert lines[2] == "| Direct Inversion + PtP | 2 | 1 | - | 21.50 | - | - | - | - | - |"
    assert lines[3].startswith("| (published: Direct Inversion + PtP) | 700 |  | 11.65 | 27.22 |")
    assert (
        sum("published:" in line for line in lines) == 3
    )  # of the rows that ran, and those that this pack cannot run
    assert (tmp_path / "table.md").read_text().splitlines() == lines
