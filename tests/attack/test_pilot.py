"""The pilot against a broken world: every item ends once, with the reason, in bounded time and memory."""

import json
import resource
import subprocess
import sys
import time

import pytest
from PIL import Image

from devtools.environment import ROOT
from pilot import cli, journal, lane, run, server
from tests.attack.broken import BREAKS, serving
from tests.attack.conftest import full_disk
from tests.pilot.test_workflow import main_graph

LIMIT_MB = 700


@pytest.fixture
def items(tmp_path):
    rows = []
    for name in ("a", "b"):
        Image.effect_noise((64, 64), 80).save(tmp_path / f"{name}.png")
        rows.append({"picture": f"{name}.png", "source_prompt": "a cat", "target_prompt": f"a dog {name}"})
    (tmp_path / "items.json").write_text(json.dumps(rows))
    (tmp_path / "workflow.json").write_text(json.dumps(main_graph()))
    return tmp_path / "items.json"


def command_line(items, address) -> list[str]:
    command = ["run", items, "--out", items.parent / "out", "--workflow", items.parent / "workflow.json"]
    return [*map(str, command), "--server", address, "--timeout", "1", "--patience", "0.5"]


def pilot(items, address, *more: str) -> int:
    return cli.main([*command_line(items, address), *more])


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_server_costs_its_items_and_nothing_else(items, capsys, monkeypatch, name):
    monkeypatch.setattr(lane, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(server, "MOST_BYTES", 2_000_000)
    broken = BREAKS[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with serving(broken) as address:
        status = pilot(items, address)
    told = "".join(capsys.readouterr())
    rows = journal.rows(items.parent / "out")
    assert broken.says in told and "Traceback" not in told
    assert len({row["key"] for row in rows}) == len(rows)
    if broken.outcome == "stops":
        assert status == 1 and all(row["status"] == "error" for row in rows), told
    else:
        assert status == 0 and len(rows) == 2, told
        first = "ok" if name == "one id for all" else broken.outcome
        assert broken.outcome in {row["status"] for row in rows} <= {first, broken.outcome}, told
    if sys.platform == "linux":
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < LIMIT_MB


STOPPING = [
    name
    for name, broken in BREAKS.items()
    if broken.outcome == "stops" and not {"/object_info", "/system_stats"} & set(broken.answers)
]


def beside_a_whole_one(items, monkeypatch, name: str, count: int) -> tuple[str, str, list[dict]]:
    """`count` items on a broken server and a whole one: their addresses, and a row for each item."""
    monkeypatch.setattr(lane, "POLL_SECONDS", 0.02)
    row = json.loads(items.read_text())[0]
    items.write_text(json.dumps([row | {"seed": seed} for seed in range(count)]))
    with serving(BREAKS[name]) as broken, serving(BREAKS["nothing at all"]) as whole:
        assert pilot(items, broken, "--server", whole) == 0
    rows = journal.rows(items.parent / "out")
    assert sorted(row["seed"] for row in rows) == list(range(count))
    return broken, whole, rows


@pytest.mark.parametrize("name", STOPPING)
def test_a_broken_server_beside_a_whole_one_stops_nothing(items, capsys, monkeypatch, name):
    monkeypatch.setattr(run, "GRACE_SECONDS", 0.1)
    broken, whole, rows = beside_a_whole_one(items, monkeypatch, name, 6)
    assert {row["server"] for row in rows if row["status"] == "ok"} == {whole}
    told = capsys.readouterr().out
    assert (
        f"{broken} does not answer as ComfyUI does" in told or f"{broken}: the server has not begun" in told
    )


@pytest.mark.parametrize("name", ["a queue that is forbidden", "a refusal in HTML"])
def test_what_one_server_refuses_and_another_does_is_no_error(items, capsys, monkeypatch, name):
    broken, whole, rows = beside_a_whole_one(items, monkeypatch, name, 12)
    assert {(row["status"], row["server"]) for row in rows} == {("ok", whole)}
    assert f"{broken}: it refuses what other servers do" in capsys.readouterr().out


def test_a_killed_pilot_goes_on_where_it_was(items, draw, rounds):
    """Killed at random moments and started again: in the end every item is there, once and whole."""
    _, row = json.loads(items.read_text())
    items.write_text(json.dumps([row | {"seed": seed} for seed in range(12)]))
    out = items.parent / "out"
    with serving(BREAKS["nothing at all"]) as address:
        command = [sys.executable, ROOT / "pilot", *command_line(items, address)]
        for _ in range(4 * rounds):
            started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(0.5 + 2 * draw.random())
            started.kill()
            started.wait()
        assert pilot(items, address) == 0
    rows = journal.rows(out)
    assert len({row["key"] for row in rows}) == len(rows) == 12
    assert {row["status"] for row in rows} == {"ok"}
    pictures = list(out.rglob("edited.png"))
    assert len(pictures) == 12
    for path in pictures:
        Image.open(path).load()


def test_a_full_disk_stops_the_pilot_in_words(items, capsys):
    items.write_text(json.dumps([json.loads(items.read_text())[0] | {"seed": seed} for seed in range(4)]))
    with serving(BREAKS["nothing at all"]) as address, full_disk(items.parent / "out"):
        status = pilot(items, address)
    told = "".join(capsys.readouterr())
    assert status == 1 and "No space left" in told and "Traceback" not in told


def test_what_the_pilot_writes_holds_no_secret(items, capsys):
    with serving(BREAKS["nothing at all"]) as address:
        address = address.replace("//", "//me:sesame@")
        setting = ["--set", "CheckpointLoaderSimple.ckpt_name=/home/me/models/x.png"]
        assert pilot(items, address, *setting) == 0
    out = items.parent / "out"
    written = "".join(
        path.read_text() for path in out.iterdir() if path.suffix in (".json", ".jsonl", ".html")
    )
    for secret in ("sesame", str(items.parent), "/home/me"):
        assert secret not in written + "".join(capsys.readouterr()).replace(str(out), "")
    (edited, _) = sorted(out.rglob("edited.png"))
    assert not Image.open(edited).info
