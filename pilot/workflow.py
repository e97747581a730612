"""Any workflow of this pack as a form for an item's picture, prompts, words, mask and seed.

The workflow's other previews and saved files are left out. EtaMetrics is added, so that every figure comes
from one node.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eta_core.plain_json import read_json

from . import full_size
from .graph import Graph, behind, graph_of, is_link, links_of, named, names_of, node_of, of_type, title_of

FIELDS = (
    "picture",
    "small",
    "width",
    "height",
    "mask",
    "source",
    "target",
    "words",
    "target_words",
    "has_words",
    "seed",
)
PLACE = re.compile(r"\{(" + "|".join(FIELDS) + r")\}")
MASKS = ("auto", "given", "none")  # the workflow's own, the item's, no mask
TEXTS = {  # nodes that encode a prompt -> their inputs for it
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeSDXL": ("text_g", "text_l"),
    "CLIPTextEncodeSDXLRefiner": ("text",),
    "CLIPTextEncodeFlux": ("clip_l", "t5xxl"),
    "CLIPTextEncodeSD3": ("clip_l", "clip_g", "t5xxl"),
}
PAIR = {0: "source_prompt", 1: "target_prompt"}  # EtaPromptPair's outputs -> the input each one encodes
OPTIONAL_MASKS = {
    "EtaSampler": ("mask",),
    "EtaFlowEdit": ("mask",),
    "EtaKeep": ("mask",),
    "EtaMasaCtrl": ("source_mask", "target_mask"),
    "EtaPromptToPrompt": ("blend_mask",),
}
SOURCES = {"EtaInversion": "positive", "EtaFlowEdit": "source"}  # what takes the picture -> its source prompt
SAMPLERS = ("EtaSampler", "EtaFlowEdit")
NEITHER = "no Eta Inversion and Eta Sampler, and no Eta Flow Edit"
EDITED, MASK, HEATMAP, FIGURES = "pilot_edited", "pilot_mask", "pilot_heatmap", "pilot_figures"
GIVEN, METRICS, CLIP, CLIP_VISION, MASK_PICTURE = (
    f"pilot_{name}" for name in ("given_mask", "metrics", "clip", "clip_vision", "mask_picture")
)
SHOWN = (EDITED, MASK, HEATMAP, FIGURES)
SAVING = ("SaveImage", "EtaSaveEdited")
NEEDED = ("EtaMetrics", "PreviewAny", "PreviewImage", "MaskToImage", "LoadImageMask")


class WorkflowError(Exception):
    """The workflow cannot take an item, and what to do about it."""


@dataclass(frozen=True)
class Slot:
    """An input that an item fills: text with {names} of FIELDS."""

    text: str

    def filled(self, values: Mapping[str, object]) -> object:
        whole = PLACE.fullmatch(self.text)
        return values[whole[1]] if whole else PLACE.sub(lambda found: str(values[found[1]]), self.text)


@dataclass(frozen=True)
class Clip:
    """File names on the server of a CLIP's two halves, for EtaMetrics."""

    text: str = ""
    vision: str = ""


@dataclass(frozen=True)
class Form:
    """A graph whose inputs may be Slots.

    scored: the mask of the figures: "given", "auto" or "none". keeps_size: whether the item's picture is
    encoded as it is, so that the edit has its size.
    """

    graph: Graph
    scored: str
    keeps_size: bool

    def filled(self, values: Mapping[str, object]) -> Graph:
        return {
            node_id: node
            | {
                "inputs": {
                    k: v.filled(values) if isinstance(v, Slot) else v for k, v in node["inputs"].items()
                }
            }
            for node_id, node in self.graph.items()
        }


def read(path: Path, object_info: dict) -> Graph:
    """The API-format graph of a workflow file, saved by the page or exported for the API. WorkflowError."""
    try:
        found = read_json(path.read_text(encoding="utf-8"), "the file")
    except (OSError, ValueError) as error:
        raise WorkflowError(f"{path} cannot be read as a workflow: {error}") from None
    try:
        graph = (
            graph_of(found, object_info)
            if isinstance(found, dict) and {"nodes", "links"} <= set(found)
            else found
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise WorkflowError(f"{path.name}: {error}; or save it in the page with File, Export (API)") from None
    if not isinstance(graph, dict) or not graph or not all(_is_node(node) for node in graph.values()):
        raise WorkflowError(
            f"{path} is no workflow: it must be saved by ComfyUI's page, or with File, Export (API)"
        )
    unknown = sorted({*NEEDED, *(node["class_type"] for node in graph.values())} - set(object_info))
    if unknown:
        raise WorkflowError(
            f"{path.name}: the server has no node {', '.join(unknown)}; install or update its pack there"
        )
    return graph


def _is_node(node: object) -> bool:
    return (
        isinstance(node, dict)
        and isinstance(node.get("class_type"), str)
        and isinstance(node.get("inputs"), dict)
    )


def override(graph: Graph, settings: Iterable[str]) -> Graph:
    """The graph with each setting NODE.input=VALUE; NODE is a node's type, title or id. WorkflowError."""
    graph = {node_id: node | {"inputs": dict(node["inputs"])} for node_id, node in graph.items()}
    for setting in settings:
        where, equals, value = setting.partition("=")
        name, dot, field = where.rpartition(".")
        if not (equals and dot):
            raise WorkflowError(f"'{setting}' must be written NODE.input=VALUE, as in EtaInversion.steps=20")
        nodes = [graph[node_id] for node_id in named(graph, name)]
        if not nodes:
            raise WorkflowError(f"'{setting}': no node is called {name}; there are {names_of(graph, graph)}")
        for node in nodes:
            if field not in node["inputs"]:
                inputs = ", ".join(node["inputs"]) or "no inputs"
                raise WorkflowError(
                    f"'{setting}': {node['class_type']} has no input {field}; it has {inputs}"
                )
            node["inputs"][field] = _value(value)
    return graph


def _value(text: str) -> object:
    if PLACE.search(text):
        return Slot(text)
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def form(
    graph: Graph, mask: str, has_mask: bool, clip: Clip, edited: str = "", side: int | None = None
) -> Form:
    """Where everything goes.

    mask: one of MASKS. has_mask: whether the item has a mask for the figures. edited: the node whose picture
    is the edit, where the workflow has several. side: pictures come at their full size, and the part that is
    edited has the area of a square of this side. Raises WorkflowError naming what cannot be found.
    """
    graph = _unasked({node_id: node | {"inputs": dict(node["inputs"])} for node_id, node in graph.items()})
    picture = _unjudged(graph, _edited_picture(graph, edited))
    used = behind(graph, [picture])
    samplers, takers = (
        [node_id for kind in kinds for node_id in of_type(graph, kind, used)] for kinds in (SAMPLERS, SOURCES)
    )
    if not (samplers and takers):
        raise WorkflowError(f"the edited picture comes from {NEITHER}: a pilot runs workflows of these")
    _place(graph, mask, picture, samplers, takers)
    _check_regions(graph, used)
    own = _own_mask(graph, samplers)
    scored = "given" if has_mask else "auto" if own else "none"
    graph[GIVEN] = node_of("LoadImageMask", image=Slot("{mask}"), channel="red")
    if side is not None and not of_type(graph, "EtaCrop", used):
        (loader,) = _loaders(graph, takers)
        photograph = full_size.Photograph(Slot("{small}"), Slot("{width}"), Slot("{height}"), side)
        picture = full_size.enlarge(graph, loader, picture, own, photograph)
    source = _source_picture(graph, picture, takers)
    own = _of_whole(graph, _own_mask(graph, samplers))
    _measure(graph, source, picture, [GIVEN, 0] if has_mask else own, clip)
    _show(graph, picture, own if side is None else full_size.changed(graph, picture) or own)
    kept = behind(graph, [[name, 0] for name in SHOWN if name in graph])
    keeps_size = graph[source[0]]["class_type"] == "LoadImage"
    return Form({node_id: node for node_id, node in graph.items() if node_id in kept}, scored, keeps_size)


def _place(graph: Graph, mask: str, picture: list, samplers: list[str], takers: list[str]) -> None:
    """Put a Slot into every input that an item fills. Where the user has put one, no other is looked for."""
    taken = " ".join(
        value.text for node in graph.values() for value in node["inputs"].values() if isinstance(value, Slot)
    )
    loader = None if "{picture}" in taken else _place_picture(graph, takers)
    if "{source}" not in taken:
        prompts = [graph[node_id]["inputs"].get(SOURCES[graph[node_id]["class_type"]]) for node_id in takers]
        _place_prompt(graph, prompts, "source")
    if "{target}" not in taken:
        _place_prompt(graph, [graph[node_id]["inputs"].get("positive") for node_id in samplers], "target")
    if "{seed}" not in taken:
        for node_id in samplers:
            graph[node_id]["inputs"]["seed"] = Slot("{seed}")
    _place_mask(graph, mask, samplers, loader, behind(graph, [picture]))
    if "{words}" not in taken:
        _place_words(graph, of_type(graph, "AttentionMask", behind(graph, [picture])))


def _measure(graph: Graph, source: list, edited: list, mask: list | None, clip: Clip) -> None:
    inputs = {
        "source": source,
        "edited": edited,
        "source_prompt": Slot("{source}"),
        "target_prompt": Slot("{target}"),
    }
    if mask:
        inputs["mask"] = mask
    if clip.text and clip.vision:
        graph[CLIP] = node_of("CLIPLoader", clip_name=clip.text, type="stable_diffusion")
        graph[CLIP_VISION] = node_of("CLIPVisionLoader", clip_name=clip.vision)
        inputs |= {"clip": [CLIP, 0], "clip_vision": [CLIP_VISION, 0]}
    graph[METRICS] = node_of("EtaMetrics", **inputs)
    graph[FIGURES] = node_of("PreviewAny", source=[METRICS, 0])


def _show(graph: Graph, edited: list, mask: list | None) -> None:
    graph[EDITED] = node_of("PreviewImage", images=edited)
    if mask:
        graph[MASK_PICTURE] = node_of("MaskToImage", mask=mask)
        graph[MASK] = node_of("PreviewImage", images=[MASK_PICTURE, 0])
    attention = of_type(graph, "AttentionMask", behind(graph, [edited]))
    if attention:
        graph[HEATMAP] = node_of("PreviewImage", images=[attention[0], 1])


def wants_words(found: Form) -> bool:
    return any(node["class_type"] == "AttentionMask" for node in found.graph.values())


# --- what is where --------------------------------------------------------------------------------


def _edited_picture(graph: Graph, name: str) -> list:
    """The link with the edited picture: what the workflow saves of the edit, or what `name` shows."""
    shows = {
        node_id: node["inputs"]["images"]
        for node_id, node in graph.items()
        if is_link(node["inputs"].get("images"))
    }
    if name:
        called = named(graph, name)
        if len(called) != 1:
            raise WorkflowError(
                f"--edited {name} names {len(called)} nodes ({names_of(graph, called or graph)}): name one, "
                "or its id"
            )
        return shows.get(called[0], [called[0], 0])
    edits = {node_id: found for node_id, link in shows.items() if (found := _edits_in(graph, link))}
    saving = [node_id for node_id in edits if graph[node_id]["class_type"] in SAVING]
    titled = [node_id for node_id in saving if title_of(graph[node_id]).lower().startswith("edited")]
    found = titled or [node_id for node_id in saving if len(edits[node_id]) == 1]
    if len(found) == 1:
        return shows[found[0]]
    what = "saves several" if found else "saves no single one, and has"
    candidates = (
        names_of(graph, found or edits or [n for kind in SAMPLERS for n in of_type(graph, kind, graph)])
        or NEITHER
    )
    raise WorkflowError(
        f"which picture is the edit? The workflow {what}: {candidates}; name the node with --edited "
        "TITLE_OR_ID"
    )


def _edits_in(graph: Graph, link: list) -> set[str]:
    """The samplers whose edited latent, not their reconstruction, a link depends on."""
    ahead, seen, found = [link], [], set()
    while ahead:
        link = ahead.pop()
        node = graph.get(link[0])
        if node is None or link in seen:
            continue
        seen.append(link)
        if node["class_type"] in SAMPLERS:
            found |= {link[0]} if link[1] == 0 else set()
        else:
            ahead += links_of(node)
    return found


def _unjudged(graph: Graph, link: list) -> list:
    """The picture before an EtaVerdict, which may hold it back: the pilot's own policy judges it."""
    node = graph.get(link[0], {})
    if node.get("class_type") == "EtaVerdict" and is_link(node["inputs"].get("image")):
        return _unjudged(graph, node["inputs"]["image"])
    return link


ASKED = {0: "after", 1: "mask"}  # outputs of EtaApprove -> the inputs they pass on


def _unasked(graph: Graph) -> Graph:
    """Without EtaApprove, which would wait for a person at the page: the pilot's are reviewed afterwards."""

    def passed(value: Any) -> Any:
        while is_link(value) and graph.get(value[0], {}).get("class_type") == "EtaApprove":
            through = graph[value[0]]["inputs"].get(ASKED.get(value[1], ""))
            if not is_link(through):
                return value
            value = through
        return value

    for node in graph.values():
        node["inputs"] = {name: passed(value) for name, value in node["inputs"].items()}
    return graph


def _place_picture(graph: Graph, takers: list[str]) -> str:
    """Puts the picture into the one LoadImage that the edit's latent comes from -> its id."""
    found = _loaders(graph, takers)
    if len(found) != 1:
        what = f"{len(found)} LoadImage nodes ({names_of(graph, found)})" if found else "no LoadImage"
        raise WorkflowError(
            f"the edited latent's picture comes from {what}: it must be one; or say --set "
            f"'TITLE.image={{picture}}'"
        )
    graph[found[0]]["inputs"]["image"] = Slot("{picture}")
    return found[0]


def _loaders(graph: Graph, takers: list[str]) -> list[str]:
    """What loads the photograph: the node that the user has put it into, or all behind the edits."""
    found = of_type(graph, "LoadImage", behind(graph, [graph[n]["inputs"]["latent_image"] for n in takers]))
    chosen = [n for n in found if graph[n]["inputs"].get("image") == Slot("{picture}")]
    return chosen or found


def _place_prompt(graph: Graph, prompts: list, which: str) -> None:
    """Puts a prompt into the node that encodes these conditionings."""
    encoders = {place for prompt in prompts for place in _encoders(graph, prompt, which)}
    if len(encoders) != 1:
        what = names_of(graph, {node_id for node_id, _ in encoders}) or "no node that encodes text"
        raise WorkflowError(
            f"the {which} prompt comes from {what}: it must be one; or say --set 'TITLE.text={{{which}}}'"
        )
    ((node_id, fields),) = encoders
    if any(isinstance(graph[node_id]["inputs"].get(field), Slot) for field in fields):
        raise WorkflowError(
            f"{names_of(graph, [node_id])} encodes both prompts: give the target prompt an encoder of its own"
        )
    graph[node_id]["inputs"].update(dict.fromkeys(fields, Slot(f"{{{which}}}")))
    for node in graph.values():
        if is_link(node["inputs"].get(f"{which}_prompt")):
            node["inputs"][f"{which}_prompt"] = Slot(f"{{{which}}}")


def _encoders(graph: Graph, link: Any, which: str) -> set[tuple[str, tuple[str, ...]]]:
    """(node, its text inputs) of every encoder that a conditioning comes from.

    Through ControlNets and the like, the side is followed by which it came out.
    """
    if not is_link(link) or link[0] not in graph:
        return set()
    node_id, output = link
    node = graph[node_id]
    if node["class_type"] == "EtaPromptPair":
        return {(node_id, (PAIR[output],))} if output in PAIR else set()
    if node["class_type"] in TEXTS:
        return {(node_id, TEXTS[node["class_type"]])}
    sides = [node["inputs"].get(side) for side in ("positive", "negative")]
    links = [sides[output]] if all(map(is_link, sides)) and output < 2 else links_of(node)
    return {place for link in links for place in _encoders(graph, link, which)}


def _place_words(graph: Graph, attention: list[str]) -> None:
    if len(attention) > 1:
        raise WorkflowError(
            f"whose words? The workflow has {names_of(graph, attention)}; say --set 'TITLE.words={{words}}'"
        )
    for node_id in attention:
        graph[node_id]["inputs"]["words"] = Slot("{words}")


def _place_mask(graph: Graph, mask: str, samplers: list[str], loader: str | None, used: set[str]) -> None:
    """The item's mask wherever the workflow's own went on its way to the edit, or no mask at all."""
    own = [[node_id, 0] for node_id in of_type(graph, "AttentionMask", graph)] + [[loader, 1]] * (
        loader is not None
    )
    nodes = [graph[node_id] for node_id in used]
    ends = [(node, field) for node in nodes for field, value in node["inputs"].items() if value in own]
    if mask == "auto":
        if any(node["inputs"][field] == [loader, 1] for node, field in ends):
            raise WorkflowError(
                "this workflow takes its mask from the picture's file: run it with --mask given"
            )
    elif mask == "given":
        for node, field in ends:
            node["inputs"][field] = [GIVEN, 0]
        if not ends:
            for node_id in samplers:
                graph[node_id]["inputs"]["mask"] = [GIVEN, 0]
    else:
        for node in graph.values():
            for field in OPTIONAL_MASKS.get(node["class_type"], ()):
                node["inputs"].pop(field, None)
        for node_id in samplers:
            if "background_lock" in graph[node_id]["inputs"]:
                graph[node_id]["inputs"]["background_lock"] = 0.0


def _own_mask(graph: Graph, samplers: list[str]) -> list | None:
    found = [
        graph[node_id]["inputs"]["mask"]
        for node_id in samplers
        if is_link(graph[node_id]["inputs"].get("mask"))
    ]
    return found[0] if found else None


def _of_whole(graph: Graph, mask: list | None) -> list | None:
    """The mask of the photograph, where `mask` is that of a part of it."""
    while (
        mask and graph[mask[0]]["class_type"] == "EtaCrop" and is_link(graph[mask[0]]["inputs"].get("mask"))
    ):
        mask = graph[mask[0]]["inputs"]["mask"]
    return mask


def _source_picture(graph: Graph, edited: list, takers: list[str]) -> list:
    """What the edit is put back into, or what is encoded for the edit."""
    last = graph[edited[0]]
    if last["class_type"] in full_size.RETURNS and is_link(last["inputs"].get("source")):
        return last["inputs"]["source"]
    links = [graph[node_id]["inputs"]["latent_image"] for node_id in takers]
    for node_id in sorted(behind(graph, links)):
        if graph[node_id]["class_type"].startswith("VAEEncode") and is_link(
            graph[node_id]["inputs"].get("pixels")
        ):
            return graph[node_id]["inputs"]["pixels"]
    raise WorkflowError(
        "no VAE Encode makes the latent that is edited: the figures need the picture it was made of"
    )


def _check_regions(graph: Graph, used: set[str]) -> None:
    """An item has one target prompt: one of a region must have been placed by hand."""
    for node_id in of_type(graph, "EtaRegionEdit", used):
        encoders = _encoders(graph, graph[node_id]["inputs"].get("positive"), "target")
        fixed = {
            n for n, fields in encoders if not any(isinstance(graph[n]["inputs"][f], Slot) for f in fields)
        }
        if fixed:
            raise WorkflowError(
                f"{names_of(graph, fixed)} is a second target prompt, of Eta Region Edit: say --set "
                f"'TITLE.text={{target}}', or any text with {{words}}"
            )


ENDING = ("linear", "constant", "cosine", "custom")  # presets of EtaSchedule that read its end_eta


def with_eta(graph: Graph, eta: float) -> Graph:
    """A filled graph with another end_eta in its Eta Schedules. WorkflowError where one does not read it."""
    schedules = of_type(graph, "EtaSchedule", graph)
    deaf = [node_id for node_id in schedules if not _reads_end(graph[node_id]["inputs"])]
    if deaf or not schedules:
        what = names_of(graph, deaf) or "no Eta Schedule"
        raise WorkflowError(
            f"the item's eta needs an Eta Schedule that reads end_eta ({', '.join(ENDING)}); the workflow "
            f"has {what}"
        )
    changed = {n: graph[n] | {"inputs": graph[n]["inputs"] | {"end_eta": eta}} for n in schedules}
    return graph | changed


def _reads_end(inputs: Mapping[str, Any]) -> bool:
    curve = inputs.get("preset") == "custom" and inputs.get("curve")
    return inputs.get("preset") in ENDING and not curve and not is_link(inputs.get("end_eta"))


def eta_of(nodes: Mapping[str, Mapping[str, Any]]) -> float | None:
    """The end_eta of a run's Eta Schedules, by run.json's nodes; None where an item has no say in it."""
    found = [values for name, values in nodes.items() if name.startswith("EtaSchedule ")]
    ends = {values.get("end_eta") for values in found if _reads_end(values)}
    return ends.pop() if len(ends) == 1 and all(map(_reads_end, found)) else None


# --- what the report says of it -------------------------------------------------------------------

MODELS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".sft")


def models_of(graph: Graph) -> list[str]:
    """Names of the model files a graph loads."""
    return sorted({value for node in graph.values() for value in node["inputs"].values() if _is_model(value)})


def _is_model(value: object) -> bool:
    return isinstance(value, str) and value.lower().endswith(MODELS)


def check_models(graph: Graph, object_info: dict) -> None:
    """Raises WorkflowError for a node or a model file that the server lacks: it would refuse every item."""
    missing = sorted({node["class_type"] for node in graph.values()} - set(object_info))
    if missing:
        raise WorkflowError(f"the server has no node {', '.join(missing)}: install there what has it")
    for node in graph.values():
        specs = object_info[node["class_type"]]["input"]
        for field, (kind, *options) in {**specs.get("required", {}), **specs.get("optional", {})}.items():
            choices = options[0].get("options") if kind == "COMBO" and options else kind
            value = node["inputs"].get(field)
            if isinstance(choices, list) and _is_model(value) and value not in choices:
                there = ", ".join(map(str, choices)) or "none"
                raise WorkflowError(
                    f"{node['class_type']}: the server has no {field} {value}; there are {there}"
                )


def settings_of(graph: Graph) -> dict[str, dict]:
    """The plain settings of this pack's nodes, by node."""
    ours = {
        node_id: node
        for node_id, node in graph.items()
        if node["class_type"].startswith(("Eta", "AttentionMask"))
    }
    return {
        f"{node['class_type']} {node_id}": plain
        for node_id, node in ours.items()
        if (plain := {k: v for k, v in node["inputs"].items() if not is_link(v) and not isinstance(v, Slot)})
    }
