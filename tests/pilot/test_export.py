"""What leaves a run: approved pictures alone, with a list, a contact sheet, the log's head; the report."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from devtools import certificate
from eta_core import files
from eta_core.files.xmp import EDITED_BY_MODEL
from pilot import cli, items, journal, report
from pilot.review import audit, export, figures
from pilot.review.desk import Desk
from pilot.review.store import ReviewError, Store
from tests.pilot.reviewed import make_run, pictures, result
from tests.pilot.test_review import ANNA, BEN, LEA, key, open_desk, vote


def reviewed(folder, actions: str, verdicts=None, **more) -> Desk:
    """A run of which Anna has decided an item for each of a, r, s."""
    make_run(folder, verdicts or ["review"] * len(actions), size=48, **more)
    desk = open_desk(folder)
    for action in actions:
        vote(desk, ANNA, {"a": "approve", "r": "reject", "s": "again"}[action])
    return desk


def test_approved_pictures_alone_are_exported_with_their_list_and_head(tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out"
    reviewed(run, "aras", names=["=1+1", "../../b.png"])
    assert cli.main(["export", str(run), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    lines = [json.loads(line) for line in (out / "export.jsonl").read_text().splitlines()]
    assert [(line["item"], line["approved_by"]) for line in lines] == [(key(1), "Anna"), (key(3), "Anna")]
    for line in lines:
        path = out / line["file"]
        assert (
            line["sha256"] == audit.file_hash(path) and path.resolve().parent == (out / "pictures").resolve()
        )
        edited = run / "pictures" / line["item"] / "edited.png"
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(Image.open(edited).convert("RGB")))
        marks = files.read_marks(path.read_bytes())
        assert marks.source_type == EDITED_BY_MODEL and "not signed: no certificate" in told
    with open(out / "export.csv", encoding="utf-8-sig", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["name"] for row in rows] == ["'=1+1", "item-3.png"]
    with Image.open(out / "contact-sheet.jpg") as sheet:
        assert sheet.width > 2 * 480
    assert sorted(path.name for path in out.iterdir()) == [
        "contact-sheet.jpg",
        "export.csv",
        "export.jsonl",
        "pictures",
    ]
    head = audit.head(run)
    assert f"head of the audit log: {head}" in told
    last = json.loads((run / audit.LOG).read_bytes().splitlines()[-1])
    assert last["action"] == "export" and last["items"] == [key(1), key(3)]
    assert last["list"] == audit.file_hash(out / "export.jsonl")
    assert cli.main(["verify", str(run), "--head", head]) == 0
    assert cli.main(["export", str(run), "--out", str(out)]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_pictures_keep_what_their_photographs_carry_and_are_signed(tmp_path, monkeypatch, capsys):
    pytest.importorskip("c2pa", reason="c2pa-python is optional")
    pytest.importorskip("cryptography", reason="cryptography makes the throw-away certificate")
    certificate.write(tmp_path / "signer")
    monkeypatch.setenv("ETA_C2PA_CERTIFICATE", str(tmp_path / "signer" / "certificate.pem"))
    monkeypatch.setenv("ETA_C2PA_KEY", str(tmp_path / "signer" / "key.pem"))
    Image.new("RGB", (60, 40), "red").save(tmp_path / "cat.jpg", dpi=(300, 300))
    row = {"picture": "cat.jpg", "source_prompt": "a cat", "target_prompt": "a dog"}
    (tmp_path / "items.jsonl").write_text(json.dumps(row))
    (item,) = items.load(tmp_path / "items.jsonl")
    run = tmp_path / "run"
    with journal.Journal(make_run(run, [], size=48)) as book:
        book.append(result(run, 1, "review") | {"key": f"{item.key}-auto"})
    vote(open_desk(run), ANNA)
    command = ["export", str(run), "--out", str(tmp_path / "out"), "--items", str(tmp_path / "items.jsonl")]
    assert cli.main(command) == 0 and "1 pictures, signed" in capsys.readouterr().out
    (path,) = (tmp_path / "out" / "pictures").iterdir()
    assert Image.open(path).info["dpi"] == pytest.approx((300, 300), abs=0.02)
    marks = files.read_marks(path.read_bytes())
    assert not marks.is_broken and "made from cat.jpg (parentOf)" in marks.credentials
    monkeypatch.delenv("ETA_C2PA_KEY")
    assert cli.main([*command[:3], str(tmp_path / "again")]) == 1
    assert "ETA_C2PA_KEY" in capsys.readouterr().err and not (tmp_path / "again").exists()


def test_a_picture_rendered_again_after_its_approval_is_not_exported(tmp_path):
    desk = reviewed(tmp_path / "run", "a")
    pictures(1, seed=9, size=48)["edited"].save(tmp_path / "run" / "pictures" / key(1) / "edited.png")
    assert cli.main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out").exists() and desk.outcomes() == {key(1): "open"}


def test_what_only_the_policy_passed_goes_out_when_asked_for_and_says_so(tmp_path):
    run = make_run(tmp_path / "run", ["review", "pass", "pass", "reject"], size=16)
    desk = open_desk(run, share=50.0)
    seen = vote(desk, ANNA), vote(desk, ANNA)
    assert cli.main(["export", str(run), "--out", str(tmp_path / "a")]) == 0
    assert cli.main(["export", str(run), "--out", str(tmp_path / "b"), "--with-passed"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "b" / "export.jsonl").read_text().splitlines()]
    by = {line["item"]: line["approved_by"] for line in lines}
    (unseen,) = {key(2), key(3)} - set(seen)
    assert by == {seen[0]: "Anna", seen[1]: "Anna", unseen: "policy"}
    assert len((tmp_path / "a" / "export.jsonl").read_text().splitlines()) == 2


def test_agreement_is_cohens():
    # Cohen's kappa by hand: 20 and 15 alike of 50; chance (25 * 30 + 25 * 20) / 2500 = 0.5
    pairs = [("a", "a")] * 20 + [("a", "r")] * 5 + [("r", "a")] * 10 + [("r", "r")] * 15
    equal, count, kappa = figures.agreement(pairs)
    assert (equal, count) == (35, 50) and kappa == pytest.approx(0.4)
    assert figures.agreement([("a", "a")]) == (1, 1, None) and figures.agreement([]) == (0, 0, None)


def test_the_report_tells_what_an_approved_picture_cost(tmp_path):
    desk = reviewed(tmp_path, "asr", ["review", "review", "review", "reject"])
    with journal.Journal(tmp_path) as book:
        book.append(result(tmp_path, 9, "review", seed=3) | {"again_of": key(2)})
    vote(desk, BEN)
    found = figures.read(tmp_path, Store(tmp_path))
    # four items: the first approved at once, the second when it came back, one rejected, one by the policy
    assert figures.passes(found) == (4, 1, 2, 2)
    report.write(tmp_path)
    text = re.sub(r"<[^>]+>", " ", (tmp_path / "report.html").read_text())
    for cells in (
        ("pass@1", "25 % (1 of 4)"),
        ("pass@2", "50 % (2 of 4)"),
        ("looks for each approved picture", "2.0"),
        ("seconds of the server for each approved picture", "6.2 s"),
        ("for review, approved by people", "2 of 4"),
    ):
        assert re.search(r"\s*".join(map(re.escape, cells)), text)


def test_reviewers_are_compared_by_their_blind_votes(tmp_path):
    make_run(tmp_path, ["review"] * 3, size=16)
    desk = open_desk(tmp_path, eyes=2)
    for _ in range(3):
        vote(desk, ANNA)
    vote(desk, BEN), vote(desk, BEN), vote(desk, BEN, "reject"), vote(desk, LEA)
    pairs = figures.between_people(figures.read(tmp_path, Store(tmp_path)))
    assert {name: figures.agreement(some)[:2] for name, some in pairs.items()} == {"Anna and Ben": (2, 3)}


def test_a_run_without_votes_has_no_part_about_them(tmp_path):
    make_run(tmp_path, ["review"], size=16)
    report.write(tmp_path)
    assert not (tmp_path / "review.sqlite").exists()
    Store(tmp_path)
    report.write(tmp_path)
    assert "<h2>Reviews" not in (tmp_path / "report.html").read_text()


def test_nothing_approved_is_told(tmp_path):
    desk = reviewed(tmp_path / "run", "r")
    with pytest.raises(ReviewError, match="nothing is approved yet"):
        export.write(desk, Store(tmp_path / "run"), tmp_path / "out")
