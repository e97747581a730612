"""What the pack says: in the log and, where a server runs, on the node."""

from __future__ import annotations

import html
import logging
from collections.abc import Iterator

import comfy.utils
from comfy.model_management import throw_exception_if_processing_interrupted
from server import PromptServer

EVENT = "eta-inversion.warning"  # heard by web/js/messages.js
log = logging.getLogger("eta-inversion")


def warn(message: str, node_id: str | None = None) -> None:
    """A warning in the log and, where a page waits for the run, on the node and as a toast."""
    log.warning(message)
    _show(f"Warning: {message}", node_id)
    server = listened()
    if server is not None:
        server.send_sync(EVENT, {"node": node_id, "text": message}, server.client_id)


def say(message: str, node_id: str | None = None) -> None:
    """A figure worth knowing, in the log and on the node."""
    log.info(message)
    _show(message, node_id)


def _show(text: str, node_id: str | None) -> None:
    """Text on the node. The page takes it for markup, and it may hold what a stranger wrote."""
    server = listened()
    if server is not None and node_id is not None:
        server.send_progress_text(html.escape(text), node_id, sid=server.client_id)


def listened() -> PromptServer | None:
    """The server where a page waits for the run; without a client, what it sends would go to every page."""
    server = getattr(PromptServer, "instance", None)
    return server if server is not None and server.client_id is not None else None


def counted(total: int) -> Iterator[int]:
    """0 .. total - 1 with a progress bar; Cancel is heard after each."""
    bar = comfy.utils.ProgressBar(total)
    for i in range(total):
        yield i
        bar.update(1)
        throw_exception_if_processing_interrupted()  # newer hosts' bars ask for Cancel now and then only
