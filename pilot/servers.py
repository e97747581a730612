"""The servers of a run: what they are, and whether they would make the same pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from . import models, workflow
from .graph import Graph
from .lane import Handle
from .workflow import WorkflowError


def asked(lanes: Sequence[Handle], method: str, *given: Any) -> list[Any]:
    """Every lane's answer, in their order. Raises what a lane raises."""
    answers: list[Future] = [lane.call(method, *given) for lane in lanes]
    return [answer.result() for answer in answers]


def check_nodes(lanes: Sequence[Handle], infos: Sequence[dict], graph: Graph) -> list[str]:
    """Whether every server can run the graph -> warnings where their nodes are not the same.

    infos: each server's object_info. Raises WorkflowError for a node or a model that a server lacks.
    """
    used = sorted({node["class_type"] for node in graph.values()})
    warnings = []
    for lane, info in zip(lanes, infos):
        if missing := [name for name in used if name not in info]:
            raise WorkflowError(f"{lane.name} has no node {', '.join(missing)}: install there what has it")
        try:
            workflow.check_models(graph, info)
        except WorkflowError as error:
            raise WorkflowError(f"{lane.name}: {error}") from None
        others = [name for name in used if _plain(info[name]) != _plain(infos[0][name])]
        if others:
            warnings.append(f"{', '.join(others)} of {lane.name} differ from those of {lanes[0].name}")
    return warnings


def describe(
    run: dict, lanes: Sequence[Handle], names: Iterable[str], folders: Iterable[Path], warnings: list[str]
) -> None:
    """Write the servers and their weights into run.json's content.

    warnings: what is known to differ; differing versions are added. Raises ModelsError where weights differ
    among the servers, or are others than the run began with.
    """
    before = run.get("models", {})
    found = asked(lanes, "about", list(names), list(folders), before)
    first, run["server"] = lanes[0].name, found[0][0]
    run["models"] = found[0][1]
    for lane, (versions, weights) in zip(lanes[1:], found[1:]):
        run["models"] = _joined(run["models"], weights, first, lane.name)
        differing = [name for name in versions if versions[name] != run["server"][name]]
        said = ", ".join(f"{name} {versions[name]} and {run['server'][name]}" for name in differing)
        if said:
            warnings.append(f"{lane.name} and {first} differ in {said}")
    models.check(run["models"], before)
    if len(lanes) > 1:
        versions = {lane.name: about for lane, (about, _) in zip(lanes, found)}
        run["servers"] = run.get("servers", {}) | versions
    if warnings:
        run["warnings"] = sorted({*run.get("warnings", []), *warnings})


def _joined(one: dict[str, dict], other: dict[str, dict], first: str, second: str) -> dict[str, dict]:
    """What is known of each file on either server. Raises ModelsError where it is not the same file."""
    for name, about in other.items():
        if about and one[name] and about["sha256"] != one[name]["sha256"]:
            raise models.ModelsError(
                f"{name} is another file on {second} than on {first}: give every server the same weights"
            )
    return {name: one[name] or other[name] for name in one}


def _plain(node: dict) -> str:
    """What a node's description says wherever it is installed: no list of files to choose from."""
    inputs = [
        [name, "COMBO" if isinstance(kind, list) else kind, more[0].get("tooltip") if more else None]
        for group in ("required", "optional")
        for name, (kind, *more) in node["input"].get(group, {}).items()
    ]
    return json.dumps([inputs, node.get("output_name"), node.get("description")])
