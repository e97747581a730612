"""What a picture file says of its making: both marks, read back."""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from . import xmp
from .credentials import CredentialsError, read_credentials
from .original import MIME, MOST_BYTES, packet_of

STATES = {
    "Trusted": "valid, by a signer on the trust list",
    "Valid": "valid, by a signer whom no trust list names",
    "Invalid": "INVALID",
}


@dataclass(frozen=True)
class Found:
    """source_type: XMP's digital source type; empty for none. credentials: lines about them.

    is_broken: there are credentials, and they do not hold for this file.
    """

    source_type: str
    credentials: tuple[str, ...]
    is_broken: bool


def read_marks(content: bytes) -> Found:
    """Both marks of a picture file. Raises ValueError where it is no picture."""
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has {len(content)} bytes: at most {MOST_BYTES} are read")
    try:
        with Image.open(io.BytesIO(content)) as picture:
            mime = MIME.get(picture.format or "", "")
            packet = packet_of(picture)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"it cannot be read as a picture: {error}") from None
    lines, is_broken = _credentials(content, mime)
    return Found(xmp.source_type(packet), lines, is_broken)


def _credentials(content: bytes, mime: str) -> tuple[tuple[str, ...], bool]:
    try:
        store = read_credentials(content, mime)
    except CredentialsError as error:
        return (f"not read: {error}",), "not installed" not in str(error)
    if store is None:
        return ("none",), False
    active = store["manifests"][store["active_manifest"]]
    state, signed = store.get("validation_state", "Invalid"), active.get("signature_info", {})
    lines = [STATES.get(state, str(state))]
    lines += [f"signed by {signed.get('common_name', '?')} ({signed.get('issuer', '?')})"] if signed else []
    lines += [f"signed at {signed['time']}"] if signed.get("time") else []
    for each in active.get("ingredients", []):
        own = " with credentials of its own" if each.get("active_manifest") else ""
        lines.append(f"made from {each.get('title', '?')} ({each.get('relationship', '?')}){own}")
    for action in _actions(active):
        shapes = [s for change in action.get("changes") or [] for s in change.get("region", [])]
        where = f", in {len(shapes)} region(s)" if shapes else ""
        agent = action.get("softwareAgent")
        by = f" by {agent.get('name', '?')}" if isinstance(agent, dict) else ""
        lines.append(f"{action.get('action', '?')}{by}{where}")
    is_broken = state == "Invalid"
    if is_broken:  # of a valid one, only that its signer stands on no trust list
        failures = store.get("validation_status", [])
        lines += [f"failed: {each.get('code')} ({each.get('explanation', '')})" for each in failures]
    return tuple(lines), is_broken


def _actions(manifest: dict) -> list[dict]:
    return [
        action
        for assertion in manifest.get("assertions", [])
        if str(assertion.get("label", "")).startswith("c2pa.actions")
        for action in assertion.get("data", {}).get("actions", [])
    ]
