"""A review without its page: who may vote on what, what votes decide, what a new picture voids."""

import io
import json
import os
import sqlite3
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from PIL import Image

from pilot import items, journal, start
from pilot.review import audit, candidates
from pilot.review.desk import AGAIN, Desk
from pilot.review.store import LEAD, Conflict, Person, ReviewError, Store, token_hash
from tests.pilot.reviewed import make_run, pictures, race, result

ROOT = Path(__file__).resolve().parents[2]
ANNA, BEN, LEA = Person("Anna", "reviewer"), Person("Ben", "reviewer"), Person("Lea", "lead")


def open_desk(folder: Path, **settings) -> Desk:
    return Desk(folder, Store(folder), **settings)


def lines(folder: Path, action: str = "") -> list[dict]:
    found = [json.loads(line) for line in (folder / audit.LOG).read_bytes().splitlines()]
    return [line for line in found if action in ("", line["action"])]


def vote(desk: Desk, person: Person, action: str = "approve", **more) -> str:
    """A vote on the next item -> its key."""
    shown = desk.next(person)
    assert shown
    reason = {"reason": "artefact"} if action == "reject" else {}
    desk.vote(person, shown.candidate.key, shown.candidate.binding, action, **reason, **more)
    return shown.candidate.key


def key(number: int) -> str:
    return f"{number:012x}-auto"


# --- what comes up --------------------------------------------------------------------------------


def test_all_of_review_a_share_of_pass_and_never_a_reject(tmp_path):
    make_run(tmp_path, ["review"] * 3 + ["pass"] * 20 + ["reject"] * 5, size=8)
    found = candidates.of_run(tmp_path, 5)
    assert [one.row["verdict"] for one in found] == ["review"] * 3 + ["pass"]
    assert [one.drawn for one in found] == [False] * 3 + [True]
    assert len(candidates.of_run(tmp_path, 0)) == 3 and len(candidates.of_run(tmp_path, 100)) == 23
    assert found == candidates.of_run(tmp_path, 5)


def test_the_draw_is_the_runs_and_does_not_favour_a_place():
    keys = [key(n) for n in range(400)]
    first, other = (candidates.draw(keys, run, 25) for run in ("a", "b"))
    assert len(first) == 100 and first != other
    assert 15 <= len(set(first) & set(other)) <= 40  # 25 where the two are independent
    assert 30 <= sum(one in keys[:200] for one in first) <= 70


def test_the_operator_does_not_see_the_items(tmp_path):
    make_run(tmp_path, ("review", "review"), operator="Anna")
    desk = open_desk(tmp_path)
    assert desk.next(Person(" anna".strip(), "reviewer")) is None and desk.own(ANNA) == 2
    one = desk.items()[0]
    with pytest.raises(ReviewError, match="may not decide"):
        desk.vote(ANNA, one.key, one.binding, "approve")
    assert vote(desk, BEN) == one.key


def test_space_goes_on_and_comes_round(tmp_path):
    make_run(tmp_path, ("review", "review", "review"))
    desk = open_desk(tmp_path)
    seen, after = [], ""
    for _ in range(4):
        shown = desk.next(ANNA, after)
        assert shown
        after = shown.candidate.key
        seen.append(after)
    assert seen == [key(1), key(2), key(3), key(1)]


def test_two_people_get_different_items(tmp_path):
    make_run(tmp_path, ("review", "review"))
    desk = open_desk(tmp_path)
    found = [desk.next(person) for person in (ANNA, BEN, ANNA)]
    assert [one and one.candidate.key for one in found] == [key(1), key(2), key(1)]


# --- what the votes decide ------------------------------------------------------------------------


@pytest.mark.parametrize("action", ("approve", "reject", "again"))
def test_one_pair_of_eyes_decides(tmp_path, action):
    make_run(tmp_path, ("review",))
    desk = open_desk(tmp_path)
    vote(desk, ANNA, action, comment="a <b>", seconds=9.0)
    assert desk.outcomes() == {key(1): action} and desk.next(BEN) is None
    (line,) = lines(tmp_path, "vote")
    said = {name: line[name] for name in ("who", "role", "item", "vote", "comment")}
    assert said == {"who": "Anna", "role": "reviewer", "item": key(1), "vote": action, "comment": "a <b>"}
    assert line["files"] == dict(desk.items()[0].hashes)
    assert line["seconds"] < 2  # not what the browser says, where the item was shown for less


def test_two_pairs_agree_or_a_lead_decides(tmp_path):
    make_run(tmp_path, ("review", "review"))
    desk = open_desk(tmp_path, eyes=2)
    assert desk.next(LEA) is None
    vote(desk, ANNA), vote(desk, ANNA)
    shown = desk.next(BEN)
    assert shown and shown.earlier == ()  # blind
    vote(desk, BEN), vote(desk, BEN, "reject", comment="a seam")
    assert desk.outcomes() == {key(1): "approve", key(2): "split"}
    assert desk.next(ANNA) is None and desk.next(BEN) is None
    shown = desk.next(LEA)
    assert shown and [(v.action, v.comment) for v in shown.earlier] == [("approve", ""), ("reject", "a seam")]
    vote(desk, LEA, "reject")
    assert desk.outcomes()[key(2)] == "reject"
    assert [line["seat"] for line in lines(tmp_path, "vote")] == [1, 1, 2, 2, LEAD]


def test_nobody_votes_twice_or_for_what_was_decided(tmp_path):
    make_run(tmp_path, ("review",))
    desk = open_desk(tmp_path, eyes=2)
    one = desk.items()[0]
    vote(desk, ANNA)
    with pytest.raises(Conflict):
        desk.vote(ANNA, one.key, one.binding, "approve")
    vote(desk, BEN)
    for person in (Person("Cleo", "reviewer"), LEA):
        with pytest.raises(Conflict):
            desk.vote(person, one.key, one.binding, "approve")


def test_the_faster_of_two_programs_has_the_seat(tmp_path):
    make_run(tmp_path, ["review"] * 8, size=8)
    desks = [open_desk(tmp_path) for _ in range(4)]
    won, lost, failed = race(desks)
    assert not failed and sorted(won) == [key(n) for n in range(1, 9)] and len(lost) == 24
    assert [line["seat"] for line in lines(tmp_path, "vote")] == [1] * 8
    assert audit.verify(tmp_path).findings == ()


def test_undo_takes_back_the_own_last_vote_alone(tmp_path):
    make_run(tmp_path, ("review", "review"))
    desk = open_desk(tmp_path)
    vote(desk, ANNA), vote(desk, BEN, "reject")
    assert desk.undo(ANNA) == key(1)
    assert desk.outcomes() == {key(1): "open", key(2): "reject"}
    with pytest.raises(ReviewError, match="no vote to undo"):
        desk.undo(ANNA)
    (line,) = lines(tmp_path, "undo")
    assert (line["who"], line["item"], line["vote"]) == ("Anna", key(1), "approve")
    assert vote(desk, ANNA, "reject") == key(1)


def test_nothing_is_undone_behind_a_leads_back(tmp_path):
    make_run(tmp_path, ("review",))
    desk = open_desk(tmp_path, eyes=2)
    vote(desk, ANNA), vote(desk, BEN, "reject"), vote(desk, LEA)
    with pytest.raises(ReviewError, match="a lead has decided"):
        desk.undo(ANNA)
    assert desk.undo(LEA) == key(1) and desk.outcomes()[key(1)] == "split"


@pytest.mark.parametrize(
    "ballot",
    [
        {"action": "maybe"},
        {"action": "reject"},
        {"action": "reject", "reason": "ugly"},
        {"action": "approve", "reason": "brand"},
        {"action": "approve", "comment": "x" * 2001},
    ],
)
def test_a_vote_says_what_it_must_and_no_more(tmp_path, ballot):
    make_run(tmp_path, ("review",))
    desk = open_desk(tmp_path)
    one = desk.items()[0]
    with pytest.raises(ReviewError, match="a vote is one of"):
        desk.vote(ANNA, one.key, one.binding, **ballot)
    assert not lines(tmp_path, "vote")


# --- what a decision is bound to ------------------------------------------------------------------


@pytest.mark.parametrize("name", ("source", "edited", "mask"))
def test_a_picture_written_again_voids_the_decision_on_it_alone(tmp_path, name):
    make_run(tmp_path, ("review", "review"))
    desk = open_desk(tmp_path)
    vote(desk, ANNA), vote(desk, ANNA)
    Image.new("RGB", (96, 96), (1, 2, 3)).save(tmp_path / "pictures" / key(1) / f"{name}.png")
    shown = desk.next(BEN)
    assert shown and shown.candidate.key == key(1)
    assert desk.outcomes() == {key(1): "open", key(2): "approve"}
    (line,) = lines(tmp_path, "void")
    assert (line["item"], line["of"], line["vote"]) == (key(1), "Anna", "approve")
    assert line["now"] == shown.candidate.binding != line["binding"]


def test_another_policy_or_other_settings_void_it(tmp_path):
    make_run(tmp_path, ("review",))
    desk = open_desk(tmp_path)
    run = journal.load(tmp_path)
    assert run
    for number, change in enumerate(({"policy": "free"}, {"set": ["EtaInversion.steps=20"]}), 1):
        vote(desk, ANNA)
        run["settings"] |= change
        journal.save(tmp_path, run)
        desk.sync()
        assert desk.outcomes() == {key(1): "open"} and len(lines(tmp_path, "void")) == number


def test_a_vote_on_a_picture_that_changed_on_screen_does_not_count(tmp_path):
    make_run(tmp_path, ("review",))
    desk = open_desk(tmp_path)
    shown = desk.next(ANNA)
    assert shown
    pictures(1, seed=7)["edited"].save(tmp_path / "pictures" / key(1) / "edited.png")
    with pytest.raises(Conflict, match="rendered again"):
        desk.vote(ANNA, key(1), shown.candidate.binding, "approve")
    assert not lines(tmp_path, "vote")


def test_a_result_that_left_the_run_voids_its_decision(tmp_path):
    make_run(tmp_path, ("review", "review"))
    desk = open_desk(tmp_path)
    vote(desk, ANNA)
    (tmp_path / journal.RESULTS).write_bytes((tmp_path / journal.RESULTS).read_bytes().splitlines(True)[1])
    desk.sync()
    assert [line["why"] for line in lines(tmp_path, "void")] == ["not in the run any more"]


# --- sent back ------------------------------------------------------------------------------------


def test_what_is_sent_back_is_a_list_that_pilot_run_takes_and_its_result_comes_first(tmp_path):
    make_run(tmp_path, ("review", "review"))
    desk = open_desk(tmp_path)
    vote(desk, ANNA, "again")
    (item,) = items.load(tmp_path / AGAIN)
    assert (item.name, item.source_prompt, item.words, item.again_of) == (
        "item-1.png",
        "a grey disc on a wall",
        "grey",
        key(1),
    )
    assert item.seed and item.error == "" and (item.folder / item.picture).is_file()
    with journal.Journal(tmp_path) as book:
        book.append(result(tmp_path, 9, "review", seed=item.seed) | {"again_of": key(1)})
    shown = desk.next(BEN)
    assert shown and shown.candidate.key == key(9)
    desk.undo(ANNA)
    assert (tmp_path / AGAIN).read_text() == ""


def drawn(size: tuple[int, int], box: tuple[int, ...] = ()) -> bytes:
    mask, out = Image.new("RGBA", size, (0, 0, 0, 255)), io.BytesIO()
    if box:
        mask.paste((255, 255, 255, 255), box)
    mask.save(out, "PNG")
    return out.getvalue()


def test_an_item_is_sent_back_with_a_mask_that_was_drawn(tmp_path):
    desk = open_desk(make_run(tmp_path, ["review"], size=48))
    for mask, said in (
        (drawn((48, 48)), "the mask is empty"),
        (drawn((40, 48), (0, 0, 9, 9)), "is 40x48 pixels, the picture 48x48"),
        (b"\x89PNG", "no PNG that can be read"),
    ):
        with pytest.raises(ReviewError, match=said):
            vote(desk, ANNA, "again", mask=mask)
    with pytest.raises(ReviewError, match="goes with what is sent back"):
        vote(desk, ANNA, "approve", mask=drawn((48, 48), (0, 0, 9, 9)))
    vote(desk, ANNA, "again", mask=drawn((48, 48), (8, 4, 30, 20)))
    (item,) = items.load(tmp_path / "again.jsonl")
    assert (item.use_mask, item.seed, item.again_of) == ("given", 0, key(1))
    with Image.open(tmp_path / str(item.mask)) as mask:
        assert mask.getbbox() == (8, 4, 30, 20)
    assert [line["mask"] for line in lines(tmp_path, "vote")] == [Path(str(item.mask)).stem]
    assert [task.mask for task in start.tasks([item], "auto")] == ["given"]


def test_a_reviewer_may_ask_for_another_eta_where_the_workflow_reads_one(tmp_path):
    make_run(tmp_path, ("review", "review"))
    desk = open_desk(tmp_path)
    with pytest.raises(ReviewError, match="an eta from 0 to 1"):
        vote(desk, ANNA, "again", eta=0.5)
    run = journal.load(tmp_path)
    assert run
    run["nodes"] = {"EtaSchedule 4": {"preset": "constant", "end_eta": 1.0}}
    journal.save(tmp_path, run)
    assert desk.next(ANNA) and desk.eta(desk.items()[0]) == 1.0
    vote(desk, ANNA, "again", eta=0.5)
    (item,) = items.load(tmp_path / AGAIN)
    assert (item.eta, item.seed, item.again_of) == (0.5, 0, key(1))
    with pytest.raises(ReviewError, match="an eta from 0 to 1"):
        vote(desk, ANNA, "again", eta=1.5)
    with pytest.raises(ReviewError, match="an eta from 0 to 1"):
        vote(desk, ANNA, "approve", eta=0.5)
    assert [line.get("eta") for line in lines(tmp_path, "vote")] == [0.5]


# --- the store ------------------------------------------------------------------------------------


def test_a_link_is_a_secret_that_the_store_does_not_hold(tmp_path):
    make_run(tmp_path, ("review",))
    store = Store(tmp_path)
    token = store.add_reviewer("Anna", "reviewer")
    assert len(token) == 64 and store.who(token) == ANNA and store.who("0" * 64) is None
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert token.encode() not in held and token_hash(token).encode() in held
    again = store.add_reviewer("Anna", "lead")
    assert store.who(token) is None and store.who(again) == Person("Anna", "lead")
    store.remove_reviewer("Anna")
    assert store.who(again) is None and store.reviewers() == []
    assert [line["link"] for line in lines(tmp_path, "reviewer")] == ["given", "given", "taken back"]


@pytest.mark.parametrize("name", ("", " Anna", "a\nb", "x" * 81))
def test_names_that_a_log_could_not_tell_apart_are_refused(tmp_path, name):
    make_run(tmp_path, ("review",))
    with pytest.raises(ReviewError, match="is no name"):
        Store(tmp_path).add_reviewer(name, "reviewer")


def test_eyes_do_not_change_under_votes(tmp_path):
    make_run(tmp_path, ("review", "review"))
    vote(open_desk(tmp_path, eyes=2), ANNA)
    assert open_desk(tmp_path).eyes == 2
    with pytest.raises(ReviewError, match="keep to it"):
        open_desk(tmp_path, eyes=1)


KILLED = """
import os, sys
from pathlib import Path
from pilot.review import audit, desk, store

def die(*_):
    os._exit(9)

def vote(folder, where):
    person = store.Person("Anna", "reviewer")
    one = desk.Desk(folder, store.Store(folder))
    shown = one.next(person)
    if where == "before the line":
        audit.append_locked = die
    elif where == "after the line":
        store.delete = die
    else:
        store.Store._log = die
    one.vote(person, shown.candidate.key, shown.candidate.binding, "approve")

for where in sys.argv[2:]:
    child = os.fork()
    if not child:
        vote(Path(sys.argv[1]) / where, where)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_kill_loses_no_vote_and_doubles_no_line(tmp_path):
    counts = {"before the vote": 0, "before the line": 1, "after the line": 1}
    for where in counts:
        make_run(tmp_path / where, ("review",), size=8)
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), *counts], cwd=ROOT, check=True)
    for where, votes in counts.items():
        folder = tmp_path / where
        assert open_desk(folder).outcomes() == {key(1): "approve" if votes else "open"}
        assert len(lines(folder, "vote")) == votes and audit.verify(folder).findings == ()


def test_a_database_that_cannot_be_used_is_told_in_words(tmp_path):
    make_run(tmp_path, ("review",))
    (tmp_path / "review.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(ReviewError, match="cannot be used: file is not a database"):
        Store(tmp_path)
    for url, said in (("mysql://x", "is of mysql"), ("nonsense", "is no address")):
        with pytest.raises(ReviewError, match=said):
            Store(tmp_path, url)


def test_sqlite_keeps_readers_beside_its_writer(tmp_path):
    make_run(tmp_path, ("review",))
    Store(tmp_path)
    with sqlite3.connect(tmp_path / "review.sqlite") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# --- rights ---------------------------------------------------------------------------------------


def test_rights_are_read_required_and_end(tmp_path):
    said = {"picture": "a.png", "source_prompt": "a cat", "target_prompt": "a dog"}
    full = said | {"consent": "A. Model, release 17", "rights": "licence 4", "rights_until": "2026-12-31"}
    listed = [said, said | {"consent": "x"}, full, full | {"rights_until": "31.12.2026"}]
    (tmp_path / "items.json").write_text(json.dumps(listed))
    bare, half, whole, wrong = items.load(tmp_path)
    today = date(2026, 12, 31)
    assert "no consent and no rights" in items.lacks_rights(bare, today)
    assert "no rights" in items.lacks_rights(half, today)
    assert items.lacks_rights(whole, today) == ""
    assert "ended on 2026-12-31" in items.lacks_rights(whole, date(2027, 1, 1))
    assert "it must be a day" in wrong.error and whole.unread == ()


def test_items_without_rights_are_those_of_older_runs(tmp_path):
    item = items.Item(1, "a", picture="a.png", source_prompt="a cat", target_prompt="a dog", words="cat")
    assert item.key == "86d46a060c94"
