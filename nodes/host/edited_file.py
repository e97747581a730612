"""Edited pictures in the output folder, with what their source's file carries and their marks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import folder_paths
from comfy.cli_args import args
from comfy_execution.graph_utils import is_link
from torch import Tensor

from ...eta_core import files
from .folders import picture_path, save_new
from .messages import warn

CREDENTIALS = "eta_credentials"  # the folder below the host's user folder with certificate.pem and key.pem
FROM_GRAPH, NO_FILE = "from Load Image", "none"
RETURNING = {"EtaKeep": "source", "EtaStitch": "source"}  # nodes that put an edit back -> into what
MASK_EDITORS = "clipspace"  # the folder of the pictures into which the page's mask editor has painted
LOADING = {"LoadImage": "image", "LoadImageOutput": "image"}  # nodes that load a photograph -> their input
NO_PARENT = "credentials name the source's file, and none is given"
ENDINGS = {"png": "png", "webp": "webp", "jpeg": "jpg"}


def source_file(dynprompt, node_id: str | None, name: str, choice: str) -> files.Original | None:
    """The photograph that was edited: the file chosen, or that of the one Load Image above input `name`.

    An alpha channel that the graph uses as a mask is none of the photograph's. Raises ValueError where there
    is none or several, and where it cannot be read.
    """
    if choice == NO_FILE:
        return None
    file = _loaded(dynprompt, node_id, name) if choice == FROM_GRAPH else choice
    path = picture_path(file)
    if MASK_EDITORS in path.parts:
        warn(
            f"{path.name} is the mask editor's copy of your photograph, without its EXIF: choose the "
            "photograph's own file in source_file",
            node_id,
        )
    original = files.read_original(path)
    return replace(original, alpha=None) if _is_mask(dynprompt, file) else original


def _is_mask(dynprompt, file: str) -> bool:
    """Whether a node takes this file's alpha channel for a mask."""
    graph = {} if dynprompt is None else dynprompt.get_original_prompt()
    loaders = {
        node_id
        for node_id, node in graph.items()
        if node["class_type"] in LOADING and node["inputs"].get(LOADING[node["class_type"]]) == file
    }
    links = (value for node in graph.values() for value in node["inputs"].values() if is_link(value))
    return any(link[0] in loaders and link[1] == 1 for link in links)


def _loaded(dynprompt, node_id: str | None, name: str) -> str:
    """What the one node that loads the photograph above an input is given."""
    nodes = {} if dynprompt is None or node_id is None else dict(_above(dynprompt, node_id, name))
    found = {key: node["inputs"].get(LOADING[node["class_type"]]) for key, node in nodes.items()}
    which = ", ".join(f"{found[key]} (node {key})" for key in found)
    if len(set(map(str, found.values()))) != 1:
        raise ValueError(
            f"source_file is '{FROM_GRAPH}', and above {name} there "
            + (f"are several: {which}" if found else "is no Load Image")
            + f"; choose the photograph's file, or '{NO_FILE}'"
        )
    (value, *_) = found.values()
    if not isinstance(value, str):
        raise ValueError("the Load Image above gets its file name by a link: choose the file in source_file")
    return value


def _above(dynprompt, node_id: str, name: str) -> Iterator[tuple[str, dict]]:
    """The nodes above an input that load a photograph: where an edit was put back, the one it is put into."""
    queue, seen = [dynprompt.get_node(node_id)["inputs"].get(name)], set()
    while queue:
        link = queue.pop(0)
        if not is_link(link) or link[0] in seen:
            continue
        seen.add(link[0])
        node = dynprompt.get_node(link[0])
        if node["class_type"] in LOADING:
            yield link[0], node
        else:
            into = RETURNING.get(node["class_type"])
            queue += [node["inputs"].get(into)] if into else node["inputs"].values()


@dataclass(frozen=True)
class Saved:
    """A file of the output folder. lost: what the source's file carried and this one does not.

    unsigned: why it has no credentials; empty where it has.
    """

    subfolder: str
    name: str
    lost: tuple[str, ...]
    unsigned: str


def find_signer() -> files.Signer | None:
    """Who signs here: from the environment or the host's user folder. Raises ValueError for half a signer."""
    with _signing():
        return files.find_signer(os.environ, Path(folder_paths.get_user_directory()) / CREDENTIALS)


@contextmanager
def _signing() -> Iterator[None]:
    try:
        yield
    except files.CredentialsError as error:
        raise ValueError(f"the picture is not saved, since it cannot be signed: {error}") from None


def save_edited(
    picture: Tensor,
    prefix: str,
    kind: str,
    quality: int,
    original: files.Original | None,
    signer: files.Signer | None,
    region: Tensor | None,
    prompt: str,
    texts: Iterable[tuple[str, object]],
) -> Saved:
    """Write a picture [H, W, C] in 0..1 to a fresh file of the output folder, signed where that can be.

    kind: of eta_core.files.KINDS. region [h, w]: what was edited, where above 0. prompt, texts: what of the
    workflow the file tells. Raises ValueError where it cannot be signed or written.
    """
    pixels = (picture[..., :3].clamp(0, 1) * 255).round().byte().cpu().numpy()
    told = {} if args.disable_metadata else {name: json.dumps(value) for name, value in texts}
    written = files.write(pixels, kind, quality, prompt, original, told)
    content = written.content
    unsigned = files.why_unsigned(signer) or (NO_PARENT if original is None else "")
    if signer is not None and original is not None and not unsigned:
        title = f"{Path(prefix).name}.{ENDINGS[kind]}"
        with _signing():
            content = files.sign(content, files.KINDS[kind], title, signer, original, region)
    sized = prefix.replace("%width%", str(pixels.shape[1])).replace("%height%", str(pixels.shape[0]))

    def fill(path: Path) -> None:
        path.write_bytes(content)

    subfolder, name = save_new(sized, f".{ENDINGS[kind]}", fill, len(content) / 1e6)
    return Saved(subfolder, name, written.lost, unsigned)
