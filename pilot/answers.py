"""What a server answers, checked before anything is used."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Model = TypeVar("Model", bound=BaseModel)


class Answer(BaseModel):
    """Further names in an answer are not read."""

    model_config = ConfigDict(extra="ignore")


class Queue(Answer):
    queue_running: list[list[Any]]
    queue_pending: list[list[Any]]


class Submitted(Answer):
    prompt_id: str = Field(min_length=1, max_length=200)


class Uploaded(Answer):
    name: str
    subfolder: str = ""
    type: str = "input"


class Image(Answer):
    filename: str
    subfolder: str = ""
    type: str = "output"


class Output(Answer):
    images: list[Image] = Field(default=[], max_length=256)
    text: list[Any] = []


class Status(Answer):
    status_str: str
    messages: list[tuple[str, dict[str, Any]]] = []


class Entry(Answer):
    """What the server's history says of a graph."""

    status: Status
    outputs: dict[str, Any] = {}

    def output(self, node_id: str) -> Output:
        """What a node has shown. Raises ValueError where it cannot be read."""
        return read(Output, self.outputs.get(node_id, {}))


class System(Answer):
    comfyui_version: str | None = None
    pytorch_version: str | None = None
    os: str | None = None
    argv: list[str] = []


class Stats(Answer):
    system: System


class NodeInputs(Answer):
    required: dict[str, list[Any]] = {}
    optional: dict[str, list[Any]] = {}


class NodeInfo(Answer):
    input: NodeInputs


def read(model: type[Model], found: object) -> Model:
    """An answer as `model` has it. Raises ValueError, which says what is wrong with it."""
    try:
        return model.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))[:80] or "it"
        raise ValueError(f"{where} is {str(first['input'])[:80]!r}: {first['msg']}") from None


def is_node(found: object) -> bool:
    """Whether /object_info describes a node in terms that can be read."""
    try:
        inputs = read(NodeInfo, found).input
    except ValueError:
        return False
    specs = [*inputs.required.values(), *inputs.optional.values()]
    return all(spec and (len(spec) < 2 or isinstance(spec[1], dict)) for spec in specs)
