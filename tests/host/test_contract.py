"""What saved workflows rely on: node ids, inputs and outputs, kept in contract.json.

To change it on purpose: ETA_UPDATE_CONTRACT=1 python dev.py test tests/host/test_contract.py, and say why in
the commit.
"""

import json
import os
from dataclasses import dataclass, field, fields
from pathlib import Path

CONTRACT = Path(__file__).parent / "contract.json"
OWN_CHOICES = (
    "preset",
    "combine",
    "inverter",
    "mode",
    "overlap",
    "policy",
    "let_through",
)  # the options of other combos are the host's


def contract_of(node) -> dict:
    schema = node.GET_SCHEMA()
    return {
        "inputs": [describe(socket) for socket in schema.inputs],
        "outputs": [[socket.io_type, socket.display_name] for socket in schema.outputs],
        "output_node": schema.is_output_node,
    }


def describe(socket) -> dict:
    about = {"id": socket.id, "type": socket.get_io_type(), "optional": bool(socket.optional)}
    about |= {
        name: getattr(socket, name)
        for name in ("default", "min", "max")
        if getattr(socket, name, None) is not None
    }
    return about | ({"options": list(socket.options)} if socket.id in OWN_CHOICES else {})


def test_nodes_keep_the_ids_inputs_and_outputs_of_the_contract(ours):
    now = {name: contract_of(node) for name, node in ours.items()}
    if os.environ.get("ETA_UPDATE_CONTRACT"):
        CONTRACT.write_text(json.dumps(now, indent=1) + "\n")
    assert now == json.loads(CONTRACT.read_text()), (
        f"saved workflows would break; if that is meant:{__doc__.splitlines()[2]}"
    )


def test_every_input_has_a_tooltip(ours):
    bare = [
        f"{name}.{socket.id}"
        for name, node in ours.items()
        for socket in node.GET_SCHEMA().inputs
        if not socket.tooltip
    ]
    assert not bare


def test_every_output_has_a_tooltip(ours):
    bare = [
        f"{name}.{socket.display_name}"
        for name, node in ours.items()
        for socket in node.GET_SCHEMA().outputs
        if not socket.tooltip
    ]
    assert not bare


def test_every_node_says_what_it_does_and_sits_in_one_category(ours):
    assert all(node.GET_SCHEMA().description for node in ours.values())
    assert len({node.GET_SCHEMA().category.split("/methods")[0] for node in ours.values()}) == 1


def test_the_papers_grid_comes_before_all_schedules_of_the_host(ours):
    (scheduler,) = (socket for socket in ours["EtaInversion"].GET_SCHEMA().inputs if socket.id == "scheduler")
    import comfy.samplers

    assert scheduler.options[0] == "ddim_uniform"
    assert sorted(scheduler.options) == sorted(comfy.samplers.SCHEDULER_NAMES)


def test_the_frontend_gets_every_node_in_its_own_format(ours):
    for name, node in ours.items():
        info = json.loads(json.dumps(node.GET_NODE_INFO_V1()))
        assert info["name"] == name
        assert info["input_order"]["required"] == [s.id for s in node.GET_SCHEMA().inputs if not s.optional]


def test_every_node_is_found_by_other_names_where_the_host_takes_them(ours, monkeypatch):
    """Newer hosts than 0.3.75 know search_aliases; here the host's own Schema with that field more."""
    from comfy_api.latest import io

    @dataclass
    class Newer(io.Schema):
        search_aliases: list = field(default_factory=list)

    assert "search_aliases" in {each.name for each in fields(io.Schema)} or all(
        not hasattr(node.define_schema(), "search_aliases") for node in ours.values()
    )
    monkeypatch.setattr(io, "Schema", Newer)
    assert all(len(node.define_schema().search_aliases) > 1 for node in ours.values())
