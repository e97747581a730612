"""Where things go in a workflow's graph; the example workflows' own files are in test_served.py, with the
server's node list.
"""

import copy
import json

import pytest

from pilot import workflow
from pilot.workflow import Clip, Slot, WorkflowError, form, override

VALUES = {
    "picture": "p.png [temp]",
    "mask": "m.png [temp]",
    "source": "a cat",
    "target": "a dog",
    "words": "cat",
    "target_words": "dog",
    "has_words": True,
    "seed": 2**64 - 1,
}


def node(kind: str, title: str = "", **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": title or kind}}


def main_graph() -> dict:
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name="sd14.safetensors"),
        "2": node("LoadImage", image="old.png"),
        "3": node("CLIPTextEncode", "Source prompt", text="old", clip=["1", 1]),
        "4": node("CLIPTextEncode", "Target prompt", text="old", clip=["1", 1]),
        "5": node("CLIPTextEncode", "Negative prompt", text="ugly", clip=["1", 1]),
        "6": node("VAEEncode", pixels=["2", 0], vae=["1", 2]),
        "7": node(
            "EtaInversion", model=["1", 0], positive=["3", 0], latent_image=["6", 0], steps=50, cfg=1.0
        ),
        "8": node("AttentionMask", inversion=["7", 0], clip=["1", 1], words="old", image=["2", 0]),
        "9": node("EtaSchedule", preset="paper_gentle"),
        "10": node(
            "EtaSampler",
            model=["1", 0],
            inversion=["7", 0],
            eta=["9", 0],
            positive=["4", 0],
            negative=["5", 0],
            mask=["8", 0],
            background_lock=1.0,
            seed=0,
        ),
        "11": node("VAEDecode", samples=["10", 0], vae=["1", 2]),
        "12": node("SaveImage", "Edited", images=["11", 0], filename_prefix="eta"),
        "13": node("SaveImage", "Mine", images=["2", 0], filename_prefix="mine"),
    }


@pytest.fixture
def graph() -> dict:
    return main_graph()


NO_CLIP = Clip()


def filled(
    graph: dict, mask: str = "auto", has_mask: bool = False, clip: Clip = NO_CLIP, edited: str = ""
) -> dict:
    return form(graph, mask, has_mask, clip, edited).filled(VALUES)


def inputs(graph: dict, node_id: str) -> dict:
    return graph[node_id]["inputs"]


def test_an_items_things_go_where_they_belong(graph):
    found = filled(graph)
    assert inputs(found, "2")["image"] == VALUES["picture"]
    assert [inputs(found, n)["text"] for n in "345"] == ["a cat", "a dog", "ugly"]
    assert inputs(found, "8")["words"] == "cat"
    assert inputs(found, "10")["seed"] == 2**64 - 1
    assert inputs(found, "10")["mask"] == ["8", 0] and inputs(found, "10")["background_lock"] == 1.0


def test_a_mask_that_is_only_looked_at_is_not_the_edits(graph):
    """The given one still goes into the edit, and the picture's own does not stand in the automatic one's
    way.
    """
    graph["10"]["inputs"]["mask"] = ["14", 0]
    graph |= {
        "14": node("LoadImageMask", image="mine.png", channel="red"),
        "15": node("MaskPreview", mask=["8", 0]),
    }
    assert inputs(filled(graph, "given", True), "10")["mask"] == [workflow.GIVEN, 0]
    graph["15"]["inputs"]["mask"] = ["2", 1]
    assert inputs(filled(graph, "auto"), "10")["mask"] == ["14", 0]


def test_the_users_own_outputs_are_left_out_and_ours_are_there(graph):
    found = filled(graph)
    assert not {"12", "13"} & set(found)
    assert inputs(found, workflow.EDITED)["images"] == ["11", 0]
    assert inputs(found, workflow.HEATMAP)["images"] == ["8", 1]
    assert inputs(found, workflow.MASK_PICTURE)["mask"] == ["8", 0]
    measured = inputs(found, workflow.METRICS)
    assert measured == {
        "source": ["2", 0],
        "edited": ["11", 0],
        "mask": ["8", 0],
        "source_prompt": "a cat",
        "target_prompt": "a dog",
    }
    assert inputs(found, workflow.FIGURES)["source"] == [workflow.METRICS, 0]


def test_a_picture_that_a_verdict_may_hold_back_is_taken_before_it(graph):
    graph["14"] = node("EtaVerdict", figures=["15", 0], image=["11", 0])
    inputs(graph, "12")["images"] = ["14", 0]
    found = filled(graph)
    assert inputs(found, workflow.EDITED)["images"] == inputs(found, workflow.METRICS)["edited"] == ["11", 0]
    assert "14" not in found


def test_the_given_graph_is_left_as_it_was(graph):
    before = copy.deepcopy(graph)
    filled(override(graph, ["EtaInversion.steps=3"]), "given", True)
    assert graph == before


def test_the_result_is_a_graph_of_plain_values_whose_links_lead_somewhere(graph):
    found = json.loads(json.dumps(filled(graph, "given", True, Clip("l.safetensors", "v.safetensors"))))
    links = [v for n in found.values() for v in n["inputs"].values() if isinstance(v, list)]
    assert {link[0] for link in links} <= set(found)


def test_the_items_mask_is_for_the_figures_in_an_auto_run(graph):
    found = form(graph, "auto", True, Clip())
    assert found.scored == "given"
    done = found.filled(VALUES)
    assert inputs(done, "10")["mask"] == ["8", 0]
    assert inputs(done, workflow.METRICS)["mask"] == [workflow.GIVEN, 0]
    assert inputs(done, workflow.GIVEN) == {"image": VALUES["mask"], "channel": "red"}


def test_the_items_mask_takes_the_place_of_the_workflows_in_a_given_run(graph):
    graph["14"] = node("GrowMask", mask=["8", 0], expand=3)
    inputs(graph, "10")["mask"] = ["14", 0]
    found = form(graph, "given", True, Clip())
    assert not workflow.wants_words(found)
    done = found.filled(VALUES)
    assert inputs(done, "14")["mask"] == [workflow.GIVEN, 0] and inputs(done, "10")["mask"] == ["14", 0]
    assert workflow.HEATMAP not in done and "8" not in done


def test_a_given_mask_goes_to_the_sampler_where_the_workflow_has_none(graph):
    del inputs(graph, "10")["mask"]
    assert inputs(filled(graph, "given", True), "10")["mask"] == [workflow.GIVEN, 0]


def test_a_mask_painted_on_the_picture_is_the_given_one(graph):
    inputs(graph, "10")["mask"] = ["2", 1]
    assert inputs(filled(graph, "given", True), "10")["mask"] == [workflow.GIVEN, 0]
    with pytest.raises(WorkflowError, match="--mask given"):
        form(graph, "auto", False, Clip())


def test_without_a_mask_there_is_no_lock_and_the_whole_picture_is_measured(graph):
    found = form(graph, "none", False, Clip())
    done = found.filled(VALUES)
    assert found.scored == "none" and "8" not in done
    assert "mask" not in inputs(done, "10") and inputs(done, "10")["background_lock"] == 0.0
    assert "mask" not in inputs(done, workflow.METRICS)


def test_clip_is_loaded_for_the_figures_where_both_halves_are_named(graph):
    found = filled(graph, clip=Clip("clip_l.safetensors", "vision.safetensors"))
    assert inputs(found, workflow.CLIP)["clip_name"] == "clip_l.safetensors"
    assert inputs(found, workflow.METRICS)["clip_vision"] == [workflow.CLIP_VISION, 0]


def test_a_prompt_pair_takes_both_prompts_and_leaves_the_words_to_the_item(graph):
    graph["3"] = node("EtaPromptPair", source_prompt="old", target_prompt="old", clip=["1", 1])
    del graph["4"]
    inputs(graph, "10")["positive"] = ["3", 1]
    inputs(graph, "8").update(words=["3", 2], source_prompt=["3", 4])
    found = filled(graph)
    assert (inputs(found, "3")["source_prompt"], inputs(found, "3")["target_prompt"]) == ("a cat", "a dog")
    assert (inputs(found, "8")["words"], inputs(found, "8")["source_prompt"]) == ("cat", "a cat")


def test_prompts_are_found_through_a_controlnet_by_their_side(graph):
    graph["14"] = node("ControlNetApplyAdvanced", positive=["4", 0], negative=["5", 0], image=["15", 0])
    graph["15"] = node("LoadImage", "Outline", image="outline.png")
    inputs(graph, "10").update(positive=["14", 0], negative=["14", 1])
    found = filled(graph)
    assert inputs(found, "4")["text"] == "a dog" and inputs(found, "5")["text"] == "ugly"
    assert inputs(found, "15")["image"] == "outline.png"


def test_text_that_another_node_computes_is_replaced(graph):
    graph["14"] = node("PrimitiveString", value="old")
    inputs(graph, "4")["text"] = ["14", 0]
    assert inputs(filled(graph), "4")["text"] == "a dog"


def test_sdxl_takes_a_prompt_twice(graph):
    graph["4"] = node("CLIPTextEncodeSDXL", text_g="old", text_l="old", width=1024, clip=["1", 1])
    found = filled(graph)
    assert (inputs(found, "4")["text_g"], inputs(found, "4")["text_l"], inputs(found, "4")["width"]) == (
        "a dog",
        "a dog",
        1024,
    )


def test_the_measured_source_is_what_was_encoded(graph):
    graph["14"] = node("ImageScale", image=["2", 0], width=64)
    inputs(graph, "6")["pixels"] = ["14", 0]
    assert inputs(filled(graph), workflow.METRICS)["source"] == ["14", 0]


def flow_edit(graph: dict) -> dict:
    """The graph with Eta Flow Edit in the place of Eta Inversion and Eta Sampler."""
    for node_id in ("7", "8", "9"):
        del graph[node_id]
    prompts = dict(source=["3", 0], positive=["4", 0], negative=["5", 0])
    graph["10"] = node("EtaFlowEdit", model=["1", 0], latent_image=["6", 0], seed=0, **prompts)
    return graph


def test_an_edit_without_an_inversion_takes_an_item_too(graph):
    found = filled(flow_edit(graph), "given", True)
    assert inputs(found, "2")["image"] == VALUES["picture"]
    assert [inputs(found, n)["text"] for n in "345"] == ["a cat", "a dog", "ugly"]
    assert inputs(found, "10")["seed"] == VALUES["seed"] and inputs(found, "10")["mask"] == [
        workflow.GIVEN,
        0,
    ]
    assert inputs(found, workflow.METRICS)["source"] == ["2", 0]
    assert "mask" not in inputs(filled(flow_edit(main_graph()), "none"), "10")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g: g.update({"2": node("EmptyImage")}), "comes from no LoadImage"),
        (
            lambda g: g.update(
                {
                    "2": node("ImageBatch", image1=["a", 0], image2=["b", 0]),
                    "a": node("LoadImage", "One", image=""),
                    "b": node("LoadImage", "Two", image=""),
                }
            ),
            "LoadImage a 'One', LoadImage b 'Two'",
        ),
        (
            lambda g: g["7"]["inputs"].update(positive=["9", 0]),
            ("the source prompt comes from no node that encodes text"),
        ),
        (
            lambda g: g["10"]["inputs"].update(positive=["3", 0]),
            ("CLIPTextEncode 3 'Source prompt' encodes both prompts"),
        ),
        (
            lambda g: g.update({"4": node("ConditioningCombine", a=["3", 0], b=["5", 0])}),
            ("the target prompt comes from CLIPTextEncode 3"),
        ),
        (lambda g: g.pop("10"), "no Eta Inversion and Eta Sampler"),
        (
            lambda g: g.update({"6": node("EmptyLatentImage"), "14": node("LoadImage", image="")}),
            "comes from no LoadImage",
        ),
        (
            lambda g: g.update({"14": node("SaveImage", "Edited too", images=["11", 0])}),
            ("SaveImage 12 'Edited', SaveImage 14 'Edited too'"),
        ),
        (
            lambda g: (g.update({"14": copy.deepcopy(g["8"])}), g["10"]["inputs"].update(eta=["14", 0])),
            "whose words",
        ),
        (
            lambda g: (
                g.update({"14": node("EtaRegionEdit", positive=["5", 0], mask=["8", 0])}),
                g["10"]["inputs"].update(edit=["14", 0]),
            ),
            ("CLIPTextEncode 5 'Negative prompt' is a second target prompt"),
        ),
    ],
)
def test_what_cannot_be_placed_is_named(graph, change, said):
    change(graph)
    with pytest.raises(WorkflowError, match=said):
        form(graph, "auto", False, Clip())


def test_the_edit_is_the_one_decoders_picture_where_nothing_is_titled(graph):
    graph["12"]["_meta"]["title"] = "Save Image"
    assert inputs(filled(graph), workflow.EDITED)["images"] == ["11", 0]


@pytest.mark.parametrize("name", ["14", "Edited too"])
def test_the_edit_can_be_named(graph, name):
    graph["14"] = node("SaveImage", "Edited too", images=["11", 0])
    assert inputs(filled(graph, edited=name), workflow.EDITED)["images"] == ["11", 0]
    with pytest.raises(WorkflowError, match="names 0 nodes"):
        form(graph, "auto", False, Clip(), "nothing")


def test_overrides_by_type_title_and_id(graph):
    found = override(
        graph,
        [
            "EtaInversion.steps=8",
            "Negative prompt.text=a=b.c",
            "10.seed=5",
            "EtaSchedule.preset=paper_strong",
        ],
    )
    assert (
        inputs(found, "7")["steps"] == 8
        and inputs(found, "5")["text"] == "a=b.c"
        and inputs(found, "10")["seed"] == 5
    )
    assert inputs(found, "9")["preset"] == "paper_strong"


def test_what_an_override_places_is_not_looked_for(graph):
    """The item's words into the negative prompt, and the target prompt into a region's."""
    graph["14"] = node("EtaRegionEdit", positive=["4", 0], mask=["8", 0])
    graph["15"] = node("CLIPTextEncode", "Ground", text="the snow", clip=["1", 1])
    inputs(graph, "10").update(edit=["14", 0], positive=["15", 0])
    found = filled(
        override(graph, ["Target prompt.text={target}", "Negative prompt.text=no {words}, {target_words}"])
    )
    assert [inputs(found, n)["text"] for n in ("4", "15", "5")] == ["a dog", "the snow", "no cat, dog"]
    assert inputs(found, "8")["words"] == "old"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("steps", "must be written"),
        ("steps=3", "must be written"),
        ("KSampler.steps=3", "no node is called KSampler; there are CheckpointLoaderSimple 1"),
        ("EtaInversion.step=3", "has no input step; it has model, positive"),
    ],
)
def test_an_override_that_meets_nothing_is_refused(graph, setting, said):
    with pytest.raises(WorkflowError, match=said):
        override(graph, [setting])


def test_a_prompt_that_looks_like_a_place_is_put_in_as_it_is():
    values = VALUES | {"source": "{target} {x}"}
    assert Slot("{source}").filled(values) == "{target} {x}"
    assert Slot("{source}, {target}").filled(values) == "{target} {x}, a dog"
    assert (Slot("{seed}").filled(values), Slot("{has_words}").filled(values)) == (2**64 - 1, True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read as a workflow"),
        ("[]", "is no workflow"),
        ('{"a": {"inputs": {}}}', "is no workflow"),
        ('{"a": {"class_type": "Missing", "inputs": {}}}', "the server has no node Missing; install"),
        ('{"nodes": [{"id": 1, "type": "Missing"}], "links": []}', "no node Missing; or save it"),
        (
            '{"nodes": [{"id": 1, "type": "EtaMetrics", "mode": 4}], "links": []}',
            "muted or bypassed; or save it",
        ),
    ],
)
def test_a_file_that_is_no_workflow_says_why(tmp_path, content, said):
    (tmp_path / "w.json").write_text(content)
    info = {name: {"input": {}} for name in workflow.NEEDED}
    with pytest.raises(WorkflowError, match=said):
        workflow.read(tmp_path / "w.json", info)


def test_a_server_without_the_figures_node_is_refused(tmp_path):
    (tmp_path / "w.json").write_text(json.dumps(main_graph()))
    info = {n["class_type"]: {} for n in main_graph().values()} | dict.fromkeys(workflow.NEEDED[1:], {})
    with pytest.raises(WorkflowError, match="no node EtaMetrics"):
        workflow.read(tmp_path / "w.json", info)
    assert workflow.read(tmp_path / "w.json", info | {"EtaMetrics": {}}) == main_graph()


def test_what_the_report_says_of_a_workflow(graph):
    found = form(graph, "auto", False, Clip("clip_l.safetensors", "vision.safetensors")).graph
    assert workflow.models_of(found) == ["clip_l.safetensors", "sd14.safetensors", "vision.safetensors"]
    assert workflow.settings_of(found)["EtaInversion 7"] == {"steps": 50, "cfg": 1.0}


def pasted(graph: dict) -> dict:
    """The edit is pasted back into the photograph, and that is saved."""
    graph["20"] = node("ImageCompositeMasked", destination=["2", 0], source=["11", 0], mask=["8", 0])
    inputs(graph, "12")["images"] = ["20", 0]
    return graph


@pytest.mark.parametrize("title", ["Edited", "SaveImage"])
@pytest.mark.parametrize("kind", ["SaveImage", "EtaSaveEdited"])
def test_what_is_saved_is_what_is_judged(graph, title, kind):
    graph = pasted(graph) | {"21": node("PreviewImage", "Edited", images=["11", 0])}
    graph["12"] |= {"class_type": kind, "_meta": {"title": title}}
    graph |= {"22": node("VAEDecode", samples=["10", 1], vae=["1", 2])}
    graph |= {"23": node("SaveImage", "Reconstruction", images=["22", 0], filename_prefix="r")}
    found = filled(graph)
    assert inputs(found, workflow.EDITED)["images"] == inputs(found, workflow.METRICS)["edited"] == ["20", 0]


def test_several_saved_edits_or_none_are_listed(graph):
    graph["12"]["_meta"]["title"] = "Mine too"
    graph["30"] = node("SaveImage", "Another", images=["11", 0], filename_prefix="r")
    with pytest.raises(WorkflowError, match="saves several: SaveImage 12 'Mine too', SaveImage 30 'Another'"):
        filled(graph)
    assert inputs(filled(graph, edited="Another"), workflow.EDITED)["images"] == ["11", 0]
    for node_id in ("12", "30"):
        graph[node_id] |= {"class_type": "PreviewImage"}
    with pytest.raises(WorkflowError, match="saves no single one, and has: PreviewImage 12.*--edited"):
        filled(graph)


def schedule(**inputs: object) -> dict:
    return {"class_type": "EtaSchedule", "inputs": {"end_eta": 1.0, "curve": ""} | inputs}


@pytest.mark.parametrize("preset", workflow.ENDING)
def test_an_items_eta_ends_the_schedule(preset):
    graph = {"1": schedule(preset=preset), "2": {"class_type": "Other", "inputs": {"end_eta": 3}}}
    changed = workflow.with_eta(graph, 0.25)
    assert changed["1"]["inputs"]["end_eta"] == 0.25 and changed["2"] == graph["2"]
    assert graph["1"]["inputs"]["end_eta"] == 1.0
    assert workflow.eta_of({"EtaSchedule 1": graph["1"]["inputs"]}) == 1.0


@pytest.mark.parametrize(
    "graph",
    [
        {"1": schedule(preset="paper_strong")},
        {"1": schedule(preset="custom", curve="0:0, 1:1")},
        {"1": schedule(preset="constant", end_eta=["2", 0])},
        {"1": {"class_type": "Other", "inputs": {}}},
    ],
)
def test_an_eta_that_no_schedule_would_read_is_refused(graph):
    with pytest.raises(WorkflowError, match="needs an Eta Schedule that reads end_eta"):
        workflow.with_eta(graph, 0.25)
    nodes = {f"{node['class_type']} {name}": node["inputs"] for name, node in graph.items()}
    assert workflow.eta_of(nodes) is None
