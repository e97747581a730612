"""A workflow's file, laid out in titled columns from left to right.

Inputs, outputs and widgets of the nodes are the host's own.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import Any, NamedTuple

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
TITLE, GAP, MARGIN, COLUMN_GAP, WIDTH = 30, 24, 14, 70, 320
NOTE = {"width": 400, "height": 620, "color": "#432", "bgcolor": "#653"}
# The most a node takes of either kind of nodes after a run, with a square picture where it shows one.
HEIGHTS = {
    "AttentionMask": 620,
    "Canny": 120,
    "CheckpointLoaderSimple": 120,
    "CLIPLoader": 140,
    "CLIPTextEncode": 120,
    "ControlNetApplyAdvanced": 220,
    "ControlNetLoader": 80,
    "EtaApprove": 700,
    "EtaCompare": 560,
    "EtaCrop": 300,
    "EtaFlowEdit": 490,
    "EtaInversion": 450,
    "EtaKeep": 380,
    "EtaMasaCtrl": 260,
    "EtaMetrics": 440,
    "EtaPlugAndPlay": 170,
    "EtaPromptPair": 300,
    "EtaPromptToPrompt": 545,
    "EtaRegionEdit": 210,
    "EtaSampler": 480,
    "EtaSaveEdited": 620,
    "EtaSchedule": 470,
    "EtaStitch": 210,
    "EtaTune": 660,
    "EtaTuneExample": 160,
    "EtaVerdict": 320,
    "GrowMask": 110,
    "ImageBatch": 80,
    "ImageFromBatch": 110,
    "ImageStitch": 190,
    "LatentBatch": 80,
    "LoadImage": 460,
    "LoraLoaderModelOnly": 110,
    "MaskToImage": 60,
    "ModelSamplingAuraFlow": 80,
    "PreviewAny": 160,
    "PreviewImage": 420,
    "SAM3_Detect": 230,
    "SaveImage": 440,
    "UNETLoader": 110,
    "VAEDecode": 70,
    "VAEEncode": 70,
    "VAELoader": 80,
}


class Output(NamedTuple):
    node: dict
    slot: int


class Node(dict):
    """A node of the file; node["NAME"] of an output is what links start from."""

    def out(self, name: str | int = 0) -> Output:
        names = [slot["name"] for slot in self["outputs"]]
        return Output(self, name if isinstance(name, int) else names.index(name))


class Sheet:
    """A workflow in the making. info: what the server's /object_info says."""

    def __init__(self, name: str, info: dict, note: str):
        self._info, self._x, self._y = info, 0, 0
        self.nodes: list[dict] = []
        self.links: list[list] = []
        self.groups: list[dict] = []
        self._note(f"## {name}\n\n" + re.sub(r"\n +", " ", note).strip())

    def column(self, title: str, width: int = WIDTH) -> None:
        """Start a column; the nodes added after it stand in it, from the top down."""
        if self.groups:
            self._x += self.groups[-1]["bounding"][2] + COLUMN_GAP - 2 * MARGIN
        self._y = MARGIN + TITLE
        box = [self._x - MARGIN, -TITLE, width + 2 * MARGIN, 0]
        self.groups.append(
            {
                "id": len(self.groups) + 1,
                "title": title,
                "bounding": box,
                "color": "#3f789e",
                "font_size": 24,
                "flags": {},
            }
        )

    def add(
        self,
        kind: str,
        title: str = "",
        models: list[dict] | None = None,
        colour: tuple = (),
        **inputs: Any,
    ) -> Node:
        """A node below the last one. inputs: an Output makes a link, anything else is a widget's value."""
        spec = self._info[kind]
        number, width = len(self.nodes) + 1, self.groups[-1]["bounding"][2] - 2 * MARGIN
        sockets, linked, values = [], [], []
        for name, kind_of, options in _specs(spec):
            given = inputs.pop(name, None)
            link = self._link(given, number) if isinstance(given, Output) else None
            if not _is_widget(kind_of, options):
                sockets.append({"name": name, "type": kind_of, "link": link})
                continue
            values.append(_default(kind_of, options) if given is None or link is not None else given)
            if options.get("control_after_generate"):
                values.append("fixed")
            if options.get("image_upload"):
                values.append("image")
            if link is not None:
                shown = "COMBO" if isinstance(kind_of, list) else kind_of
                linked.append({"name": name, "type": shown, "link": link, "widget": {"name": name}})
        if inputs:
            raise ValueError(f"{kind} has no input {', '.join(inputs)}")
        slots = [*sockets, *linked]
        for i, slot in enumerate(slots):
            if slot["link"] is not None:
                self.links[slot["link"] - 1][4:] = [i, self.links[slot["link"] - 1][5]]
        node = Node(
            id=number,
            type=kind,
            pos=[self._x, self._y],
            size=[width, HEIGHTS[kind]],
            flags={},
            order=number - 1,
            mode=0,
            inputs=slots,
            outputs=[
                {"name": name, "type": of, "links": []}
                for name, of in zip(spec["output_name"], spec["output"])
            ],
            properties={"Node name for S&R": kind} | ({"models": models} if models else {}),
            widgets_values=values,
        )
        if title:
            node["title"] = title
        if colour:
            node["color"], node["bgcolor"] = colour
        self._y += HEIGHTS[kind] + TITLE + GAP
        self.groups[-1]["bounding"][3] = max(self.groups[-1]["bounding"][3], self._y + MARGIN - GAP)
        self.nodes.append(node)
        return node

    def text(self) -> str:
        content = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, self.nodes[0]["widgets_values"][0])),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": self.nodes,
            "links": self.links,
            "groups": self.groups,
            "config": {},
            "extra": {"ds": {"scale": 0.7, "offset": [520, 120]}},
            "version": 0.4,
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def _note(self, text: str) -> None:
        self.nodes.append(
            {
                "id": 1,
                "type": "MarkdownNote",
                "pos": [-NOTE["width"] - COLUMN_GAP, 0],
                "size": [NOTE["width"], NOTE["height"]],
                "flags": {},
                "order": 0,
                "mode": 0,
                "inputs": [],
                "outputs": [],
                "properties": {},
                "widgets_values": [text],
                "title": "Read me",
                "color": NOTE["color"],
                "bgcolor": NOTE["bgcolor"],
            }
        )

    def _link(self, start: Output, number: int) -> int:
        source = start.node["outputs"][start.slot]
        self.links.append([len(self.links) + 1, start.node["id"], start.slot, number, 0, source["type"]])
        source["links"].append(len(self.links))
        return len(self.links)


def _specs(spec: dict):
    for kind in ("required", "optional"):
        for name, value in spec["input"].get(kind, {}).items():
            yield name, value[0], value[1] if len(value) > 1 else {}


def _is_widget(kind, options: dict) -> bool:
    return (isinstance(kind, list) or kind in WIDGETS) and not options.get("forceInput")


def _default(kind, options: dict):
    if "default" in options:
        return options["default"]
    choices = kind if isinstance(kind, list) else options.get("options", [])
    return choices[0] if choices else ""
