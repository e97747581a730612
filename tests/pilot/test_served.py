"""Whole runs on the real server with the embedded model."""

import json
import shlex
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
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy import ndimage

from devtools import pie_set
from devtools.demo import scenes
from devtools.demo.prepare import CHECKPOINT
from devtools.environment import ROOT
from pilot import alarm, cli, journal, pie_table, run_commands, workflow
from pilot.compare import contenders
from pilot.compare.commands import REGRESSION
from pilot.compare.comparison import WORSE, CompareError
from pilot.compare.folders import PAGE, RESULT
from pilot.review import audit
from pilot.review.desk import Desk
from pilot.review.store import Person, Store
from pilot.server import Server
from pilot.workflow import Clip, WorkflowError, form
from tests.pilot.hosts import CAT, SECONDS, SIDE, Host, cat, finished, listed, program, until

# workflow -> (mask of the run, what is said where it cannot take an item)
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
        begun.append(program(*arguments(*given)))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.wait()


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
            # the blur of the workflow's own mask fades on for two pixels of the small copy
            fades = 2 if row["mask"] == "given" else round(2.5 * max(size) / SIDE)
            rim = ndimage.binary_dilation(region, np.ones((3, 3)), iterations=fades)
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


def test_an_item_that_takes_too_long_is_stopped(arguments, server, tmp_path):
    rows = [cat(tmp_path, f"{n}.png") | {"seed": n} for n in range(2)]
    out = tmp_path / "out"
    slow = ("--set", "EtaInversion.steps=500", "--timeout", 2)
    assert cli.main(arguments("run", listed(tmp_path, rows), "--out", out, *slow)) == 0
    assert [(row["name"], row["error"]) for row in journal.rows(out)] == [
        (f"{n}.png", "stopped after 2 s (--timeout)") for n in range(2)
    ]
    assert all(row["seconds"] < 30 for row in journal.rows(out)) and server.queue() == (set(), set())


@pytest.mark.parametrize("signals", [["INT"], ["INT", "INT"], ["TERM"]], ids="-".join)
def test_ctrl_c_lets_what_runs_end_and_a_second_or_sigterm_takes_it_back(pilot, server, tmp_path, signals):
    rows = [cat(tmp_path, f"{n}.png") | {"seed": n} for n in range(8)]
    out = tmp_path / "out"
    steps = 8 if signals == ["INT"] else 500
    process = pilot("run", listed(tmp_path, rows), "--out", out, "--set", f"EtaInversion.steps={steps}")
    until(lambda: all(server.queue()), process)
    *before, last = (getattr(signal, f"SIG{name}") for name in signals)
    for number in before:
        process.send_signal(number)
        until(lambda: not server.queue()[1], process)
    process.send_signal(last)
    told = finished(process, 130)
    assert "the same command goes on" in told and ("what runs may end" in told) == ("INT" in signals)
    assert server.queue() == (set(), set())
    done = [(row["name"], row["status"]) for row in journal.rows(out)]
    assert done == ([("0.png", "ok")] if signals == ["INT"] else [])


@pytest.mark.parametrize("loss", ["interrupted", "pictures gone"])
def test_what_a_killed_run_left_unusable_on_the_server_is_made_again(
    pilot, arguments, host, server, tmp_path, loss
):
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
    assert cli.main(arguments(*command)) == 0
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


@pytest.fixture(scope="module")
def versions(host) -> dict[str, str]:
    """Names of the embedded model, of an equal file, and of one whose decoder is damaged."""
    folder = host.environment.base / "models" / "checkpoints"
    shutil.copy(folder / CHECKPOINT, folder / "same.safetensors")
    draw, weights = torch.Generator().manual_seed(0), load_file(folder / CHECKPOINT)
    for name, value in weights.items():
        if name.startswith("first_stage_model.taesd_decoder.") and value.ndim > 1:
            weights[name] = (value * (1 + torch.randn(value.shape, generator=draw))).to(value.dtype)
    save_file(weights, folder / "damaged.safetensors")
    return {"old": CHECKPOINT, "same": "same.safetensors", "damaged": "damaged.safetensors"}


def test_a_comparison_that_was_killed_goes_on_and_finds_a_true_regression_alone(
    pilot, arguments, host, versions, tmp_path, capsys
):
    rows = [cat(tmp_path, f"{n}.png", n) | {"category": "cats"} for n in range(6)]
    items, out, before = listed(tmp_path, rows), tmp_path / "out", host.prompts()
    models = [part for pair in versions.items() for part in ("--model", "=".join(pair))]
    command = ("run", items, "--out", out, "--set", "EtaInversion.steps=2", *models, "--baseline", "old")
    process = pilot(*command)
    until(lambda: journal.rows(out / "same"), process)
    process.send_signal(signal.SIGKILL)
    finished(process, -signal.SIGKILL)
    done = {name: journal.rows(out / name) for name in versions}
    assert len(done["old"]) == 6 and done["damaged"] == []
    assert cli.main(arguments(*command)) == REGRESSION
    told = "".join(capsys.readouterr())
    assert "Regression: damaged is worse than old in " in told and "same is worse" not in told
    assert journal.rows(out / "old") == done["old"]
    assert journal.rows(out / "same")[: len(done["same"])] == done["same"]
    assert host.prompts() - before == 18
    result = json.loads((out / RESULT).read_text())
    same = [one for one in result["differences"] if one["of"] == "same" and one["decides"]]
    assert {one["middle"] for one in same} == {0.0} and WORSE not in {one["verdict"] for one in same}
    weights = [[about["sha256"] for about in one["weights"].values()] for one in result["models"]]
    assert weights[0] == weights[1] != weights[2]
    page = (out / PAGE).read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 6 * 4
    alone = ("compare", out / "old", out / "same", "--out", tmp_path / "pair", "--baseline", "old")
    assert cli.main([str(part) for part in alone]) == 0
    fewer = arguments(*command, "--limit", 2)
    assert cli.main(fewer) == 1  # its folders hold six


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--model", "nope.safetensors"), "nope: CheckpointLoaderSimple: the server has no ckpt_name nope"),
        (("--model", "{broken}"), "is no workflow"),
        (("--model", "copy=same.safetensors", "--baseline", "new"), "they are old, copy"),
        (("--model", "old=same.safetensors"), "would share a folder"),
        (("--try", "EtaSampler.nosuch=1,2"), "EtaSampler has no input nosuch"),
        ((), "nothing to compare it with"),
    ],
)
def test_a_wrong_model_is_refused_before_anything_is_queued(
    arguments, host, versions, tmp_path, capsys, wrong, said
):
    (tmp_path / "broken.json").write_text("{}")
    wrong = [part.format(broken=tmp_path / "broken.json") for part in wrong]
    items, before = listed(tmp_path, [cat(tmp_path, "a.png")]), host.prompts()
    command = arguments("run", items, "--out", tmp_path / "out", "--model", f"old={CHECKPOINT}", *wrong)
    assert cli.main(command) == 1 and said in capsys.readouterr().err
    assert host.prompts() == before and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [name for name, (_, lacks) in EXAMPLES.items() if not lacks])
def test_the_file_of_the_model_is_found_in_example_workflows(server, tmp_path, name):
    path = ROOT / "example_workflows" / f"{name}.json"
    named, info = [contenders.named("new=x.safetensors")], server.object_info()
    if name == "With SAM's mask" and "SAM3_Detect" not in info:
        pytest.skip("this host has no SAM3_Detect")
    (planned,) = contenders.plan(named, [], path, [], tmp_path, info)
    loads = "UNETLoader.unet_name" if name.startswith("Edit with") else "CheckpointLoaderSimple.ckpt_name"
    if name == "With SAM's mask":  # SAM3 has a loader of that kind too
        nodes = workflow.read(path, info).values()
        (edit,) = (node for node in nodes if node["class_type"] == "EtaSampler")
        loads = f"{edit['inputs']['model'][0]}.ckpt_name"
    assert planned.changes == (f"{loads}=x.safetensors",)


def test_a_model_of_two_files_is_not_guessed(server, tmp_path):
    graph = workflow.read(run_commands.MAIN, server.object_info())
    (loader,) = [n for n, node in graph.items() if node["class_type"] == "CheckpointLoaderSimple"]
    for node in graph.values():
        if node["inputs"].get("model") == [loader, 0]:
            node["inputs"]["model"] = ["merged", 0]
    graph["second"] = graph[loader]
    inputs = {"model1": [loader, 0], "model2": ["second", 0], "ratio": 0.5}
    graph["merged"] = {"class_type": "ModelMergeSimple", "inputs": inputs}
    (tmp_path / "merged.json").write_text(json.dumps(graph))
    with pytest.raises(CompareError, match="which file is the model.*CheckpointLoaderSimple second"):
        contenders.plan(
            [contenders.named("x.safetensors")],
            [],
            tmp_path / "merged.json",
            [],
            tmp_path,
            server.object_info(),
        )


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
    graph = workflow.read(run_commands.WORKFLOWS / f"{row.workflow}.json", server.object_info())
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


def strict(folder: Path, **more) -> Path:
    """A policy that rejects every edit: no background is as good as this."""
    path = folder / "policy.json"
    limits = {"background_psnr": {"pass": {"min": 500}}}
    path.write_text(json.dumps({"limits": limits, "alarm": {"last": 3, "failures": 1}} | more))
    return path


def test_an_alarm_pauses_a_run_until_it_is_told_to_go_on(pilot, arguments, server, tmp_path, capsys):
    def here(*given: object) -> tuple[int, str]:
        """The status, and what was said."""
        status = cli.main(arguments(*given))
        return status, "".join(capsys.readouterr())

    rows = [cat(tmp_path, f"{n}.png", n) for n in range(5)]
    out, told = tmp_path / "out", tmp_path / "told.json"
    write = f"import sys; open({str(told)!r}, 'a').write(sys.stdin.read() + '\\n')"
    command = ["run", listed(tmp_path, rows), "--out", out, "--set", "EtaInversion.steps=2"]
    command += ["--policy", strict(tmp_path), "--window", 1]
    command += ["--on-alarm", shlex.join([sys.executable, "-c", write])]
    said = finished(pilot(*command), alarm.PAUSED)
    first = journal.rows(out)
    assert len(first) == 2 and "paused. 2 of the last 2 items came out as reject or error" in said
    assert server.queue() == (set(), set())
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.index("This run is paused by its alarm.") < page.index("What the verdicts mean")
    status, said = here(*command)
    assert status == alarm.PAUSED and "--continue" in said and journal.rows(out) == first
    (facts,) = map(json.loads, told.read_text().splitlines())
    assert facts["items"] == ["0.png", "1.png"] and facts["policy"] == "policy.json"
    goes_on = ("--continue", "--operator", "Olga")
    assert here(*command, *goes_on)[0] == alarm.PAUSED
    assert len(journal.rows(out)) == 4 and len(told.read_text().splitlines()) == 2
    status, said = here(*command, *goes_on)
    found = journal.rows(out)
    assert (
        status == 0
        and found[:2] == first
        and Counter(row["name"] for row in found) == {f"{n}.png": 1 for n in range(5)}
    )
    lines = [json.loads(line)["action"] for line in (out / audit.LOG).read_bytes().splitlines()]
    assert (lines.count("alarm"), lines.count("continue")) == (2, 2) and audit.verify(out).findings == ()
    assert (
        "is not paused" not in said and "Paused, and continued by Olga" in (out / "report.html").read_text()
    )
    status, said = here(*command, "--continue")
    assert status == 1 and "no alarm paused" in said


def test_an_alarm_in_a_comparison_pauses_it_in_that_models_run(arguments, host, tmp_path, capsys):
    items, out = listed(tmp_path, [cat(tmp_path, f"{n}.png", n) for n in range(2)]), tmp_path / "out"
    options = ("--set", "EtaInversion.steps=2", "--policy", strict(tmp_path))
    command = arguments("run", items, "--out", out, *options, "--try", "EtaSchedule.end_eta=0,1")
    paused = []
    for more in ([], ["--continue"]):
        assert cli.main([*command, *more]) == alarm.PAUSED and not (out / "compare.html").exists()
        paused += [line for line in capsys.readouterr().err.splitlines() if "waits in the run of" in line]
    assert [f"(end_eta={value})" in line for line, value in zip(paused, "01")] == [True, True]
    before = host.prompts()
    assert cli.main(command) == alarm.PAUSED and host.prompts() == before
    assert cli.main([*command, "--continue"]) == 0 and (out / "compare.html").exists()
    assert cli.main([*command, "--continue"]) == 1 and "no alarm paused a run" in capsys.readouterr().err


def test_weights_that_a_policy_does_not_list_run_unchecked_until_it_trusts_them(
    arguments, host, tmp_path, capsys
):
    limits = {"background_psnr": {"pass": {"min": 0}}}
    policy = strict(tmp_path, limits=limits, models=[], trust={"items": 1, "passed": 100})
    items, before = listed(tmp_path, [cat(tmp_path, "a.png")]), host.prompts()
    settings = ("--set", "EtaInversion.steps=2", "--policy", policy)
    out, later = tmp_path / "out", tmp_path / "later"
    assert cli.main(arguments("run", items, "--out", out, *settings)) == 1
    said = capsys.readouterr().err
    assert f"does not list {CHECKPOINT}, sha256 " in said and "--unchecked" in said and "policy trust" in said
    assert host.prompts() == before and not out.exists()
    assert cli.main(arguments("run", items, "--out", out, *settings, "--unchecked")) == 0
    assert "Run by --unchecked." in (out / "report.html").read_text()
    assert cli.main(["policy", "trust", str(policy), "--run", str(out)]) == 0
    assert cli.main(arguments("run", items, "--out", later, *settings)) == 0
    assert "are on the policy&#x27;s list" in (later / "report.html").read_text()
    digests = [json.loads((folder / journal.RUN).read_text())["settings"] for folder in (out, later)]
    assert digests[0]["policy_version"] == digests[1]["policy_version"]


def test_a_run_begun_before_policies_had_versions_goes_on_and_stays_as_it_was(arguments, tmp_path):
    out, items = tmp_path / "out", listed(tmp_path, [cat(tmp_path, "a.png")])
    command = arguments("run", items, "--out", out, "--set", "EtaInversion.steps=2")
    assert cli.main(command) == 0
    run = json.loads((out / journal.RUN).read_text())
    for name in ("rules", "models_checked", "tasks"):
        del run[name]
    del run["settings"]["policy_version"]
    run["settings"]["limits"] = ""
    (out / journal.RUN).write_text(json.dumps(run))
    before = journal.rows(out)
    assert cli.main(command) == 0 and journal.rows(out) == before
    assert json.loads((out / journal.RUN).read_text())["settings"] == run["settings"]
    assert Desk(out, Store(out)).eyes == 1
