import math
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from pilot import journal, page, report

VOID = {"meta", "img"}
NASTY = "<script>alert('x')</script>\"'&<img src=x onerror=alert(1)>"


def row(key: str, verdict: str = "pass", mode: str = "auto", psnr: float | str | None = 30.0, **more) -> dict:
    return {
        "key": f"{key}-{mode}",
        "mode": mode,
        "number": 1,
        "name": key,
        "category": "",
        "source_prompt": "a cat",
        "target_prompt": "a dog",
        "words": "cat",
        "files": {},
        "size": [64, 64],
        "given_size": [64, 64],
        "mask": mode,
        "scored": "auto",
        "seed": 0,
        "figures": [{"background_psnr": psnr, "changed_area": 5.0}],
        "not_measured": {},
        "verdict": verdict,
        "reasons": [],
        "seconds": 2.5,
        "status": "ok",
        "finished": "2026-01-02T03:04:05+00:00",
        **more,
    }


def failed(key: str, error: str = "the file is empty", mode: str = "auto") -> dict:
    kept = (
        "key",
        "mode",
        "number",
        "name",
        "category",
        "source_prompt",
        "target_prompt",
        "words",
        "files",
        "finished",
    )
    return {name: value for name, value in row(key, mode=mode).items() if name in kept} | {
        "status": "error",
        "error": error,
    }


def run(**settings) -> dict:
    return {
        "id": "x",
        "items": "set",
        "settings": {"workflow": "w.json", "policy": "advertising", "limits": ""} | settings,
    }


class Reader(HTMLParser):
    """Tags in their order, checked to be closed, and the text between them."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data + " "


def read(folder, rows: list[dict], about: dict | None = None, shown: int = 60) -> Reader:
    return Reader(report.page_of(folder, about or run(), rows, shown))


def test_rates_and_shares():
    rows = [row("a"), row("b"), row("c", "review"), row("d", "reject"), failed("e")]
    assert report.rates(rows) == {"pass": 2, "review": 1, "reject": 1, "error": 1}


def test_the_worst_come_first():
    rows = [
        row("a", psnr=40.0),
        row("b", psnr=20.0),
        row("c", "reject", psnr=50.0),
        row("d", "review", psnr=None),
        row("e", "review"),
        row("f", psnr="inf"),
        failed("g"),
    ]
    assert [found["name"] for found in report.worst_first(rows)] == ["c", "d", "e", "b", "a", "f"]


def test_an_items_figure_is_the_mean_of_its_pictures():
    several = row("a", figures=[{"changed_area": 4.0}, {"changed_area": 8.0}, {"changed_area": None}])
    assert report.figure(several, "changed_area") == 6.0
    assert math.isnan(report.figure(several, "background_psnr")) and math.isnan(
        report.figure(failed("b"), "seconds")
    )
    assert report.values_of([several, failed("b"), row("c", psnr="inf")], "background_psnr") == [math.inf]


def test_everything_a_user_wrote_is_escaped(tmp_path):
    said = dict.fromkeys(("name", "category", "source_prompt", "target_prompt", "words"), NASTY)
    rows = [
        row("a", **said, reasons=[NASTY], not_measured={"pie_lpips": NASTY}, files={"source": NASTY}),
        row("b", category="other"),
        failed("c", NASTY) | said,
    ]
    about = run(workflow=NASTY, policy=NASTY, set=[NASTY]) | {
        "items": NASTY,
        "nodes": {NASTY: {NASTY: NASTY}},
        "models": {NASTY: {}},
        "server": {NASTY: NASTY},
    }
    found = read(tmp_path / "<b>out", rows, about)
    assert (
        "script" not in found.tags
        and "b" in found.tags
        and not [name for name, _ in found.attributes if name.startswith("on")]
    )
    assert found.text.count(NASTY) >= 15 and "Pilot: <b>out" in found.text
    assert "img" not in found.tags  # the pictures' files are not there


def test_the_page_asks_nobody_for_anything(tmp_path):
    Image.new("RGB", (600, 300), (9, 99, 200)).save(tmp_path / "a.png")
    found = read(
        tmp_path,
        [row("a", files={"source": "a.png", "edited": "a.png"}), row("b", files={"edited": "a.png"})],
    )
    sources = [
        value
        for name, value in found.attributes
        if name in ("src", "href", "srcset", "action", "data", "poster")
    ]
    assert len(sources) == 3 and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert ("content", page.POLICY) in found.attributes and "default-src 'none'" in page.POLICY
    assert not {"script", "link", "iframe", "object", "base"} & set(found.tags)
    assert "url(" not in page.STYLE and "@import" not in page.STYLE
    assert ("width", "256") in found.attributes and ("height", "128") in found.attributes


def test_runs_with_and_without_a_given_mask_stand_apart(tmp_path):
    rows = [row("a"), row("a", "reject", mode="given", psnr=12.0), failed("b", mode="given")]
    text = read(tmp_path, rows).text
    assert "The workflow's own mask: 1 items" in text and "The given mask: 2 items" in text
    assert re.search(r"The workflow's own mask: 1 items\s+100 %\s+pass \(1\)", text)
    assert re.search(
        r"The given mask: 2 items\s+0 %\s+pass \(0\)\s+0 %\s+review \(0\)\s+50 %\s+reject \(1\)\s+50 "
        r"%\s+error \(1\)",
        text,
    )


def test_pie_benchs_table_is_there_where_items_had_masks(tmp_path):
    figures = [{"pie_psnr": 21.0, "pie_mse": 0.01, "pie_ssim": 0.8}]
    assert "PIE-Bench" not in read(tmp_path, [row("a")]).text
    text = read(tmp_path, [row("a", scored="given", figures=figures)]).text
    assert re.search(
        r"By PIE-Bench's conventions.*The workflow's own mask\s+-\s+21.00\s+-\s+100.00\s+80.00", text, re.S
    )


def test_items_without_words_are_said_to_have_had_no_mask(tmp_path):
    assert "1 items name no word to change" in read(tmp_path, [row("a", mask="none"), row("b")]).text


def test_as_many_cases_as_asked_for_have_pictures(tmp_path):
    found = read(tmp_path, [row(str(n), number=n) for n in range(9)], shown=4)
    assert (
        "Worst cases first: 4 of 9" in found.text
        and sum(value == "case pass" for _, value in found.attributes) == 4
    )


def test_categories_are_compared_where_there_are_several(tmp_path):
    rows = [
        row("a", category="animals"),
        row("b", "reject", category="cars", psnr=10.0),
        failed("c") | {"category": "cars"},
    ]
    text = read(tmp_path, rows).text
    assert re.search(r"animals\s+1\s+100 %\s+0 %\s+0 %\s+0 %\s+30.00", text)
    assert re.search(r"cars\s+2\s+0 %\s+0 %\s+50 %\s+50 %\s+10.00", text)
    assert "By category" not in read(tmp_path, rows[:1]).text


def test_a_histogram_counts_every_value_and_draws_the_limits_inside():
    found = Reader(page.histogram([0.0, 1.0, 1.0, 10.0], [(5.0, "pass"), (99.0, "review")], 1))
    titles = re.findall(r": (\d+)(?: |$)", found.text)
    assert sum(map(int, titles)) == 4 and "2 items" in found.text
    assert [value for name, value in found.attributes if name == "class" and value.startswith("limit")] == [
        "limit pass"
    ]
    assert Reader(page.histogram([3.0, 3.0], [], 2)).tags.count("rect") == page.BINS


def test_settings_seeds_and_weights_are_in_it(tmp_path):
    about = run(seed=5) | {
        "models": {"sd14.safetensors": {"sha256": "ab" * 32}, "far.ckpt": {}},
        "nodes": {"EtaInversion 7": {"steps": 50}},
    }
    text = read(tmp_path, [row("a", seed=77)], about).text
    assert (
        "sha256 " + "ab" * 32 in text
        and "known by its name only" in text
        and "steps 50" in text
        and "seed 77" in text
    )


@pytest.mark.parametrize(
    "rows", [[failed("a")], [row("a", figures=[{}], reasons=["no figures"])], [row("a", seconds=None)]]
)
def test_runs_of_which_little_is_known_have_a_page(tmp_path, rows):
    assert read(tmp_path, rows).text


def test_the_file_is_written_and_told(tmp_path):
    with journal.Journal(tmp_path) as book:
        journal.settle(tmp_path, run()["settings"])
        book.append(row("a", name="кот"))
    told = report.write(tmp_path)
    assert told.splitlines()[0] == "The workflow's own mask: 1 pass, 0 review, 0 reject, 0 error"
    assert "кот" in (tmp_path / "report.html").read_text(encoding="utf-8")
    with pytest.raises(journal.JournalError, match="no results"):
        report.write(tmp_path / "empty")


def test_half_a_character_in_a_name_does_not_stop_the_report(tmp_path):
    with journal.Journal(tmp_path) as book:
        book.append(row("a\ud800b"))
    report.write(tmp_path)
    assert "a?b" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_each_of_several_servers_has_a_row(tmp_path):
    rows = [
        row("a", server="http://a"),
        row("b", server="http://b", seconds=4.5),
        row("c", server="http://b"),
    ]
    rows += [failed("d") | {"server": "http://a"}, failed("e")]
    rows = [journal.filled(one) for one in rows]
    warned = run() | {"warnings": ["http://b and http://a differ in comfyui_version 2 and 1"]}
    text = " ".join(read(tmp_path, rows, warned).text.split())
    assert "By server" in text and "differ in comfyui_version 2 and 1" in text
    assert "http://a 2 1 2.5" in text and "http://b 2 0 3.5" in text
    one = [row("a", server="http://a"), failed("b")]
    assert "By server" not in read(tmp_path, one).text


def test_a_report_of_many_lists_the_first_and_shows_the_worst_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "LISTED", 2)
    with journal.Journal(tmp_path) as book:
        journal.settle(tmp_path, run()["settings"])
        for number, psnr in enumerate((40.0, 20.0, 30.0), 1):
            book.append(row(f"item-{number}", psnr=psnr, number=number, words=f"word {number}"))
        for number in range(3):
            book.append(failed(f"bad-{number}") | {"number": 9})
    report.write(tmp_path, shown=1)
    text = " ".join(Reader((tmp_path / "report.html").read_text(encoding="utf-8")).text.split())
    assert "All results: 6 (the first 2 are listed)" in text and "Errors: 3 (the first 2 are listed)" in text
    assert "(words: word 2)" in text and "word 1" not in text and "bad-2" not in text
    assert "item-1" in text and "item-3" not in text
