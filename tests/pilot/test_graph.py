import copy

import pytest

from pilot.graph import graph_of

INFO = {
    "Source": {"input": {"required": {"image": [["a.png", "b.png"], {"image_upload": True}]}}},
    "Sampler": {
        "input": {
            "required": {
                "latent": ["LATENT"],
                "seed": ["INT", {"control_after_generate": True}],
                "cfg": ["FLOAT", {}],
            },
            "optional": {
                "mask": ["MASK"],
                "text": ["STRING", {"forceInput": True}],
                "parity": ["BOOLEAN", {}],
            },
        }
    },
}
WORKFLOW = {
    "nodes": [
        {"id": 1, "type": "Source", "mode": 0, "widgets_values": ["b.png", "image"]},
        {
            "id": 2,
            "type": "Sampler",
            "mode": 0,
            "title": "Mine",
            "widgets_values": [7, "randomize", 7.5, True],
            "inputs": [{"name": "latent", "link": 9}, {"name": "mask", "link": None}],
        },
        {"id": 3, "type": "Note", "mode": 0, "widgets_values": ["read me"]},
    ],
    "links": [[9, 1, 0, 2, 0, "LATENT"]],
}


def test_widgets_links_and_notes_become_a_graph():
    assert graph_of(WORKFLOW, INFO) == {
        "1": {"class_type": "Source", "inputs": {"image": "b.png"}, "_meta": {"title": "Source"}},
        "2": {
            "class_type": "Sampler",
            "inputs": {"latent": ["1", 0], "seed": 7, "cfg": 7.5, "parity": True},
            "_meta": {"title": "Mine"},
        },
    }


def test_a_widget_with_a_link_takes_the_link_and_keeps_the_order():
    workflow = copy.deepcopy(WORKFLOW)
    workflow["nodes"][1]["inputs"].append({"name": "seed", "link": 10})
    workflow["links"].append([10, 1, 0, 2, 1, "INT"])
    assert graph_of(workflow, INFO)["2"]["inputs"] == {
        "latent": ["1", 0],
        "seed": ["1", 0],
        "cfg": 7.5,
        "parity": True,
    }


@pytest.mark.parametrize(
    ("change", "named"), [({"mode": 4}, "bypassed"), ({"type": "Missing"}, "no node Missing")]
)
def test_what_only_the_page_can_run_is_named(change, named):
    workflow = copy.deepcopy(WORKFLOW)
    workflow["nodes"][0].update(change)
    with pytest.raises(ValueError, match=named):
        graph_of(workflow, INFO)
