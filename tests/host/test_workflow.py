"""The example workflows' own files, on the embedded model, in the real host."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from devtools.demo import judge, scenes
from devtools.demo.prepare import CAT, CHECKPOINT, SOURCES, prepare
from devtools.demo.run_demo import with_views
from devtools.demo.sam import host_has_sam, plant
from devtools.environment import ROOT
from eta_core import masks
from eta_core.evidence import metrics
from pilot.graph import graph_of

WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
BLUEPRINT = ROOT / "subgraphs" / "Eta edit.json"
MAIN = "Change one thing in a photo"
SAMS = "With SAM's mask"
QUICK_STEPS = 6
PART = scenes.SIZE**2 / 2**20
QUICKER = {  # where many pictures are made, or larger ones than the embedded model knows
    "A large photograph": {"EtaInversion": {"steps": 12}, "EtaCrop": {"megapixels": PART}},
    "Approve before saving": {"EtaInversion": {"steps": 6}, "EtaApprove": {"without_answer": "approve"}},
    "Compare etas in a grid": {"EtaInversion": {"steps": 4}},
    "Find the eta for your pictures": {"EtaInversion": {"steps": 4}, "EtaTune": {"trials": 4}},
}
# workflow -> what the judge sees in each of its edited pictures
SHOWS = {
    "A large photograph": [("apple", "wood")],
    "A batch of pictures": [("cat", "snow"), ("red ball", "snow")],
    "Approve before saving": [("dog", "grass")] * 2,
    "Compare etas in a grid": [("dog", "grass")] * 4,
    "Find the eta for your pictures": [("dog", "grass"), ("fox", "grass")],
    "Gallery of variants": [("dog", "grass")] * 4,
    "Keep the layout with Plug-and-Play": [("cat", "snow")],
    "Keep the pose with Prompt-to-Prompt": [("dog", "grass")],
    "Keep the rest of any edit": [("red heart", "wood")],
    "Keep the texture with MasaCtrl": [("fox", "grass")],
    "Measure an edit and hold back what fails": [("dog", "grass")] * 3,
    "Only inside my mask": [("apple", "wood")],
    "Two edits at once": [("fox", "snow")],
    "With ControlNet": [("dog", "grass")],
    SAMS: [("dog", "grass")],
    "With a LoRA": [("cat", "grass")],
}

# These load files of their family: tests/web/test_page.py runs them on very small networks.
FAMILIES = {"Edit with Flux 2 Klein", "Edit with Qwen-Image", "Edit with Z-Image Turbo"}


@cache
def executor(host):
    """One for all workflows: as on the page, what did not change since the last one (the loaded model) is
    kept.
    """
    return host.executor()


def run(host, name: str, **changes: dict) -> dict[str, list[dict]]:
    """Title of a node -> its pictures' files, after the workflow's run; `changes`: inputs by node id."""
    prepare(host.base)
    workflow = json.loads((ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))
    graph = graph_of(workflow, host.object_info())
    graph = with_views(graph) if name == MAIN else graph
    for node in graph.values():
        node["inputs"].update(changes.get(node["class_type"], {}))
    outcome = host.run_on(executor(host), graph)
    assert outcome.success, outcome.error
    titles = {node_id: node["_meta"]["title"] for node_id, node in graph.items()}
    return {
        titles[node_id]: output["images"]
        for node_id, output in outcome.outputs.items()
        if output.get("images")
    }


@pytest.fixture(scope="module")
def outcome(host):
    return run(host, MAIN, EtaInversion={"steps": 20})


def picture(host, outcome, title: str) -> torch.Tensor:
    """[B, H, W, 3]"""
    paths = [host.base / image["type"] / image["subfolder"] / image["filename"] for image in outcome[title]]
    pictures = [torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy()) for path in paths]
    return torch.stack(pictures).float() / 255


@pytest.fixture(scope="module")
def scene():
    return scenes.render(*SOURCES[CAT])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_workflow_has_a_note_and_a_thumbnail(path):
    assert any(
        node["type"] == "MarkdownNote" for node in json.loads(path.read_text(encoding="utf-8"))["nodes"]
    )
    assert Image.open(path.with_suffix(".jpg")).size[0] >= 256


def test_no_workflow_is_forgotten():
    assert {path.stem for path in WORKFLOWS} == {MAIN, *SHOWS, *FAMILIES}


@pytest.mark.parametrize("name", SHOWS)
def test_a_workflow_shows_what_its_target_prompt_says(host, name):
    """In a fifth of its steps or less, to be quick."""
    if name == SAMS:
        if not host_has_sam():
            pytest.skip("this host has no SAM3")
        plant(host.base / "models", SOURCES[CAT])
    outcome = run(host, name, **{"EtaInversion": {"steps": QUICK_STEPS}} | QUICKER.get(name, {}))
    titles = sorted(title for title in outcome if title.startswith("Edited"))
    pictures = torch.cat([picture(host, outcome, title) for title in titles])
    assert judge.say(judge.load(), pictures) == SHOWS[name]


def test_one_thing_changed(host, outcome):
    assert judge.say(judge.load(), picture(host, outcome, "Edited")) == [("dog", "grass")]


def test_everything_else_stayed(host, outcome, scene):
    """Away from the mask the edit is the autoencoder's round trip; outside the true cat it loses what the
    dog's wider ears take.
    """
    truth = torch.from_numpy(scene.mask.copy())[None].float() / 255
    source = torch.from_numpy(scene.image.copy())[None].float() / 255
    edited, round_trip = picture(host, outcome, "Edited"), picture(host, outcome, "Reconstruction")
    reach = masks.dilate((picture(host, outcome, "Mask")[..., 0] > 0.5).float(), 24)
    assert metrics.background_psnr(round_trip, edited, reach).item() > 40
    assert metrics.background_psnr(source, edited, truth).item() > 25


def test_the_mask_is_where_the_cat_was(host, outcome, scene):
    mask = picture(host, outcome, "Mask")[..., 0]
    assert metrics.iou(mask > 0.5, torch.from_numpy(scene.mask.copy())[None] > 127).item() > 0.5


@pytest.fixture(scope="module")
def blueprint() -> dict:
    text = BLUEPRINT.read_text(
        encoding="ascii"
    )  # the host reads it in the system's encoding, whatever that is
    (subgraph,) = json.loads(text)["definitions"]["subgraphs"]
    return subgraph


OUTSIDE_IN, OUTSIDE_OUT = -10, -20  # the ids of a subgraph's own two ends


def test_the_blueprints_links_meet_the_slots_they_name(blueprint):
    """The page goes by a slot's number, and puts the sockets of a node before its widgets."""
    nodes, links = ({thing["id"]: thing for thing in blueprint[kind]} for kind in ("nodes", "links"))
    for node in nodes.values():
        widgets = ["widget" in slot for slot in node["inputs"]]
        assert widgets == sorted(widgets)
    for link in links.values():
        if link["target_id"] != OUTSIDE_OUT:
            assert nodes[link["target_id"]]["inputs"][link["target_slot"]]["link"] == link["id"]
        if link["origin_id"] != OUTSIDE_IN:
            assert link["id"] in nodes[link["origin_id"]]["outputs"][link["origin_slot"]]["links"]
    for end, slots in ((OUTSIDE_IN, blueprint["inputs"]), (OUTSIDE_OUT, blueprint["outputs"])):
        for i, slot in enumerate(slots):
            assert slot["linkIds"], slot["name"]
            for link in map(links.get, slot["linkIds"]):
                assert (end, i) in (
                    (link["origin_id"], link["origin_slot"]),
                    (link["target_id"], link["target_slot"]),
                )


def test_the_blueprint_changes_one_thing(host, blueprint):
    """Its inner graph, with a loader and a picture at the ends the page would wire."""
    prepare(host.base)
    wired = {"model": ["model", 0], "clip": ["model", 1], "vae": ["model", 2], "image": ["picture", 0]}
    links = [list(link.values()) for link in blueprint["links"]]
    for link in links:
        if link[1] == OUTSIDE_IN:
            link[1:3] = wired.get(blueprint["inputs"][link[2]]["name"], [None, 0])
    loose = {link[0] for link in links if link[1] is None}
    for node in blueprint["nodes"]:
        for slot in node["inputs"]:
            slot["link"] = None if slot["link"] in loose else slot["link"]
    graph = graph_of({"nodes": blueprint["nodes"], "links": links}, host.object_info())
    (edited,) = (link for link in links if link[3:5] == [OUTSIDE_OUT, 0])
    graph |= {
        "model": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}},
        "picture": {"class_type": "LoadImage", "inputs": {"image": CAT}},
        "see": {"class_type": "PreviewImage", "inputs": {"images": [str(edited[1]), edited[2]]}},
    }
    for node in graph.values():
        node["inputs"].update({"steps": QUICK_STEPS} if node["class_type"] == "EtaInversion" else {})
    outcome = host.run_on(executor(host), graph)
    assert outcome.success, outcome.error
    assert judge.say(judge.load(), picture(host, {"see": outcome.outputs["see"]["images"]}, "see")) == [
        ("dog", "grass")
    ]
