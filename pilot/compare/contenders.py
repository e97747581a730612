"""What --model and --try name: models at settings, each with its workflow, its changes and a folder."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import workflow
from ..graph import Graph, is_link, names_of, of_type
from .comparison import CompareError, Contender

WORKFLOW = ".json"


@dataclass(frozen=True)
class Named:
    """A model as the command line names it: a checkpoint's name on the server, or a workflow's file."""

    label: str
    value: str

    @property
    def is_workflow(self) -> bool:
        return self.value.lower().endswith(WORKFLOW)


@dataclass(frozen=True)
class Planned:
    """A contender, its workflow, and what is changed in it, as --set has it."""

    contender: Contender
    workflow: Path
    changes: tuple[str, ...]


def named(text: str) -> Named:
    """LABEL=NAME, or NAME, which is its own label without its ending. Raises CompareError."""
    label, equals, value = text.partition("=")
    if not equals:
        label, value = Path(text.replace("\\", "/")).stem, text
    label, value = label.strip(), value.strip()
    if not (label and value):
        raise CompareError(f"--model {text!r} must be NAME or LABEL=NAME, such as new=checkpoint.safetensors")
    return Named(label, value)


def settings(tried: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """(label, changes) of every combination of --try NODE.input=V1,V2; without any, one without changes.

    Raises CompareError.
    """
    choices = []
    for text in tried:
        where, equals, listed = text.partition("=")
        values = [value.strip() for value in listed.split(",")]
        if not (equals and where.rpartition(".")[0] and len(values) > 1 and all(values)):
            raise CompareError(
                f"--try {text!r} must be NODE.input=VALUE,VALUE, such as EtaSchedule.end_eta=0.5,1"
            )
        choices.append([(f"{where.rpartition('.')[2]}={value}", f"{where}={value}") for value in values])
    return [
        (", ".join(label for label, _ in chosen), tuple(change for _, change in chosen))
        for chosen in itertools.product(*choices)
    ]


def plan(
    models: Sequence[Named],
    tried: Sequence[str],
    default: Path,
    changes: Sequence[str],
    out: Path,
    object_info: dict,
) -> list[Planned]:
    """Each model at each setting. default: a checkpoint's workflow. Raises CompareError, WorkflowError."""
    found = []
    for model in models:
        path = Path(model.value) if model.is_workflow else default
        graph = workflow.read(path, object_info)
        loads = () if model.is_workflow else (f"{_place(graph, path.name)}={model.value}",)
        for setting, more in settings(tried):
            contender = Contender(model.label, setting, out / _slug(f"{model.label} {setting}"))
            found.append(Planned(contender, path, (*changes, *loads, *more)))
    folders = Counter(str(one.contender.folder).casefold() for one in found)
    same = [one.contender.name for one in found if folders[str(one.contender.folder).casefold()] > 1]
    if same:
        raise CompareError(f"{', '.join(same)} would share a folder: give them other labels, LABEL=NAME")
    return found


def check(
    plans: Iterable[Planned], mask: str, clip: workflow.Clip, edited: str, side: int | None, object_info: dict
) -> list[str]:
    """The names of all their weights.

    Raises WorkflowError, which names the model, where one's workflow cannot run on the server.
    """
    names: set[str] = set()
    for one in plans:
        try:
            graph = workflow.override(workflow.read(one.workflow, object_info), one.changes)
            found = workflow.form(graph, mask, False, clip, edited, side).graph
            workflow.check_models(found, object_info)
        except workflow.WorkflowError as error:
            raise workflow.WorkflowError(f"{one.contender.name}: {error}") from None
        names.update(workflow.models_of(found))
    return sorted(names)


def _place(graph: Graph, name: str) -> str:
    """NODE.input of the one file that the edit's model is loaded from. Raises CompareError."""
    loaders = _loaders(graph)
    places = [
        (node_id, field)
        for node_id in loaders
        for field, value in graph[node_id]["inputs"].items()
        if value in workflow.models_of({node_id: graph[node_id]})
    ]
    if len(places) != 1:
        what = names_of(graph, loaders) or "no loader"
        raise CompareError(
            f"{name}: which file is the model? Its edit takes the model from {what}: name whole workflows "
            "with --model, or try the file's names with --try NODE.input=NAME,NAME"
        )
    ((node_id, field),) = places
    kind = graph[node_id]["class_type"]
    return f"{kind if len(of_type(graph, kind, graph)) == 1 else node_id}.{field}"


def _loaders(graph: Graph) -> list[str]:
    """Where the models of the edit come from, behind LoRAs and whatever else takes a model and gives one."""
    kinds = {*workflow.SAMPLERS, *workflow.SOURCES}
    ahead = [node_id for node_id, node in graph.items() if node["class_type"] in kinds]
    seen: set[str] = set()
    found = []
    while ahead:
        node_id = ahead.pop()
        if node_id in seen or node_id not in graph:
            continue
        seen.add(node_id)
        inputs = graph[node_id]["inputs"].items()
        behind = [value[0] for field, value in inputs if field.startswith("model") and is_link(value)]
        ahead += behind
        if not behind:
            found.append(node_id)
    return found


def _slug(name: str) -> str:
    """A folder's name: letters, digits, points and hyphens."""
    return re.sub(r"[^\w.]+", "-", name).strip("-.") or "model"
