import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pilot import journal
from pilot.journal import Journal, JournalError

ROOT = Path(__file__).resolve().parents[2]


def row(key: str, status: str = "ok", **more) -> dict:
    return {"key": key, "status": status, **more}


def line(key: str, **more) -> bytes:
    return json.dumps(row(key, **more)).encode() + b"\n"


def test_rows_are_there_in_order_and_known_the_next_time(tmp_path):
    with Journal(tmp_path / "new" / "run") as book:
        for key in "abc":
            book.append(row(key, name="кот\u2028"))
        assert book.keys == set("abc")
    with Journal(tmp_path / "new" / "run") as book:
        assert book.keys == set("abc")
        book.append(row("d"))
    assert [found["key"] for found in journal.rows(tmp_path / "new" / "run")] == list("abcd")


@pytest.mark.parametrize(
    "half",
    [
        b'{"key": "c", "status": "o',
        b'{"key": "c", "status": "ok"}',
        b"\0" * 40,
        b'"c"\n',
        b'{"key": "c"}\n',
        b'{"key": ["c"], "status": "ok"}\n',
        b"\xff\xfe\n",
    ],
)
def test_what_a_crash_left_is_dropped_and_its_item_not_taken_for_done(tmp_path, half):
    (tmp_path / "results.jsonl").write_bytes(line("a") + line("b") + half)
    with Journal(tmp_path) as book:
        assert book.keys == {"a", "b"}
        book.append(row("c"))
    assert (tmp_path / "results.jsonl").read_bytes() == line("a") + line("b") + line("c")


def test_a_broken_line_in_the_middle_costs_only_itself(tmp_path):
    (tmp_path / "results.jsonl").write_bytes(line("a") + b"\0\0\0\n" + line("b") + line("a", name="again"))
    with Journal(tmp_path) as book:
        assert book.keys == {"a", "b"}
    assert (tmp_path / "results.jsonl").read_bytes() == line("a") + line("b")


def test_items_that_failed_can_be_done_again(tmp_path):
    with Journal(tmp_path) as book:
        for found in (row("a"), row("b", "error"), row("c")):
            book.append(found)
        book.drop_errors()
        assert book.keys == {"a", "c"}
        book.append(row("b"))
    assert [found["key"] for found in journal.rows(tmp_path)] == ["a", "c", "b"]


def test_one_program_at_a_time(tmp_path):
    with Journal(tmp_path), pytest.raises(JournalError, match="another pilot"):
        Journal(tmp_path).__enter__()
    with Journal(tmp_path):
        pass


def test_a_killed_writer_leaves_whole_rows_and_no_lock(tmp_path):
    code = f"""
from pathlib import Path
from itertools import count
from pilot.journal import Journal
with Journal(Path({str(tmp_path)!r})) as book:
    for n in count():
        book.append({{"key": str(n), "status": "ok", "name": "x" * 5000}})
"""
    writer = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    results, until = tmp_path / "results.jsonl", time.monotonic() + 20
    while not (results.exists() and results.stat().st_size > 100_000) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    with Journal(tmp_path) as book:
        assert book.keys == {str(n) for n in range(len(book.keys))} and len(book.keys) >= 19


def test_a_folder_keeps_to_the_settings_it_began_with(tmp_path):
    first = journal.settle(tmp_path, {"seed": 0, "set": []})
    assert journal.settle(tmp_path, {"seed": 0, "set": []}) == first
    with pytest.raises(JournalError, match=r"other settings \(seed was 0\)"):
        journal.settle(tmp_path, {"seed": 1, "set": []})


@pytest.mark.parametrize("left", ["", '{"id": "x", "sett', "[]", '{"id": "x"}'])
def test_a_damaged_run_says_so(tmp_path, left):
    (tmp_path / "run.json").write_text(left)
    for use in (lambda: journal.settle(tmp_path, {}), lambda: journal.load(tmp_path)):
        with pytest.raises(JournalError, match="run.json is damaged"):
            use()


def test_results_without_what_says_how_they_were_made_are_not_gone_on_with(tmp_path):
    (tmp_path / "results.jsonl").write_bytes(line("a"))
    with pytest.raises(JournalError, match="run.json .* is gone"):
        journal.settle(tmp_path, {"seed": 1})
    assert not (tmp_path / "run.json").exists()


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    journal.write(tmp_path / "a" / "b.png", b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError):
        journal.write(tmp_path / "a" / "b.png", b"new")
    assert (tmp_path / "a" / "b.png").read_bytes() == b"old"
