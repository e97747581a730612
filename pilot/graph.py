"""A workflow file as the page saves it -> the graph the server runs, by the page's own rules."""

from __future__ import annotations

PAGE_ONLY = {"Note", "MarkdownNote"}
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def graph_of(workflow: dict, object_info: dict) -> dict:
    """API-format graph of a UI-format workflow; `object_info` is the server's /object_info.

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
