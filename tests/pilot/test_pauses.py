"""Alarms, Ctrl-C, and servers that fail or come back in their midst; the servers are in memory."""

import hashlib
import json
import signal
import sys
import time
from collections import Counter

import pytest
from PIL import Image

from pilot import alarm, cli, journal, start
from pilot.review import audit
from pilot.server import Refused, Unreachable
from tests.pilot.pretend import Pretend, at_once
from tests.pilot.test_workflow import main_graph

REJECTS = {"limits": {"background_psnr": {"pass": {"min": 500}}}}
PASSES = {"limits": {"background_psnr": {"pass": {"min": 1}}}}
ALARM = {"alarm": {"last": 4, "failures": 1}}


class Bench:
    """A list, a workflow and servers, and the pilot on them."""

    def __init__(self, folder):
        self.folder, self.out, self.servers = folder, folder / "out", {}
        self.policy, self.models = folder / "policy.json", folder / "models"
        (self.models / "checkpoints").mkdir(parents=True)
        (folder / "workflow.json").write_text(json.dumps(main_graph()))
        Image.effect_noise((64, 64), 80).save(folder / "a.png")

    def starts(self, *names: str) -> list[Pretend]:
        self.servers = {f"http://{name}": Pretend(f"http://{name}") for name in names}
        return list(self.servers.values())

    def weights(self, name: str, content: bytes) -> None:
        (self.models / "checkpoints" / name).write_bytes(content)

    def lists(self, count: int, policy: dict, **more) -> None:
        one = {"picture": "a.png", "source_prompt": "a cat", "target_prompt": "a dog"}
        rows = [one | {"name": f"{seed}", "seed": seed} | more for seed in range(count)]
        (self.folder / "items.json").write_text(json.dumps(rows))
        self.policy.write_text(json.dumps(policy))

    def run(self, *more: str) -> int:
        command = ["run", self.folder / "items.json", "--out", self.out, "--policy", self.policy]
        command += ["--workflow", self.folder / "workflow.json", "--models", self.models]
        command += [part for address in self.servers for part in ("--server", address)]
        return cli.main([*map(str, command), *more])

    def rows(self) -> list[dict]:
        return journal.rows(self.out)

    def report(self) -> str:
        return (self.out / "report.html").read_text(encoding="utf-8")

    def finish(self, count: int) -> None:
        """Go on until the run is done, and look whether each item is there once."""
        while (status := self.run("--continue")) == alarm.PAUSED:
            pass
        assert status == 0 and audit.verify(self.out).findings == ()
        assert Counter(row["seed"] for row in self.rows()) == dict.fromkeys(range(count), 1)
        assert {row["status"] for row in self.rows()} == {"ok"}


@pytest.fixture
def bench(tmp_path, monkeypatch):
    at_once(monkeypatch)
    made = Bench(tmp_path)
    monkeypatch.setattr(start, "Server", lambda address, _: made.servers[address])
    return made


@pytest.fixture
def ctrl_c():
    """Python's own Ctrl-C, which a shell's background job does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def at(number: int, act):
    """Act when a server begins its item of this number, from 1."""
    return lambda server: act() if len(server.begun) == number - 1 else None


def during(number: int, act):
    """Act once, when that item runs and was looked at."""
    acted = []
    return lambda server: (
        acted.append(act()) if len(server.begun) == number and server.looked and not acted else None
    )


def test_an_alarm_pauses_a_run_though_a_server_left_with_its_items(bench):
    one, other = bench.starts("one", "other")
    bench.lists(8, REJECTS | ALARM)
    other.begins = at(1, other.leave)
    assert bench.run() == alarm.PAUSED
    assert one.held == [] and len(bench.rows()) == len(one.begun) < 8
    assert "This run is paused by its alarm." in bench.report()
    other.fails, other.begins = None, lambda _: None
    bench.finish(8)
    assert set(one.begun).isdisjoint(other.begun) and len(one.begun + other.begun) == 8
    assert "Paused, and continued" in bench.report()


@pytest.mark.parametrize("error", [Unreachable("it is gone"), Refused("it has had enough")], ids=repr)
def test_an_alarm_is_told_though_the_only_server_fails_before_what_runs_has_ended(bench, capsys, error):
    (one,) = bench.starts("one")
    bench.lists(5, REJECTS | ALARM)
    one.runs = during(3, lambda: setattr(one, "fails", error))
    assert bench.run("--patience", "9") == alarm.PAUSED
    told = capsys.readouterr()
    assert str(error) in told.out and "pilot: paused" in told.err and len(bench.rows()) == 2
    one.restart()
    one.runs = lambda _: None
    bench.finish(5)


def test_the_command_of_an_alarm_is_run_when_nothing_runs_any_more(bench, monkeypatch):
    servers, seen = bench.starts("one", "other"), []
    bench.lists(9, REJECTS | ALARM)
    monkeypatch.setattr(
        alarm, "_run", lambda *_: seen.append([one.held for one in servers]) or "ended with status 0"
    )
    assert bench.run("--on-alarm", sys.executable) == alarm.PAUSED
    assert seen == [[[], []]] and len(bench.rows()) == sum(len(one.begun) for one in servers) < 9
    assert "ended with status 0" in bench.report()
    assert bench.run("--on-alarm", sys.executable) == alarm.PAUSED and len(seen) == 1


def test_an_alarm_among_what_may_end_after_ctrl_c_says_how_to_go_on(bench, ctrl_c, capsys):
    (one,) = bench.starts("one")
    bench.lists(5, REJECTS | ALARM)
    one.begins = at(2, ctrl_c)
    assert bench.run() == alarm.PAUSED
    told = capsys.readouterr()
    assert "Ctrl-C again interrupts it" in told.out and "--continue" in told.err
    assert len(bench.rows()) == len(one.begun) == 2
    bench.finish(5)


def test_a_second_ctrl_c_leaves_an_alarm_and_its_command_to_the_next_call(bench, ctrl_c):
    (one,) = bench.starts("one")
    bench.lists(5, REJECTS | ALARM)

    def twice() -> None:
        ctrl_c()
        time.sleep(0.05)
        ctrl_c()

    one.begins = at(3, twice)  # the alarm has rung, or rings
    command = f"'{sys.executable}' -c \"open('{(bench.folder / 'told').as_posix()}', 'a').write('x')\""
    assert bench.run("--on-alarm", command) in (cli.BY_CTRL_C, alarm.PAUSED)
    assert one.held == [] and len(bench.rows()) == 2
    assert bench.run("--on-alarm", command) == alarm.PAUSED
    assert (bench.folder / "told").read_text() == "x"
    one.begins = lambda _: None
    bench.finish(5)


def test_what_runs_may_end_after_ctrl_c_though_its_server_misses_a_request(bench, ctrl_c):
    (one,) = bench.starts("one")
    bench.lists(5, PASSES)
    one.begins = at(2, ctrl_c)
    one.runs = during(2, lambda: setattr(one, "misses", 2))
    assert bench.run() == cli.BY_CTRL_C
    assert len(bench.rows()) == len(one.begun) == 2 and one.misses == 0
    assert bench.run() == 0 and len(bench.rows()) == len(one.begun) == 5


def test_what_one_server_refuses_while_the_alarm_rings_is_left_to_the_next_run(bench):
    one, other = bench.starts("one", "other")
    bench.lists(8, REJECTS | ALARM)

    def refuse(_) -> None:
        until = time.monotonic() + 20
        while not alarm.paused(bench.out) and time.monotonic() < until:
            time.sleep(0.005)
        raise Refused("no")

    other.submits = refuse
    assert bench.run() == alarm.PAUSED and {row["status"] for row in bench.rows()} == {"ok"}
    other.submits = lambda _: None
    bench.finish(8)


def test_a_server_that_came_back_without_a_node_gets_no_more_items(bench, capsys):
    one, other = bench.starts("one", "other")
    bench.lists(14, PASSES)
    other.begins = at(2, other.leave)

    def back() -> None:
        other.restart()
        del other.nodes["EtaSampler"]

    one.begins = at(4, back)
    assert bench.run() == 0
    assert "http://other: it came back, but the server has no node EtaSampler" in capsys.readouterr().out
    assert Counter(row["seed"] for row in bench.rows()) == dict.fromkeys(range(14), 1)
    assert len(other.begun) == 1 and {row["status"] for row in bench.rows()} == {"ok"}


def test_the_only_server_that_came_back_with_other_weights_ends_the_run(bench, capsys):
    (one,) = bench.starts("one")
    bench.lists(4, PASSES)
    bench.weights("sd14.safetensors", b"these")

    def change() -> None:
        one.restart()
        one.misses = 3
        bench.weights("sd14.safetensors", b"others")

    one.runs = during(2, change)
    assert bench.run() == 1
    said = capsys.readouterr().err
    assert "http://one: it came back, but sd14.safetensors is another file than this run began with" in said
    assert len(bench.rows()) == 1 and len(one.begun) == 2
    one.runs = lambda _: None
    bench.weights("sd14.safetensors", b"these")
    assert bench.run() == 0 and len(bench.rows()) == 4


def test_errors_that_are_done_again_count_no_more(bench):
    bench.starts("one")
    bench.lists(3, PASSES | {"alarm": {"last": 4, "failures": 2}})
    (bench.folder / "a.png").rename(bench.folder / "b.png")
    rows = json.loads((bench.folder / "items.json").read_text())
    rows[0]["picture"] = "b.png"
    (bench.folder / "items.json").write_text(json.dumps(rows))
    for _ in range(2):
        assert bench.run("--retry-errors") == 0
        assert Counter(row["status"] for row in bench.rows()) == {"ok": 1, "error": 2}


def test_an_alarm_that_a_kill_kept_from_being_written_loses_no_error_to_a_retry(bench):
    bench.starts("one")
    bench.lists(3, PASSES | ALARM, picture="missing.png")
    assert bench.run() == alarm.PAUSED
    before = bench.rows()
    (bench.out / alarm.FILE).unlink()  # as after a kill between the last row and the ring
    assert bench.run("--retry-errors") == alarm.PAUSED
    assert bench.rows() == before and len(before) == 2


def test_a_policy_may_ask_for_rights(bench):
    (one,) = bench.starts("one")
    bench.lists(2, PASSES | {"rights": True})
    rows = json.loads((bench.folder / "items.json").read_text())
    rows[1] |= {"consent": "release 17", "rights": "licence 4"}
    (bench.folder / "items.json").write_text(json.dumps(rows))
    assert bench.run() == 0 and len(one.begun) == 1
    without, having = sorted(bench.rows(), key=lambda row: row.get("seed", -1))
    assert "no consent and no rights" in without["error"] and having["status"] == "ok"


def test_no_model_is_run_before_the_policy_lists_them_all(bench, capsys):
    (one,) = bench.starts("one")
    bench.weights("old.safetensors", b"old")
    bench.weights("new.safetensors", b"new")
    listed = [{"name": "old.safetensors", "sha256": hashlib.sha256(b"old").hexdigest()}]
    bench.lists(2, PASSES | {"models": listed})
    models = ("--model", "old.safetensors", "--model", "new.safetensors")
    assert bench.run(*models) == 1
    said = capsys.readouterr().err
    assert "does not list new.safetensors" in said and "old.safetensors, " not in said
    assert one.begun == [] and not bench.out.exists()
    assert bench.run(*models, "--unchecked") == 0 and len(one.begun) == 4
    reports = [(bench.out / name / "report.html").read_text(encoding="utf-8") for name in ("old", "new")]
    assert ["Run by --unchecked." in report for report in reports] == [False, True]
    assert "Run by --unchecked. </b>new: weights" in (bench.out / "compare.html").read_text(encoding="utf-8")
