"""Content Credentials (C2PA 2) of an edit, by the optional package c2pa-python.

The source is the parent ingredient, with its own credentials kept. The actions are c2pa.opened and
c2pa.edited, whose change is the region in percent of the picture.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..outline import outlines
from .agent import NAME, version
from .original import Original
from .xmp import EDITED_BY_MODEL

PREFIX = "ETA_C2PA_"
CERTIFICATE, KEY, ALGORITHM, TIMESTAMP = (
    f"{PREFIX}{name}" for name in ("CERTIFICATE", "KEY", "ALGORITHM", "TIMESTAMP")
)
FILES = {CERTIFICATE: "certificate.pem", KEY: "key.pem"}
ALGORITHMS = ("es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519")
PARENT = "source"
NO_SIGNER = f"no certificate is configured ({CERTIFICATE} and {KEY}, or ComfyUI's folder for it)"


class CredentialsError(Exception):
    """The picture cannot be signed, and what to do about it."""


@dataclass(frozen=True)
class Signer:
    """Who signs. certificate: a PEM chain, the signer's own first; key: its PEM private key.

    algorithm: of the key, one of ALGORITHMS. timestamp: address of a time stamp authority, or none.
    """

    certificate: str
    key: str = field(repr=False)
    algorithm: str = ALGORITHMS[0]
    timestamp: str = ""


def find_signer(environ: Mapping[str, str], folder: Path | None = None) -> Signer | None:
    """The signer that the environment names, else the one whose files lie in `folder`, else None.

    Raises CredentialsError where one of certificate and key is missing or cannot be read.
    """
    named = {name: environ.get(name, "") for name in (CERTIFICATE, KEY)}
    paths = {name: Path(value) for name, value in named.items() if value}
    if not paths and folder is not None:
        paths = {name: folder / file for name, file in FILES.items() if (folder / file).is_file()}
    if not paths:
        return None
    if missing := [name for name in FILES if name not in paths]:
        raise CredentialsError(
            f"a certificate needs its key and a key its certificate: {missing[0]} (or the file "
            f"{FILES[missing[0]]}) is missing"
        )
    algorithm = environ.get(ALGORITHM, ALGORITHMS[0])
    if algorithm not in ALGORITHMS:
        raise CredentialsError(f"{ALGORITHM} is '{algorithm}': it must be one of {', '.join(ALGORITHMS)}")
    try:
        certificate, key = (paths[name].read_text(encoding="ascii") for name in FILES)
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialsError(f"the certificate or its key cannot be read: {error}") from None
    return Signer(certificate, key, algorithm, environ.get(TIMESTAMP, ""))


def sign(
    content: bytes,
    mime: str,
    title: str,
    signer: Signer,
    original: Original,
    region: Tensor | None = None,
) -> bytes:
    """The picture file with credentials; change no byte of it afterwards.

    region [H, W]: what was edited, where above 0. Raises CredentialsError.
    """
    c2pa = _library()
    source, out = io.BytesIO(content), io.BytesIO()
    parent = {"title": original.name, "format": original.mime, "relationship": "parentOf", "label": PARENT}
    try:
        info = c2pa.C2paSignerInfo(
            signer.algorithm.encode(),
            signer.certificate.encode(),
            signer.key.encode(),
            signer.timestamp.encode() or None,
        )
        with c2pa.Signer.from_info(info) as by, c2pa.Builder(_manifest(mime, title, region)) as builder:
            builder.add_ingredient(parent, original.mime, io.BytesIO(original.content))
            builder.sign(by, mime, source, out)
    except c2pa.C2paError as error:
        raise CredentialsError(f"the credentials cannot be made: {error}") from None
    return out.getvalue()


def why_unsigned(signer: Signer | None) -> str:
    """Why pictures get no credentials; empty where they get them."""
    if signer is None:
        return NO_SIGNER
    try:
        _library()
    except CredentialsError as error:
        return str(error)
    return ""


def read_credentials(content: bytes, mime: str) -> dict[str, Any] | None:
    """The manifest store of a picture file as c2pa-python reads it; None where it has none.

    Raises CredentialsError where the package is missing or the store cannot be read.
    """
    c2pa = _library()
    try:
        with c2pa.Reader(mime, io.BytesIO(content)) as reader:
            return json.loads(reader.json())
    except c2pa.C2paError as error:
        if "ManifestNotFound" in type(error).__name__ or "no JUMBF data" in str(error):
            return None
        raise CredentialsError(f"the credentials cannot be read: {error}") from None


def _manifest(mime: str, title: str, region: Tensor | None) -> dict[str, Any]:
    agent = {"name": NAME, "version": version()}
    edited: dict[str, Any] = {
        "action": "c2pa.edited",
        "softwareAgent": agent,
        "digitalSourceType": EDITED_BY_MODEL,
    }
    if region is not None:
        edited["changes"] = [
            {"description": "the region that was edited", "region": [_shape(p) for p in outlines(region)]}
        ]
    opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": [PARENT]}}
    return {
        "claim_generator_info": [agent],
        "title": title,
        "format": mime,
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [opened, edited]}}],
    }


def _shape(polygon: list[tuple[float, float]]) -> dict[str, Any]:
    points = [{"x": round(x, 3), "y": round(y, 3)} for x, y in polygon]
    origin = {side: min(point[side] for point in points) for side in ("x", "y")}
    shape = {"type": "polygon", "unit": "percent", "origin": origin, "vertices": points}
    return {"type": "spatial", "shape": shape}


def _library():
    try:
        import c2pa
    except ImportError:
        raise CredentialsError(
            "the package c2pa-python is not installed (pip install c2pa-python, with ComfyUI's Python)"
        ) from None
    return c2pa
