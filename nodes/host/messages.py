"""What the pack says: in the log and, where a server runs, on the node."""

from __future__ import annotations

import logging

from server import PromptServer

log = logging.getLogger("eta-inversion")


def warn(message: str, node_id: str | None = None) -> None:
    """Say it in the log and, where a server runs, on the node."""
    log.warning(message)
    server = getattr(PromptServer, "instance", None)
    if server is not None and node_id is not None:
        server.send_progress_text(f"Warning: {message}", node_id)
