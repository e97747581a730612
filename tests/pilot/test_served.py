"""Whole runs on the real server with the embedded model."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

import dev
from pilot import journal, workflow
from pilot.server import Server
from pilot.workflow import Clip, WorkflowError, form

ROOT = dev.ROOT
sys.path.append(str(ROOT / "demo"))
import pie_set  # noqa: E402
import scenes  # noqa: E402
from prepare import prepare  # noqa: E402

SECONDS = 120
CAT = {"source_prompt": "a cat on the grass", "target_prompt": "a dog on the grass"}
# workflow -> (mask of the run, what is said where it cannot take an item)
EXAMPLES = {
    "A batch of pictures": ("auto", "3 LoadImage nodes"),
    "Change one thing in a photo": ("auto", ""),
    "Compare etas in a grid": ("auto", "--edited"),
    "Gallery of variants": ("auto", ""),
    "Keep the layout with Plug-and-Play": ("none", ""),
    "Keep the pose with Prompt-to-Prompt": ("auto", ""),
    "Keep the texture with MasaCtrl": ("auto", ""),
    "Only inside my mask": ("auto", "--mask given"),
    "Two edits at once": ("none", "second target prompt"),
    "With ControlNet": ("none", ""),
    "With a LoRA": ("none", ""),
}


class Host:
    """The real server on a port and a base directory of its own; it can be killed and started again."""

    def __init__(self, base: Path):
        self.environment = dev.environment()._replace(base=base)
        self.port, self.log = dev.free_port(), base / "server.log"
        self.address = f"http://127.0.0.1:{self.port}"
        dev.make_base(base)
        (base / "custom_nodes" / dev.PACK).symlink_to(ROOT, target_is_directory=True)
        prepare(base)

    def start(self) -> None:
        with open(self.log, "ab") as output:
            command = dev.server_command(self.environment, self.port)
            environ = {**dev.child_environ(self.environment), "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=environ)
        dev.wait_for_server(self.process, self.port, "127.0.0.1", self.log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def prompts(self) -> int:
        """How many it was ever given."""
        return self.log.read_text(errors="replace").count("got prompt")


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    host = Host(tmp_path_factory.mktemp("base"))
    host.start()
    yield host
    host.kill()


@pytest.fixture(scope="module")
def server(host) -> Server:
    return Server(host.address)


@pytest.fixture
def pilot(host):
    """pilot(arguments) -> the running program."""
    begun = []

    def start(*arguments: object) -> subprocess.Popen:
        command = [sys.executable, ROOT / "pilot", *arguments, "--server", host.address, "--max-side", "128"]
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        begun.append(
            subprocess.Popen(
                [str(part) for part in command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=environ,
            )
        )
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.wait()


def finished(process: subprocess.Popen, status: int = 0) -> str:
    told, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == status, told
    return told


def until(happened, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def cat(folder: Path, name: str, number: int = 7) -> dict:
    Image.fromarray(scenes.render(scenes.TEST + number, "cat", "grass").image).save(folder / name)
    return CAT | {"picture": name}


def listed(folder: Path, rows: list) -> Path:
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def many(folder: Path) -> tuple[Path, dict[str, str]]:
    """A list of edits and of everything that can be wrong with one -> it, and what is to be said of each picture."""
    (folder / "empty.png").touch()
    (folder / "damaged.png").write_bytes(Image.effect_noise((99, 99), 80)._repr_png_()[:2000])
    Image.fromarray(scenes.render(scenes.TEST + 8, "cat", "grass").image).resize((5000, 4000)).save(
        folder / "20 megapixels.jpg"
    )
    rows = [
        cat(folder, "one.png"),
        CAT | {"picture": "damaged.png"},
        cat(folder, "кот 猫 ñ.png", 11),
        CAT | {"picture": "missing.png"},
        CAT | {"picture": "empty.png"},
        CAT | {"picture": "20 megapixels.jpg"},
        {"photo": "one.png", "from": "a cat", "name": "wrong columns"},
        cat(folder, "no such word.png", 18) | {"words": "zebra"},
        cat(folder, "no mask.png", 13) | {"mask": "missing mask.png"},
        cat(folder, "no words.png", 12) | {"target_prompt": "a cat on the grass in the sky"},
        cat(folder, "last.png", 14) | {"seed": 5, "category": "<b>cats</b>"},
    ]
    said = dict.fromkeys(["one.png", "кот 猫 ñ.png", "20 megapixels.jpg", "no words.png", "last.png"], "")
    said |= {
        "damaged.png": "cannot be read",
        "missing.png": "there is no",
        "empty.png": "is empty (0 bytes)",
        "wrong columns": "no column picture, source_prompt, target_prompt",
        "no such word.png": "zebra",
        "no mask.png": "there is no",
    }
    return listed(folder, rows), said


def test_a_run_that_is_killed_twice_has_every_item_exactly_once(pilot, host, server, tmp_path):
    items, said = many(tmp_path)
    out, before = tmp_path / "out", host.prompts()
    command = ("run", items, "--out", out, "--set", "EtaInversion.steps=3")

    def edits() -> int:
        return sum(row["status"] == "ok" for row in journal.rows(out))

    for count in (1, 3):
        process = pilot(*command)
        until(lambda count=count: edits() >= count, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with open(out / journal.RESULTS, "ab") as results:
            results.write(b'{"key": "half a li')
    assert edits() < 5
    told = finished(pilot(*command))

    rows = journal.rows(out)
    assert Counter(row["name"] for row in rows) == dict.fromkeys(said, 1)
    for row in rows:
        assert row["status"] == ("error" if said[row["name"]] else "ok")
        assert said[row["name"]] in row.get("error", "")
    assert host.prompts() - before == 6  # five edits and the unknown word: nothing was done twice
    assert "[11/11]" in told and "6 error" in told

    by_name = {row["name"]: row for row in rows}
    big, plain = by_name["20 megapixels.jpg"], by_name["one.png"]
    assert (big["given_size"], big["size"]) == ([5000, 4000], [128, 96])
    assert (plain["mask"], by_name["no words.png"]["mask"]) == ("auto", "none")
    assert (plain["seed"], by_name["last.png"]["seed"]) == (0, 5)
    assert {"source", "edited", "mask", "heatmap"} == set(plain["files"]) and {"source", "edited"} == set(
        by_name["no words.png"]["files"]
    )
    for name in plain["files"].values():
        assert Image.open(out / name).size == (128, 128)
    assert plain["figures"][0]["background_psnr"] > 20 and plain["verdict"] in ("pass", "review", "reject")
    about = json.loads((out / journal.RUN).read_text())
    assert len(about["models"]["eta_demo.safetensors"]["sha256"]) == 64 and about["server"]["comfyui_version"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "кот 猫 ñ.png" in page and "&lt;b&gt;cats&lt;/b&gt;" in page and "<b>cats" not in page
    assert server.queue() == (set(), set())

    again = finished(pilot(*command))
    assert journal.rows(out) == rows and "[11/11]" not in again
    assert "policy was" in finished(pilot(*command, "--policy", "free"), 1)

    (tmp_path / "missing.png").write_bytes((tmp_path / "one.png").read_bytes())
    finished(pilot(*command, "--retry-errors", "--limit", "4"))
    names = [row["name"] for row in journal.rows(out) if row["status"] == "ok"]
    assert len(names) == 6 and names[-1] == "missing.png"


def test_ctrl_c_takes_everything_back_from_the_server(pilot, server, tmp_path):
    items, out = listed(tmp_path, [cat(tmp_path, "a.png"), cat(tmp_path, "b.png")]), tmp_path / "out"
    process = pilot("run", items, "--out", out, "--set", "EtaInversion.steps=500")
    until(lambda: all(server.queue()), process)
    process.send_signal(signal.SIGINT)
    assert "the same command goes on" in finished(process, 130)
    assert server.queue() == (set(), set()) and journal.rows(out) == []


def test_an_item_that_takes_too_long_is_stopped_and_the_next_one_runs(pilot, tmp_path):
    """The second item has a wrong word, on which the server gives up at once."""
    rows = [cat(tmp_path, "slow.png"), cat(tmp_path, "b.png") | {"words": "zebra"}]
    out = tmp_path / "out"
    finished(pilot("run", listed(tmp_path, rows), "--out", out, "--set", "EtaInversion.steps=40", "--timeout", 2))
    slow, other = journal.rows(out)
    assert slow["error"] == "stopped after 2 s (--timeout)" and slow["seconds"] < 30
    assert other["name"] == "b.png"


def test_a_run_outlives_its_server(pilot, host, server, tmp_path):
    rows = [cat(tmp_path, f"{n}.png") | {"seed": n} for n in range(4)]
    out = tmp_path / "out"
    process = pilot("run", listed(tmp_path, rows), "--out", out, "--set", "EtaInversion.steps=3", "--window", 3)
    until(lambda: journal.rows(out), process)
    host.kill()
    host.start()
    told = finished(process)
    assert "does not answer" in told
    assert [(row["name"], row["status"]) for row in journal.rows(out)] == [(f"{n}.png", "ok") for n in range(4)]


def test_a_server_that_stays_away_ends_the_run_and_leaves_the_folder(pilot, tmp_path):
    items = listed(tmp_path, [cat(tmp_path, "a.png")])
    told = finished(pilot("run", items, "--out", tmp_path / "out", "--server", "http://127.0.0.1:9"), 1)
    assert told.startswith("pilot: http://127.0.0.1:9 does not answer")


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_workflows_take_items_or_say_what_they_lack(server, name):
    graph = workflow.read(ROOT / "example_workflows" / f"{name}.json", server.object_info())
    scored, lacks = EXAMPLES[name]
    if lacks:
        with pytest.raises(WorkflowError, match=lacks):
            form(graph, "auto", False, Clip())
        return
    found = form(graph, "auto", False, Clip())
    slots = {
        value.text
        for node in found.graph.values()
        for value in node["inputs"].values()
        if isinstance(value, workflow.Slot)
    }
    assert {"{picture}", "{source}", "{target}", "{seed}"} <= slots
    assert found.scored == scored and ("{words}" in slots) == (scored == "auto")
    assert form(graph, "given", True, Clip()).scored == "given"


def test_no_example_workflow_is_forgotten():
    assert set(EXAMPLES) == {path.stem for path in (ROOT / "example_workflows").glob("*.json")}


def test_several_pictures_of_an_item_are_each_measured(pilot, tmp_path):
    path = ROOT / "example_workflows" / "Gallery of variants.json"
    settings = ("--set", "EtaInversion.steps=2", "--set", "EtaSampler.variants=2")
    finished(
        pilot(
            "run", listed(tmp_path, [cat(tmp_path, "a.png")]), "--out", tmp_path / "out", "--workflow", path, *settings
        )
    )
    (row,) = journal.rows(tmp_path / "out")
    assert len(row["figures"]) == 2 and {"edited", "edited_2"} <= set(row["files"])


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    pie_set.write(folder, 3)
    return folder


def test_a_benchmark_runs_with_its_own_and_with_the_given_masks(pilot, bench, tmp_path):
    out = tmp_path / "out"
    told = finished(pilot("run", bench, "--out", out, "--mask", "both", "--limit", 2, "--set", "EtaInversion.steps=2"))
    rows = journal.rows(out)
    assert [(row["name"][-1], row["mode"], row["mask"], row["scored"]) for row in rows] == [
        ("0", "auto", "auto", "given"),
        ("0", "given", "given", "given"),
        ("1", "auto", "auto", "given"),
        ("1", "given", "given", "given"),
    ]
    for row in rows:
        used, theirs = (Image.open(out / row["files"][name]).convert("L") for name in ("mask", "given_mask"))
        assert theirs.size == (128, 128) and theirs.getpixel((0, 64)) == 255
        assert (used.tobytes() == theirs.tobytes()) == (row["mode"] == "given")
        assert row["figures"][0]["pie_psnr"] > row["figures"][0]["background_psnr"]
    assert "The workflow's own mask: " in told and "The given mask: " in told


def test_the_benchmarks_table(pilot, bench, tmp_path):
    told = finished(
        pilot(
            "pie",
            bench,
            "--out",
            tmp_path / "table",
            "--checkpoint",
            "eta_demo.safetensors",
            "--steps",
            2,
            "--limit",
            1,
        )
    )
    assert " error " not in told.replace("0 error", "")
    lines = [
        line.split(" | ")
        for line in (tmp_path / "table" / "table.md").read_text().splitlines()
        if "published" not in line
    ]
    measured = {line[0].strip("| "): line[1:] for line in lines[2:9]}
    assert len(measured) == 7 and all(line[:2] == ["1", "0"] and float(line[3]) > 10 for line in measured.values())
    assert measured["Eta Inversion + PtP, auto mask"] != measured["Eta Inversion + PtP, given mask"]
