"""A workflow at a photograph's full size: the part around the region is edited, and put back into it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .graph import Graph, behind, is_link, node_of

SMALL, FOUND, SCALED, LARGE, KEPT, CROP, STITCH = (
    f"pilot_{name}" for name in ("small", "found", "scaled", "large", "kept", "crop", "stitch")
)
SEAM = {"grow": 4, "feather": 12, "match_colour": 1.0, "grain": 0.0}
LEAST, MOST = 0.01, 16.0  # megapixels that EtaCrop takes
RETURNS = {"EtaStitch": 1, "EtaKeep": 3}  # nodes that put an edit back -> their output for where it shows
Link = list


@dataclass(frozen=True)
class Photograph:
    """What an item fills in: the file of its small copy, and its full width and height.

    side: of the square whose area the edited part has.
    """

    small: object
    width: object
    height: object
    side: int

    def scaled(self, picture: Link) -> dict:
        """A node that scales a picture of the small copy to the full size."""
        size = {"width": self.width, "height": self.height}
        return node_of("ImageScale", image=picture, upscale_method="bilinear", crop="disabled", **size)


def enlarge(graph: Graph, loader: str, edited: Link, mask: Link | None, photograph: Photograph) -> Link:
    """Edit the photograph that node `loader` loads at its own size -> the link of the whole edited picture.

    Around the mask a part is cut out, edited and stitched in; a mask that is computed from the photograph is
    computed from its small copy. Without a mask the small copy is edited, and only what changed is taken from
    it. Changes the graph.
    """
    whole: Link = [loader, 0]
    used = behind(graph, [edited])
    if mask is None:
        graph[SMALL] = node_of("LoadImage", image=photograph.small)
        _relink(graph, used, {(loader, 0): [SMALL, 0]})
        graph[SCALED] = photograph.scaled(edited)
        graph[KEPT] = node_of("EtaKeep", source=whole, edited=[SCALED, 0], align=False, limit=5.0, **SEAM)
        return [KEPT, 0]
    side = photograph.side
    graph[CROP] = node_of(
        "EtaCrop",
        image=whole,
        mask=_of_small_copy(graph, loader, mask, photograph),
        megapixels=min(max(side * side / 2**20, LEAST), MOST),
        multiple=16,
        context=0.5,
    )
    _relink(graph, used, {(loader, 0): [CROP, 0], (mask[0], mask[1]): [CROP, 1]})
    graph[STITCH] = node_of("EtaStitch", source=whole, edited=edited, place=[CROP, 2], **SEAM)
    return [STITCH, 0]


def changed(graph: Graph, edited: Link) -> Link | None:
    """Where the edit shows, of a picture that EtaStitch or EtaKeep made."""
    output = RETURNS.get(graph[edited[0]]["class_type"]) if edited[1] == 0 else None
    return None if output is None else [edited[0], output]


def _of_small_copy(graph: Graph, loader: str, mask: Link, photograph: Photograph) -> Link:
    """The mask as it is found on the small copy: what lies between the photograph and the mask, once more."""
    between = {node_id for node_id in behind(graph, [mask]) if loader in behind(graph, [[node_id, 0]])}
    if not between - {loader}:
        return mask
    graph[SMALL] = node_of("LoadImage", image=photograph.small)
    names = {node_id: SMALL if node_id == loader else f"{SMALL}_{node_id}" for node_id in between}
    for node_id in between - {loader}:
        graph[names[node_id]] = graph[node_id] | {
            "inputs": {
                name: [names[value[0]], value[1]] if is_link(value) and value[0] in names else value
                for name, value in graph[node_id]["inputs"].items()
            }
        }
    graph[FOUND] = node_of("MaskToImage", mask=[names[mask[0]], mask[1]])
    graph[SCALED] = photograph.scaled([FOUND, 0])
    graph[LARGE] = node_of("ImageToMask", image=[SCALED, 0], channel="red")
    return [LARGE, 0]


def _relink(graph: Graph, nodes: Iterable[str], links: dict[tuple[str, int], Link]) -> None:
    for node_id in nodes:
        inputs = graph[node_id]["inputs"]
        for name, value in inputs.items():
            if is_link(value):
                inputs[name] = links.get((value[0], value[1]), value)
