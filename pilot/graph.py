"""Graphs as the server runs them: what is where in one, and how a workflow file becomes one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

Graph = dict[str, dict]

PAGE_ONLY = {"Note", "MarkdownNote"}
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def graph_of(workflow: dict, object_info: dict) -> dict:
    """A file as the page saves it -> its graph in API format, by the page's own rules.

    object_info: the server's /object_info.

    Raises ValueError for nodes the server does not have and for muted or bypassed nodes, which need the page.
    """
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    return {
        str(node["id"]): _node(node, links, object_info)
        for node in workflow["nodes"]
        if node["type"] not in PAGE_ONLY
    }


def _node(node: dict, links: dict, object_info: dict) -> dict:
    if node.get("mode", 0) != 0:
        raise ValueError(f"node {node['id']} ({node['type']}) is muted or bypassed")
    if node["type"] not in object_info:
        raise ValueError(f"the server has no node {node['type']}")
    specs = object_info[node["type"]]["input"]
    values = iter(node.get("widgets_values", []))
    linked = {
        slot["name"]: links[slot["link"]] for slot in node.get("inputs", []) if slot.get("link") is not None
    }
    inputs = {}
    for name, spec in [*specs.get("required", {}).items(), *specs.get("optional", {}).items()]:
        options = spec[1] if len(spec) > 1 else {}
        if _is_widget(spec[0], options):
            inputs[name] = next(values, options.get("default"))  # a file from before a widget was added
            if options.get("control_after_generate") or options.get("image_upload"):
                next(values, None)
        if name in linked:
            inputs[name] = linked[name]
    return {"class_type": node["type"], "inputs": inputs, "_meta": {"title": node.get("title", node["type"])}}


def _is_widget(kind, options: dict) -> bool:
    return (isinstance(kind, list) or kind in WIDGET_TYPES) and not options.get("forceInput")


# --- what is where --------------------------------------------------------------------------------


def node_of(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


def is_link(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
    )


def links_of(node: dict) -> Iterator[list]:
    return (value for value in node["inputs"].values() if is_link(value))


def behind(graph: Graph, links: Iterable[list]) -> set[str]:
    """Ids of all nodes that `links` depend on."""
    found: set[str] = set()
    ahead = [link[0] for link in links]
    while ahead:
        node_id = ahead.pop()
        if node_id in graph and node_id not in found:
            found.add(node_id)
            ahead += [link[0] for link in links_of(graph[node_id])]
    return found


def of_type(graph: Graph, kind: str, among: Collection[str]) -> list[str]:
    return [node_id for node_id in graph if node_id in among and graph[node_id]["class_type"] == kind]


def title_of(node: dict) -> str:
    return node.get("_meta", {}).get("title") or node["class_type"]


def named(graph: Graph, name: str) -> list[str]:
    return [
        node_id for node_id, node in graph.items() if name in (node_id, title_of(node), node["class_type"])
    ]


def names_of(graph: Graph, node_ids: Collection[str]) -> str:
    """The nodes as a user knows them."""
    return ", ".join(
        f"{node['class_type']} {node_id}"
        + (f" '{title_of(node)}'" if title_of(node) != node["class_type"] else "")
        for node_id, node in graph.items()
        if node_id in node_ids
    )
