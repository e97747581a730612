"""The alarm of a run: when it rings, what it starts, and that it stands until a person ends it."""

import json
import os
import sys

import pytest

from pilot import alarm, journal, policy
from pilot.alarm import Watch
from pilot.policy import Alarm
from pilot.review import audit

RULES = Alarm(last=4, failures=1)


def row(number: int, verdict: str = "reject", **more) -> dict:
    status = {"status": "error", "error": "x"} if verdict == "error" else {"status": "ok", "verdict": verdict}
    return {"key": f"{number:012x}-auto", "name": f"item-{number}.png"} | status | more


def finish(folder, watch: Watch, rows: list[dict]) -> None:
    with journal.Journal(folder) as book:
        for one in rows:
            one |= watch.mark()
            book.append(one)
            watch.saw(one)
    watch.tell()


def actions(folder) -> list[str]:
    log = folder / audit.LOG
    return [json.loads(line)["action"] for line in log.read_bytes().splitlines()] if log.exists() else []


@pytest.mark.parametrize(
    ("verdicts", "rings"),
    [
        (["reject", "pass", "pass", "pass", "reject"], False),
        (["reject", "pass", "pass", "reject"], True),
        (["error", "reject"], True),
        (["review", "review", "review", "review"], False),
    ],
)
def test_it_rings_when_more_of_the_last_items_fail_than_the_policy_allows(tmp_path, verdicts, rings):
    watch = Watch(tmp_path, RULES)
    finish(tmp_path, watch, [row(n, verdict) for n, verdict in enumerate(verdicts)])
    assert (watch.rings is not None) == rings == (alarm.paused(tmp_path) is not None)
    assert actions(tmp_path) == ["alarm"] * rings


def test_what_a_policy_counts_as_failure_is_its_own(tmp_path):
    watch = Watch(tmp_path, Alarm(last=2, failures=1, counts=["review"]))
    finish(tmp_path, watch, [row(1), row(2), row(3, "review"), row(4, "review")])
    assert watch.rings and watch.rings.items == ["item-3.png", "item-4.png"]


def test_a_kill_between_the_row_and_the_ring_is_made_good_though_later_rows_passed(tmp_path):
    with journal.Journal(tmp_path) as book:
        for number, verdict in enumerate(["reject", "reject", "pass", "pass", "pass", "pass"]):
            book.append(row(number, verdict))
    assert Watch(tmp_path, RULES).rings and actions(tmp_path) == ["alarm"]


def write_down(folder) -> list[str]:
    """A command that adds what it gets to a file."""
    program = (
        "import json, os, sys; facts = json.load(sys.stdin); facts['env'] = os.environ['ETA_ALARM_ID']; "
        "facts['argv'] = sys.argv[2:]; print(json.dumps(facts), file=open(sys.argv[1], 'a'))"
    )
    return [sys.executable, "-c", program, str(folder / "told.jsonl")]


def test_the_command_gets_the_facts_once_and_no_shell_sees_its_words(tmp_path):
    command = [*write_down(tmp_path), "; touch gone", "$(touch gone)"]
    watch = Watch(tmp_path, RULES, command, {"policy": "p.json"})
    finish(tmp_path, watch, [row(1), row(2), row(3)])
    Watch(tmp_path, RULES, command).tell()
    (told,) = map(json.loads, (tmp_path / "told.jsonl").read_text().splitlines())
    assert watch.rings and told["id"] == told["env"] == watch.rings.id
    assert (told["failed"], told["of"], told["limit"], told["policy"]) == (2, 2, 1, "p.json")
    assert told["items"] == ["item-1.png", "item-2.png"] and told["argv"] == command[-2:]
    assert watch.rings.command == "ended with status 0" and actions(tmp_path) == ["alarm"]


def test_a_kill_before_the_command_leaves_it_to_the_next_program(tmp_path):
    finish(tmp_path, Watch(tmp_path, RULES), [row(1), row(2)])  # as killed: recorded, no command begun
    Watch(tmp_path, RULES, write_down(tmp_path)).tell()
    assert len((tmp_path / "told.jsonl").read_text().splitlines()) == 1
    assert actions(tmp_path) == ["alarm"]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("raise SystemExit(7)", "ended with status 7"),
        ("import time; time.sleep(99)", "had not ended after 0.2 s"),
        (None, "could not be started"),
    ],
)
def test_a_command_that_fails_or_hangs_is_told_and_hides_no_alarm(tmp_path, monkeypatch, program, said):
    monkeypatch.setattr(alarm, "COMMAND_SECONDS", 0.2 if "0.2" in said else 30.0)
    command = [sys.executable, "-c", program] if program else [str(tmp_path / "no such program")]
    watch = Watch(tmp_path, RULES, command)
    finish(tmp_path, watch, [row(1), row(2)])
    ring = alarm.paused(tmp_path)
    assert ring and said in ring.command and actions(tmp_path) == ["alarm"]


def test_after_a_person_ends_it_the_count_begins_anew_also_for_a_later_program(tmp_path):
    watch = Watch(tmp_path, RULES)
    finish(tmp_path, watch, [row(1), row(2)])
    watch.go_on("Olga")
    finish(tmp_path, watch, [row(3)])
    assert watch.rings is None
    later = Watch(tmp_path, RULES)
    assert later.rings is None
    finish(tmp_path, later, [row(4, "pass"), row(5)])
    first, second = alarm.load(tmp_path)
    assert first.continued and first.continued.who == "Olga"
    assert later.rings == second and second.items == ["item-3.png", "item-5.png"]
    assert actions(tmp_path) == ["alarm", "continue", "alarm"]


def test_a_policy_without_an_alarm_never_rings(tmp_path):
    watch = Watch(tmp_path, None)
    finish(tmp_path, watch, [row(n) for n in range(9)])
    assert watch.rings is None and not (tmp_path / alarm.FILE).exists()


def test_going_on_where_nothing_rings_is_refused(tmp_path):
    with pytest.raises(alarm.AlarmError, match="not paused"):
        Watch(tmp_path, RULES).go_on("Olga")


def test_a_damaged_file_is_named_and_does_not_end_the_pause(tmp_path):
    (tmp_path / alarm.FILE).write_text('{"rings": [{}]}')
    with pytest.raises(alarm.AlarmError, match="alarm.json is damaged"):
        Watch(tmp_path, RULES)


@pytest.mark.parametrize("command", ["'no end", "no-such-program --now", " "])
def test_a_command_that_cannot_run_is_refused_before_the_run(command):
    with pytest.raises(alarm.AlarmError, match="--on-alarm"):
        alarm.parse(command)


def test_a_command_is_split_into_words_as_a_posix_shell_does():
    program = sys.executable.replace(os.sep, "/")
    assert alarm.parse(f"'{program}' -m 'a b' \"$HOME\"") == [program, "-m", "a b", "$HOME"]


def test_every_template_with_an_alarm_can_ring():
    found = [policy.load(name).rules.alarm for name in policy.TEMPLATES]
    assert any(found) and all(one.failures < one.last for one in found if one)
