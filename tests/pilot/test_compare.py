"""Comparisons of runs whose rows are planted, without a server."""

import json
from pathlib import Path

import numpy as np
import pytest

from pilot import cli, journal
from pilot.compare import commands, contenders, folders, paired, words
from pilot.compare import page as compare_page
from pilot.compare.comparison import (
    BETTER,
    MEASURES,
    MOST_DECIBELS,
    SAME,
    UNSURE,
    WORSE,
    CompareError,
    Comparison,
    Contender,
)
from pilot.review.desk import Desk
from pilot.review.store import Person, Store
from tests.pilot.reviewed import make_run
from tests.pilot.test_report import NASTY, Reader, failed, row

SETTINGS = {"workflow": "w.json", "policy": "advertising", "limits": "", "seed": 0}


def planted(folder: Path, name: str, rows: list[dict], **settings) -> Contender:
    """A run's folder with these rows."""
    with journal.Journal(folder / name) as book:
        journal.settle(folder / name, SETTINGS | settings)
        for number, one in enumerate(rows, 1):
            book.append(one | {"number": number})
    return Contender(name, "", folder / name)


def rows(psnr: np.ndarray, passes: np.ndarray, category: str = "", first: int = 0, **more) -> list[dict]:
    return [
        row(
            f"item {first + i}",
            "pass" if passed else "review",
            psnr=float(value),
            category=category,
            figures=[{"background_psnr": float(value), "background_ms_ssim": float(value) / 40}],
            **more,
        )
        for i, (value, passed) in enumerate(zip(psnr, passes))
    ]


def kept(count: int, seed: int = 0) -> np.ndarray:
    """Plausible dB."""
    return np.random.default_rng(seed).normal(30, 3, count)


def between(folder: Path, old: list[dict], new: list[dict], baseline: str = "old") -> Comparison:
    entries = folders.read_entries([planted(folder, "old", old), planted(folder, "new", new)])
    return Comparison(entries, baseline)


def verdicts(found: Comparison) -> dict[str, str]:
    (entry,) = found.challengers
    return {measure.name: found.verdict(entry, measure) for measure in found.measures}


def test_a_true_regression_is_found_and_told_by_name_and_size(tmp_path):
    psnr, passes = kept(50), np.ones(50)
    noise = np.random.default_rng(1).normal(0, 1, 50)
    found = between(tmp_path, rows(psnr, passes), rows(psnr - 2 + noise, np.arange(50) >= 12))
    said = verdicts(found)
    assert (said["success"], said["background_psnr"]) == (WORSE, WORSE)
    assert [measure.name for _, measure in found.regressions][:2] == ["success", "background_psnr"]
    assert words.headline(found).startswith("Regression: new is worse than old in success, background")
    success = words.sentences(found)[0]
    assert "76 % against 100 % (-24 points, 95 % interval -3" in success


def test_the_same_pictures_are_no_regression_and_say_how_large_a_loss_would_have_been_seen(tmp_path):
    psnr, passes = kept(50), np.arange(50) >= 5
    found = between(tmp_path, rows(psnr, passes), rows(psnr, passes))
    assert set(verdicts(found).values()) == {SAME} and not found.regressions
    assert words.headline(found) == "No regression shown against old, on 50 items."
    (entry,) = found.challengers
    success = found.difference(entry, found.entries[0], MEASURES[0])
    assert success.low == -success.high < 0  # equal results on 50 items do not prove equal models


def test_a_gain_is_called_better_and_for_figures_of_which_less_is_better_too(tmp_path):
    psnr = kept(40)
    old = rows(psnr, np.ones(40), seconds=9.0)
    new = rows(psnr + 1.5, np.ones(40), seconds=5.0)
    assert verdicts(between(tmp_path, old, new)) == {
        "success": SAME,
        "background_psnr": BETTER,
        "background_ms_ssim": BETTER,
        "seconds": BETTER,
        "errors": SAME,
    }


def test_models_that_are_equally_good_are_seldom_called_worse(tmp_path):
    """Two models with the same chances on each item: one in 40 may be called worse by chance."""
    draw = np.random.default_rng(2)
    called = 0
    for _ in range(200):
        chances = draw.random(60)
        ones, others = (list((draw.random(60) < chances).astype(float)) for _ in range(2))
        found = paired.share_difference(ones, others)
        called += found.is_real() and found.high < 0
    assert called <= 12


def test_few_items_are_called_too_few_with_the_number_that_would_tell(tmp_path):
    psnr = kept(6)
    noise = np.random.default_rng(3).normal(-1, 4, 6)
    found = between(tmp_path, rows(psnr, np.ones(6)), rows(psnr + noise, np.arange(6) > 0))
    said = verdicts(found)
    assert (said["success"], said["background_psnr"]) == (UNSURE, UNSURE) and not found.regressions
    (entry,) = found.challengers
    needed = found.needed(entry, MEASURES[0])
    assert needed is not None and 6 < needed < 1000
    assert f"about {needed} items would tell" in words.sentences(found)[0]
    assert "Too few items" in words.headline(found)


def test_a_few_items_that_all_got_worse_prove_nothing_by_their_interval_alone(tmp_path):
    psnr = kept(4)
    found = between(tmp_path, rows(psnr, np.ones(4)), rows(psnr - 3, np.zeros(4)))
    assert verdicts(found)["background_psnr"] == UNSURE and verdicts(found)["success"] == UNSURE


def test_a_loss_that_is_certain_and_too_small_to_matter_is_none(tmp_path):
    psnr = kept(50)
    found = between(tmp_path, rows(psnr, np.ones(50)), rows(psnr - 0.03, np.ones(50)))
    assert verdicts(found)["background_psnr"] == SAME


def test_time_is_told_and_never_a_regression(tmp_path):
    psnr = kept(30)
    old, new = (rows(psnr, np.ones(30), seconds=seconds) for seconds in (2.0, 20.0))
    found = between(tmp_path, old, new)
    assert verdicts(found)["seconds"] == WORSE and not found.regressions
    assert "new, seconds an item, median: slower; 20.0 s against 2.0 s" in words.sentences(found)[-1]


def test_an_error_counts_as_no_success_and_is_shown_where_only_one_model_failed(tmp_path):
    psnr = kept(12)
    old = rows(psnr, np.ones(12))
    new = [failed(f"item {i}", "CUDA is out of memory") if i < 9 else one for i, one in enumerate(old)]
    found = between(tmp_path, old, new)
    assert verdicts(found)["success"] == WORSE
    text = Reader(compare_page.page_of(tmp_path, found)).text
    assert "Failed in some runs and not in all: 9" in text and "CUDA is out of memory" in text


def test_a_category_names_a_model_only_where_it_is_better_by_more_than_chance(tmp_path):
    clear, even = kept(20, 1), kept(20, 2)
    noise = np.random.default_rng(4).normal(0, 2, 20)
    everywhere = np.ones(20)
    first = [*rows(clear, everywhere, "cats"), *rows(even, everywhere, "cars", 20)]
    second = [*rows(clear - 4, np.arange(20) > 9, "cats"), *rows(even + noise, everywhere, "cars", 20)]
    found = between(tmp_path, first, second, "")
    folders.save(tmp_path, found)
    told = {one["category"]: one for one in json.loads((tmp_path / folders.RESULT).read_text())["categories"]}
    assert told["cats"] == {"category": "cats", "items": 20, "suits": "old", "by": "success"}
    assert told["cars"] == {"category": "cars", "items": 20, "suits": None, "by": None}
    assert "no clear difference on 20 items" in Reader(compare_page.page_of(tmp_path, found)).text


def test_each_model_gets_the_setting_that_is_clearly_better_or_keeps_its_first(tmp_path):
    psnr, passes = kept(30), np.ones(30)
    a, b, c, d = (
        planted(tmp_path, name, rows(values, passes)).folder
        for name, values in (("a", psnr), ("b", psnr + 2), ("c", psnr), ("d", psnr))
    )
    listed = [
        Contender("one", "eta=0", a),
        Contender("one", "eta=1", b),
        Contender("two", "eta=0", c),
        Contender("two", "eta=1", d),
    ]
    found = Comparison(folders.read_entries(listed))
    assert [entry.name for entry in found.finalists] == ["one (eta=1)", "two (eta=0)"]
    assert words.reason(found, "one").startswith("it keeps the background better")
    assert words.reason(found, "two") == "no clear difference between 2 settings: the first is kept"
    assert words.headline(found).startswith("one (eta=1) is the better choice: it keeps the background")
    text = Reader(compare_page.page_of(tmp_path, found)).text
    assert "A setting for each model" in text and "eta=1" in text


def test_of_three_models_the_best_is_the_one_that_is_left(tmp_path):
    psnr = kept(40)
    all_, half = np.ones(40), np.arange(40) % 2
    listed = [
        planted(tmp_path, "weak", rows(psnr + 5, half)),
        planted(tmp_path, "plain", rows(psnr, all_)),
        planted(tmp_path, "good", rows(psnr + 1, all_)),
    ]
    found = Comparison(folders.read_entries(listed))
    assert found.winner is not None
    assert (found.winner[0].label, found.winner[1].name) == ("good", "background_psnr")
    success = words.sentences(found)[0]
    assert success.startswith("plain passes the policy more often: 100 % of the items, against weak 50 %")
    assert "no clear difference from good 100 %" in success


def test_the_structure_distance_takes_the_place_of_the_backgrounds_where_all_have_it(tmp_path):
    psnr = kept(10)
    old, new = rows(psnr, np.ones(10)), rows(psnr, np.ones(10))
    for one in old:
        one["figures"][0]["structure_distance"] = 0.02
    names = [measure.name for measure in between(tmp_path, old, new).measures]
    assert "structure_distance" not in names and "background_ms_ssim" in names
    for one in new:
        one["figures"][0]["structure_distance"] = 0.03
    names = [measure.name for measure in between(tmp_path / "both", old, new).measures]
    assert "structure_distance" in names and "background_ms_ssim" not in names


def test_backgrounds_that_are_exact_can_be_compared(tmp_path):
    old = rows(kept(10), np.ones(10))
    new = [one | {"figures": [{"background_psnr": "inf"}]} for one in old]
    found = between(tmp_path, old, new)
    assert verdicts(found)["background_psnr"] == BETTER
    assert found.middle(found.entries[1], MEASURES[3]) == MOST_DECIBELS


def test_peoples_approvals_count_where_there_are_reviews(tmp_path):
    listed = []
    for name, actions in (("old", ("approve", "approve")), ("new", ("approve", "reject"))):
        folder = make_run(tmp_path / name, ("review", "review", "reject"))
        store = Store(folder)
        desk = Desk(folder, store)
        for one, action in zip(desk.items(), actions):
            reason = {"reason": "artefact"} if action == "reject" else {}
            desk.vote(Person("Anna", "reviewer"), one.key, one.binding, action, **reason)
        listed.append(Contender(name, "", folder))
    found = Comparison(folders.read_entries(listed))
    approved = next(measure for measure in found.measures if measure.name == "approved")
    assert [list(entry.approved.values()) for entry in found.entries] == [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    assert found.middle(found.entries[1], approved) == pytest.approx(1 / 3)


def test_items_come_by_what_was_lost_against_the_baseline(tmp_path):
    old = [row("a", psnr=30.0), row("b", psnr=30.0), row("c", psnr=30.0), row("d", "review", psnr=20.0)]
    new = [row("a", psnr=29.0), row("b", "reject", psnr=12.0), row("c", psnr=22.0), row("d", psnr=40.0)]
    assert between(tmp_path, old, new).worst_first() == ["b-auto", "c-auto", "a-auto", "d-auto"]


def test_everything_a_user_wrote_is_escaped(tmp_path):
    old = [row(NASTY, category=NASTY, source_prompt=NASTY), row("b", category="x")]
    new = [failed(NASTY, NASTY) | {"category": NASTY}, row("b", category="x")]
    old, new = ([one | {"key": str(i)} for i, one in enumerate(some)] for some in (old, new))
    listed = [planted(tmp_path, name, some) for name, some in (("old", old), ("new", new))]
    listed = [Contender(f"{NASTY} {one.label}", f"s={NASTY}", one.folder) for one in listed]
    found = Comparison(folders.read_entries(listed), listed[0].label)
    page = Reader(compare_page.page_of(tmp_path, found))
    assert "script" not in page.tags and "img" not in page.tags and NASTY in page.text
    assert all(value is None or "javascript" not in value for _, value in page.attributes)
    folders.save(tmp_path, found)
    assert folders.plan_of(tmp_path)[0][0].label == listed[0].label


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"more": 1}, "new has no result of 1 of the items of old (item 3)"),
        ({"seed": 5}, "item 0 has seed 0 in old and 5 in new"),
        ({"size": [128, 64]}, "item 0 is another picture in old than in new"),
        ({"policy": "free"}, "old was run with policy 'advertising', new with 'free'"),
        ({"tasks": 5}, "new has 3 of 5 results: run it to its end first"),
    ],
)
def test_runs_that_are_not_of_the_same_items_judged_alike_are_refused(tmp_path, change, said):
    old = rows(kept(3), np.ones(3))
    new = [one | {k: v for k, v in change.items() if k in ("seed", "size")} for one in old]
    old += rows(kept(1), np.ones(1), first=3) if "more" in change else []
    settings = {"policy": change["policy"]} if "policy" in change else {}
    listed = [planted(tmp_path, "old", old), planted(tmp_path, "new", new, **settings)]
    run = journal.load(tmp_path / "new")
    assert run
    journal.save(tmp_path / "new", run | {"tasks": change.get("tasks", 0)})
    with pytest.raises(CompareError) as refused:
        folders.read_entries(listed)
    assert said in str(refused.value)


def test_another_picture_of_the_same_name_is_refused(tmp_path):
    one, other = make_run(tmp_path / "old", size=48), make_run(tmp_path / "new", size=48)
    listed = [Contender("old", "", one), Contender("new", "", other)]
    assert len(folders.read_entries(listed)) == 2
    picture = other / journal.rows(other)[1]["files"]["source"]
    picture.write_bytes((other / journal.rows(other)[1]["files"]["edited"]).read_bytes())
    with pytest.raises(CompareError, match=r"item-2.png is another picture in old than in new"):
        folders.read_entries(listed)


def test_folders_of_runs_are_compared_by_command_with_the_status_of_a_regression(tmp_path, capsys):
    psnr = kept(20)
    planted(tmp_path, "old", rows(psnr, np.ones(20)))
    planted(tmp_path, "new", rows(psnr - 3, np.zeros(20)))
    runs, out = [str(tmp_path / name) for name in ("old", "new")], tmp_path / "out"
    assert cli.main(["compare", *runs]) == 1 and "name it with --out" in capsys.readouterr().err
    assert cli.main(["compare", *runs, "--out", str(out)]) == 0
    assert "old is the better choice: it passes the policy more often" in capsys.readouterr().out
    assert cli.main(["compare", str(out), "--baseline", "old"]) == commands.REGRESSION == 4
    assert cli.main(["compare", str(out)]) == 4  # the baseline is remembered
    result = json.loads((out / folders.RESULT).read_text())
    assert result["regression"] and result["baseline"] == "old"
    assert [one["folder"] for one in result["contenders"]] == ["../old", "../new"]
    written = (out / folders.PAGE).read_text(encoding="utf-8")
    assert "Regression" in written and 'href="../old/report.html"' in written
    named = [f"{label}={folder}" for label, folder in zip(("A", "B"), reversed(runs))]
    assert cli.main(["compare", *named, "--out", str(out), "--baseline", "A"]) == 0
    assert cli.main(["compare", str(out), "--baseline", "C"]) == 1
    assert "--baseline C is no model of this comparison; they are A, B" in capsys.readouterr().err
    assert cli.main(["compare", str(tmp_path / "nothing")]) == 1
    assert "holds neither a comparison" in capsys.readouterr().err


def test_models_are_named_by_label_or_by_their_file():
    assert contenders.named("new=sub/x.safetensors") == contenders.Named("new", "sub/x.safetensors")
    assert contenders.named("sub\\x.v2.safetensors").label == "x.v2"
    assert contenders.named("flows/mine.json").is_workflow
    with pytest.raises(CompareError, match="--model '=x' must be NAME or LABEL=NAME"):
        contenders.named("=x")


def test_settings_that_are_tried_are_combined():
    tried = ["EtaSampler.cfg=1,2", "EtaSchedule.preset=linear,cosine"]
    found = dict(contenders.settings(tried))
    assert list(found) == [
        "cfg=1, preset=linear",
        "cfg=1, preset=cosine",
        "cfg=2, preset=linear",
        "cfg=2, preset=cosine",
    ]
    assert found["cfg=2, preset=linear"] == ("EtaSampler.cfg=2", "EtaSchedule.preset=linear")
    assert contenders.settings([]) == [("", ())]
    for wrong in ("EtaSampler.cfg=1", "cfg=1,2", "EtaSampler.cfg", "EtaSampler.cfg=1,"):
        with pytest.raises(CompareError, match="must be NODE.input=VALUE,VALUE"):
            contenders.settings([wrong])


def test_the_two_tests_of_a_share_agree_with_the_textbook():
    """Six of 50 lost, none won: McNemar's exact chance is 2 / 2^6."""
    found = paired.share_difference([1.0] * 44 + [0.0] * 6, [1.0] * 50)
    assert found.p == pytest.approx(2 / 64) and found.middle == pytest.approx(-0.12) and found.high < 0


def test_signs_of_few_differences_are_all_tried():
    found = paired.middle_difference([1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5)
    assert found.p == pytest.approx(2 / 32)
