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
        try:
            workflow.check_models(graph, info)
        except WorkflowError as error:
            raise WorkflowError(f"{lane.name}: {error}") from None
        others = [name for name in used if _plain(info[name]) != _plain(infos[0][name])]
        if others:
            warnings.append(f"{', '.join(others)} of {lane.name} differ from those of {lanes[0].name}")
    return warnings


def described(
    before: dict, lanes: Sequence[Handle], names: Iterable[str], folders: Iterable[Path], warnings: list[str]
) -> dict:
    """What run.json is to say of the servers and their weights.

    before: its content, empty for a new run. warnings: what is known to differ; differing versions are added.
    Raises ModelsError where weights differ among the servers, or are others than the run began with.
    """
    known = before.get("models", {})
    found = asked(lanes, "about", list(names), list(folders), known)
    first, (versions, weights) = lanes[0].name, found[0]
    for lane, (others, theirs) in zip(lanes[1:], found[1:]):
        weights = _joined(weights, theirs, first, lane.name)
        said = ", ".join(
            f"{name} {others[name]} and {versions[name]}" for name in others if others[name] != versions[name]
        )
        if said:
            warnings = [*warnings, f"{lane.name} and {first} differ in {said}"]
    models.check(weights, known)
    told = {"server": versions, "models": weights}
    if len(lanes) > 1:
        told["servers"] = before.get("servers", {}) | {lane.name: one for lane, (one, _) in zip(lanes, found)}
    if warnings:
        told["warnings"] = sorted({*before.get("warnings", []), *warnings})
    return told


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
