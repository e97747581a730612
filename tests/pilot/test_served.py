"""Whole runs on the real server with the embedded model."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from devtools import pie_set
from devtools.demo import scenes
from devtools.demo.prepare import CHECKPOINT, prepare
from devtools.environment import PACK, ROOT, child_environ, environment, make_base
from devtools.server import free_port, server_command, wait_for_server
from pilot import cli, journal, pie_table, workflow
from pilot.review import audit
from pilot.review.desk import Desk
from pilot.review.store import Person, Store
from pilot.server import Server
from pilot.workflow import Clip, WorkflowError, form

SECONDS = 120
SIDE = 64
CAT = {"source_prompt": "a cat on the grass", "target_prompt": "a dog on the grass"}
# workflow -> (mask of the run, what is said where it cannot take an item)
# A shell's background jobs, such as these tests may be, ignore Ctrl-C.
HEARING = (
    "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv.pop(0); "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)

EXAMPLES = {
    "A batch of pictures": ("none", "2 LoadImage nodes"),
    "A large photograph": ("auto", "--mask given"),
    "Change one thing in a photo": ("auto", ""),
    "Compare etas in a grid": ("auto", "--edited"),
    "Approve before saving": ("auto", ""),
    "Edit with Flux 2 Klein": ("auto", ""),
    "Edit with Qwen-Image": ("auto", ""),
    "Edit with Z-Image Turbo": ("auto", ""),
    "Find the eta for your pictures": ("auto", "--edited"),
    "Gallery of variants": ("auto", ""),
    "Keep the layout with Plug-and-Play": ("none", ""),
    "Keep the rest of any edit": ("none", "no Eta Inversion and Eta Sampler"),
    "Keep the pose with Prompt-to-Prompt": ("auto", ""),
    "Keep the texture with MasaCtrl": ("auto", ""),
    "Measure an edit and hold back what fails": ("auto", ""),
    "Only inside my mask": ("auto", "--mask given"),
    "Two edits at once": ("none", "second target prompt"),
    "With ControlNet": ("auto", ""),
    "With a LoRA": ("none", ""),
    "With SAM's mask": ("auto", ""),
}


class Host:
    """The real server on a port and a base directory of its own; it can be killed and started again."""

    def __init__(self, base: Path):
        self.environment = environment()._replace(base=base)
        self.port, self.log = free_port(), base / "server.log"
        self.address = f"http://127.0.0.1:{self.port}"
        make_base(base)
        (base / "custom_nodes" / PACK).symlink_to(ROOT, target_is_directory=True)
        prepare(base)

    def start(self) -> None:
        with open(self.log, "wb") as output:
            command = server_command(self.environment, self.port)
            environ = {**child_environ(self.environment), "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=environ)
        wait_for_server(self.process, self.port, "127.0.0.1", self.log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def prompts(self) -> int:
        """How many it was given since it was started."""
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
def arguments(host):
    """arguments(...) -> those of a run on this server."""
    return lambda *given: [str(part) for part in (*given, "--server", host.address, "--max-side", str(SIDE))]


@pytest.fixture
def pilot(arguments):
    """pilot(...) -> the running program."""
    begun = []

    def start(*given: object) -> subprocess.Popen:
        command = [sys.executable, "-c", HEARING, str(ROOT / "pilot"), *arguments(*given)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "encoding": "utf-8"}
        # a log that cannot spell every name
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii"}
        begun.append(subprocess.Popen(command, **streams, env=environ))
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
    """A list of edits and of everything that can be wrong with one -> it, and what is to be said of each
    item.
    """
    (folder / "empty.png").touch()
    (folder / "damaged.png").write_bytes(Image.effect_noise((99, 99), 80)._repr_png_()[:2000])
    Image.fromarray(scenes.render(scenes.TEST + 8, "cat", "grass").image).resize((5000, 4000)).save(
        folder / "20 megapixels.jpg"
    )
    rows = [
        cat(folder, "one.png"),
        CAT | {"picture": "damaged.png"},
        cat(folder, "кот 猫 ñ.png", 11) | {"seed": 5, "category": "<b>cats</b>"},
        CAT | {"picture": "missing.png"},
        CAT | {"picture": "empty.png"},
        CAT | {"picture": "20 megapixels.jpg"},
        {"photo": "one.png", "from": "a cat", "name": "wrong columns"},
        cat(folder, "no such word.png", 18) | {"words": "zebra"},
        cat(folder, "no mask.png", 13) | {"mask": "missing mask.png"},
        cat(folder, "no words.png", 12) | {"target_prompt": "a cat on the grass in the sky"},
    ]
    said = dict.fromkeys(["one.png", "кот 猫 ñ.png", "20 megapixels.jpg", "no words.png"], "")
    said |= {
        "damaged.png": "cannot be read",
        "missing.png": "there is no",
        "empty.png": "is empty (0 bytes)",
        "wrong columns": "no column picture, source_prompt, target_prompt",
        "no such word.png": "zebra",
        "no mask.png": "there is no",
    }
    return listed(folder, rows), said


def test_a_run_whose_server_and_then_itself_are_killed_has_every_item_exactly_once(
    pilot, host, server, tmp_path
):
    items, said = many(tmp_path)
    out = tmp_path / "out"
    command = ("run", items, "--out", out, "--set", "EtaInversion.steps=2")

    def reached() -> list[dict]:
        """What needed the server."""
        return [
            row for row in journal.rows(out) if row["status"] == "ok" or row["name"] == "no such word.png"
        ]

    process = pilot(*command)
    until(reached, process)
    host.kill()
    time.sleep(0.5)  # what it had answered is written down
    before = journal.rows(out)
    done = len(reached())
    host.start()
    until(lambda: len(reached()) > done, process)
    process.send_signal(signal.SIGKILL)
    assert "does not answer" in finished(process, -signal.SIGKILL)
    with open(out / journal.RESULTS, "ab") as results:
        results.write(b'{"key": "half a li')
    assert done < len(reached()) < 5
    told = finished(pilot(*command))

    rows = journal.rows(out)
    assert rows[: len(before)] == before
    assert Counter(row["name"] for row in rows) == dict.fromkeys(said, 1)
    for row in rows:
        assert row["status"] == ("error" if said[row["name"]] else "ok")
        assert said[row["name"]] in row.get("error", "")
    assert host.prompts() == 5 - done  # what the killed program had queued was not queued again
    assert "[10/10]" in told and "6 error" in told and server.queue() == (set(), set())
    _check_rows(out, {row["name"]: row for row in rows})


def _check_rows(out: Path, rows: dict[str, dict]) -> None:
    big, plain, other = rows["20 megapixels.jpg"], rows["one.png"], rows["кот 猫 ñ.png"]
    assert (big["given_size"], big["size"]) == ([5000, 4000], [SIDE, 48])
    assert (plain["mask"], rows["no words.png"]["mask"]) == ("auto", "none")
    assert (plain["seed"], other["seed"]) == (0, 5)
    assert set(plain["files"]) == {"source", "edited", "mask", "heatmap"}
    assert set(rows["no words.png"]["files"]) == {"source", "edited"}
    for name in plain["files"].values():
        assert Image.open(out / name).size == (SIDE, SIDE)
    assert plain["figures"][0]["background_psnr"] > 20 and plain["verdict"] in ("pass", "review", "reject")
    about = json.loads((out / journal.RUN).read_text())
    assert len(about["models"][CHECKPOINT]["sha256"]) == 64 and about["server"]["comfyui_version"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "кот 猫 ñ.png" in page and "&lt;b&gt;cats&lt;/b&gt;" in page and "<b>cats" not in page


def test_what_is_done_is_not_done_again_and_what_failed_only_when_asked(arguments, host, tmp_path, capsys):
    rows = [cat(tmp_path, "a.png"), CAT | {"picture": "b.png"}]
    out, before = tmp_path / "out", host.prompts()
    gallery = ROOT / "example_workflows" / "Gallery of variants.json"
    settings = ("--set", "EtaInversion.steps=2", "--set", "EtaSampler.variants=2", "--mask", "both")
    command = arguments("run", listed(tmp_path, rows), "--out", out, "--workflow", gallery, *settings)
    for _ in range(2):
        assert cli.main(command) == 0
        assert "2 items have no mask: they are run by --mask auto alone" in capsys.readouterr().out
        one, *failed = sorted(journal.rows(out), key=lambda row: (row["number"], row["mode"]))
        assert host.prompts() == before + 1
        assert len(one["figures"]) == 2 and {"edited", "edited_2"} <= set(
            one["files"]
        )  # each variant is measured
        said = [(row["name"], row["mode"], row["error"][:19]) for row in failed]
        assert said == [("b.png", "auto", "there is no b.png")]
    assert cli.main([*command, "--policy", "free"]) == 1 and "policy was" in capsys.readouterr().err
    cat(tmp_path, "b.png", 8)
    assert cli.main([*command, "--retry-errors"]) == 0
    again = [(row["name"], row["mode"]) for row in journal.rows(out) if row["status"] == "ok"]
    assert again == [("a.png", "auto"), ("b.png", "auto")] and one in journal.rows(out)


def test_pictures_of_full_size_come_back_whole_and_exact_outside_the_region(arguments, tmp_path):
    """Found by words, given, and without either, where what changed is found."""
    large = scenes.render(scenes.TEST + 7, "cat", "grass")
    size = (531, 407)
    Image.fromarray(large.image).resize(size).save(tmp_path / "large.png")
    hard = Image.fromarray((large.mask > 127).astype(np.uint8) * 255)
    hard.resize(size, Image.NEAREST).save(tmp_path / "mask.png")
    rows = [
        CAT | {"picture": "large.png", "mask": "mask.png"},
        CAT | {"picture": "large.png", "target_prompt": "a cat on the grass in the sky"},
    ]
    out, settings = tmp_path / "out", ("--set", "EtaInversion.steps=4", "--mask", "both", "--full-size")
    assert cli.main(arguments("run", listed(tmp_path, rows), "--out", out, *settings)) == 0
    found = journal.rows(out)
    assert [(row["mask"], row.get("error", "")) for row in found] == [
        ("auto", ""),
        ("given", ""),
        ("none", ""),
    ]
    for row in found:
        source, edited = (np.asarray(Image.open(out / row["files"][name])) for name in ("source", "edited"))
        assert tuple(row["size"]) == size and edited.shape == source.shape == (407, 531, 3)
        changed = (source != edited).any(-1)
        assert 0 < changed.mean() < 0.7
        if row["mask"] != "none":
            region = np.asarray(Image.open(out / row["files"]["mask"]).convert("L")) > 0
            rim = ndimage.binary_dilation(region, np.ones((3, 3)), iterations=2)
            assert not (changed & ~rim).any() and rim.mean() < 0.7
            # in the rim so little shows that mask.png has 0
            assert np.abs(source.astype(int) - edited)[~region].max() <= 1


@pytest.mark.parametrize("in_cache", ["everything", "the pictures"])
def test_what_is_lost_of_the_results_is_made_again_though_the_server_has_it_in_its_cache(
    arguments, server, tmp_path, monkeypatch, in_cache
):
    graphs, submit = [], Server.submit
    monkeypatch.setattr(
        Server, "submit", lambda self, *given: graphs.append(given[1]) or submit(self, *given)
    )
    out = tmp_path / "out"
    items = listed(tmp_path, [cat(tmp_path, "a.png")])
    command = arguments("run", items, "--out", out, "--set", "EtaInversion.steps=2")
    assert cli.main(command) == 0
    (before,) = journal.rows(out)
    (out / journal.RESULTS).write_bytes(b"")
    if in_cache == "the pictures":  # as after an edit whose figures failed
        unmeasured = {
            name: node for name, node in graphs[0].items() if name not in (workflow.FIGURES, workflow.METRICS)
        }
        server.submit(str(uuid.uuid4()), unmeasured)
        deadline = time.monotonic() + SECONDS
        while any(server.queue()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert cli.main(command) == 0
    (after,) = journal.rows(out)
    assert (
        after["status"] == "ok"
        and after["figures"] == before["figures"]
        and after["files"] == before["files"]
    )


def test_an_item_that_takes_too_long_is_stopped_and_ctrl_c_takes_back_the_rest(pilot, server, tmp_path):
    rows = [cat(tmp_path, f"{n}.png") | {"seed": n} for n in range(8)]
    out = tmp_path / "out"
    process = pilot(
        "run", listed(tmp_path, rows), "--out", out, "--set", "EtaInversion.steps=500", "--timeout", 2
    )
    until(lambda: journal.rows(out) and all(server.queue()), process)
    process.send_signal(signal.SIGINT)
    assert "the same command goes on" in finished(process, 130)
    assert server.queue() == (set(), set())
    row, *more = journal.rows(out)
    assert len(more) < len(rows) - 1
    assert (row["name"], row["error"]) == ("0.png", "stopped after 2 s (--timeout)") and row["seconds"] < 30


@pytest.mark.parametrize("loss", ["interrupted", "pictures gone"])
def test_what_a_killed_run_left_unusable_on_the_server_is_made_again(pilot, host, server, tmp_path, loss):
    out = tmp_path / "out"
    steps = {"interrupted": 12, "pictures gone": 2}[loss]
    items = listed(tmp_path, [cat(tmp_path, "a.png"), cat(tmp_path, "b.png", 8)])
    command = ("run", items, "--out", out, "--set", f"EtaInversion.steps={steps}")
    process = pilot(*command)
    until(lambda: all(server.queue()), process)
    process.send_signal(signal.SIGSTOP)
    if loss == "interrupted":  # as by a second Ctrl-C, which does not wait for the end
        server.cancel(list(set.union(*server.queue())))
    deadline = time.monotonic() + SECONDS
    while any(server.queue()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    finished(process, -signal.SIGKILL)
    assert not journal.rows(out)
    if loss == "pictures gone":  # as a second server on the same folder does when it starts
        shutil.rmtree(host.environment.base / "temp")
    finished(pilot(*command))
    assert Counter((row["name"], row["status"]) for row in journal.rows(out)) == {
        ("a.png", "ok"): 1,
        ("b.png", "ok"): 1,
    }


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--policy", "{policy}"), "limits nosuch, which is no metric"),
        (("--seed", -1), "--seed is -1"),
        (("--limit", 0), "--limit is 0"),
        (("--set", "CheckpointLoaderSimple.ckpt_name=nope.safetensors"), f"there are {CHECKPOINT}"),
    ],
)
def test_a_wrong_option_is_refused_before_it_becomes_the_runs(arguments, tmp_path, capsys, wrong, said):
    (tmp_path / "policy.json").write_text('{"nosuch": {"pass": {"min": 1}}}')
    wrong = [str(part).format(policy=tmp_path / "policy.json") for part in wrong]
    items = listed(tmp_path, [CAT | {"picture": "missing.png"}])
    assert cli.main(arguments("run", items, "--out", tmp_path / "out", *wrong)) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_policy_file_that_says_something_twice_is_refused_as_by_eta_verdict(arguments, tmp_path, capsys):
    policy = tmp_path / "policy.json"
    policy.write_text('{"changed_area": {"pass": {"min": 1}}, "changed_area": {"pass": {"min": 0}}}')
    items = listed(tmp_path, [CAT | {"picture": "missing.png"}])
    assert cli.main(arguments("run", items, "--out", tmp_path / "out", "--policy", policy)) == 1
    assert "names changed_area twice" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_named(tmp_path, capsys):
    items = str(listed(tmp_path, [cat(tmp_path, "a.png")]))
    assert cli.main(["run", items, "--out", str(tmp_path / "out"), "--server", "http://127.0.0.1:9"]) == 1
    assert capsys.readouterr().err.startswith("pilot: http://127.0.0.1:9 does not answer")


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_workflows_take_items_or_say_what_they_lack(server, name):
    path, info = ROOT / "example_workflows" / f"{name}.json", server.object_info()
    if name == "With SAM's mask" and "SAM3_Detect" not in info:
        with pytest.raises(WorkflowError, match="the server has no node SAM3_Detect"):
            workflow.read(path, info)
        return
    graph = workflow.read(path, info)
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
    by_words = scored == "auto" and name != "With SAM's mask"  # what SAM3 shall find stays the workflow's own
    assert found.scored == scored and ("{words}" in slots) == by_words
    assert form(graph, "given", True, Clip()).scored == "given"


def test_no_example_workflow_is_forgotten():
    assert set(EXAMPLES) == {path.stem for path in (ROOT / "example_workflows").glob("*.json")}


@pytest.mark.parametrize("row", pie_table.ROWS.values(), ids=pie_table.ROWS)
def test_the_tables_rows_fit_their_workflows(server, row):
    graph = workflow.read(cli.WORKFLOWS / f"{row.workflow}.json", server.object_info())
    found = form(workflow.override(graph, [*pie_table.COMMON, *row.settings]), row.mask, True, Clip())
    masked = [
        node
        for node in found.graph.values()
        if node["class_type"] == "EtaSampler" and "mask" in node["inputs"]
    ]
    assert bool(masked) == (row.mask != "none") and found.scored == "given"


def test_the_benchmarks_table_of_runs_with_their_own_and_with_the_given_masks(arguments, tmp_path):
    pie_set.write(tmp_path, 1)
    table = tmp_path / "table"
    names = ("Eta Inversion + PtP, auto mask", "Eta Inversion + PtP, given mask")
    options = ("--checkpoint", CHECKPOINT, "--steps", 2, "--rows", *names)
    assert cli.main(arguments("pie", tmp_path, "--out", table, *options)) == 0
    lines = (table / "table.md").read_text(encoding="utf-8").splitlines()
    measured = {name: line.split(" | ") for name in names for line in lines if line.startswith(f"| {name} |")}
    assert (
        all(line[1:3] == ["1", "0"] and float(line[4]) > 10 for line in measured.values())
        and len(measured) == 2
    )
    for name in names:
        out = table / pie_table.ROWS[name].folder
        (row,) = journal.rows(out)
        assert (row["mask"], row["scored"]) == (pie_table.ROWS[name].mask, "given")
        used, theirs = (
            Image.open(out / row["files"][which]).convert("L") for which in ("mask", "given_mask")
        )
        assert (
            theirs.size == (SIDE, SIDE) and theirs.getpixel((0, SIDE // 2)) == 255
        )  # the borders count as edited
        assert (used.tobytes() == theirs.tobytes()) == (row["mode"] == "given")


def test_a_run_with_rights_and_an_operator_is_reviewed_and_what_is_sent_back_returns(arguments, tmp_path):
    picture = scenes.render(scenes.TEST, "cat", "grass").image
    Image.fromarray(picture).save(tmp_path / "a.png")
    rights = {"consent": "A. Model, release 17", "rights": "licence 4"}
    listed = [{"picture": "a.png", **CAT, **rights}, {"picture": "a.png", **CAT}]
    (tmp_path / "items.json").write_text(json.dumps(listed))
    wide = {"background_psnr": {"pass": {"min": 99}, "review": {"min": 0}}}
    (tmp_path / "policy.json").write_text(json.dumps(wide))
    out = tmp_path / "out"
    options = ["--out", out, "--operator", "Olga", "--require-rights", "--policy", tmp_path / "policy.json"]
    options += ["--set", "EtaInversion.steps=2"]
    assert cli.main(arguments("run", tmp_path, *options)) == 0
    ok, refused = sorted(journal.rows(out), key=lambda row: row["number"])
    assert refused["status"] == "error" and "no consent and no rights" in refused["error"]
    assert (ok["verdict"], ok["operator"], ok["consent"]) == ("review", "Olga", rights["consent"])
    store = Store(out)
    desk = Desk(out, store)
    assert desk.next(Person("olga", "reviewer")) is None
    anna = Person("Anna", "reviewer")
    (one,) = desk.items()
    desk.vote(anna, one.key, one.binding, "again")
    assert cli.main(arguments("run", out / "again.jsonl", *options)) == 0
    shown = desk.next(anna)
    assert shown and shown.candidate.row["again_of"] == one.key
    assert shown.candidate.row["seed"] != one.row["seed"]
    assert shown.candidate.row["consent"] == rights["consent"]
    assert shown.candidate.hashes["source"] == one.hashes["source"]
    assert shown.candidate.hashes["edited"] != one.hashes["edited"]
    assert desk.eta(shown.candidate) == 1.0
    desk.vote(anna, shown.candidate.key, shown.candidate.binding, "again", eta=0.2)
    assert cli.main(arguments("run", out / "again.jsonl", *options)) == 0
    before, shown = shown, desk.next(anna)
    assert shown and shown.candidate.row["again_of"] == before.candidate.key
    assert (shown.candidate.row["eta"], shown.candidate.row["seed"]) == (0.2, before.candidate.row["seed"])
    assert shown.candidate.hashes["edited"] != before.candidate.hashes["edited"]
    desk.vote(anna, shown.candidate.key, shown.candidate.binding, "approve")
    assert cli.main(["export", str(out), "--out", str(tmp_path / "given")]) == 0
    found = audit.verify(out)
    lines = [json.loads(line)["action"] for line in (out / audit.LOG).read_bytes().splitlines()]
    assert found.findings == () and Counter(lines) == Counter(
        {"run": 3, "verdict": 4, "settings": 1, "vote": 3, "export": 1}
    )
    run = journal.load(out)
    assert run and (run["operators"], run["items"]) == (["Olga"], tmp_path.name)
    assert cli.main(["report", str(out)]) == 0 and "pass@3" in (out / "report.html").read_text()
