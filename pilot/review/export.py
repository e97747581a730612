"""The approved pictures of a run, for whoever gets them: pictures, list, contact sheet."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image, ImageDraw

from eta_core import files

from .. import journal, policy
from . import audit
from .candidates import Candidate, candidate
from .desk import Desk, outcome
from .store import ReviewError, Store

EMPTY: Mapping[str, Path] = MappingProxyType({})
PICTURES = "pictures"
COLUMNS = (
    "file", "item", "name", "category", "source_prompt", "target_prompt", "seed", "verdict", "approved_by",
    "approved_at", "consent", "rights", "rights_until", "sha256", "source_sha256", "edited_sha256",
    "mask_sha256",
)  # fmt: skip
CELL, GAP, ACROSS = 240, 12, 4  # pixels of the contact sheet, and pairs in a row
POLICY = "policy"  # approved_by, of what no person saw


def deliver(
    source_path: Path, edited_path: Path, mask_path: Path | None, out_path: Path, signer: files.Signer | None
) -> None:
    """Write one picture as it is given away: exact pixels, what the source's file carries, and its marks.

    Raises ReviewError where the source cannot be read or the picture not be signed.
    """
    try:
        original = files.read_original(source_path)
        with Image.open(edited_path) as edited:
            pixels = np.asarray(edited.convert("RGB"))
        content = files.write(pixels, "png", files.LOSSLESS, original=original).content
        if signer is not None:
            region = None if mask_path is None else _region(mask_path)
            content = files.sign(content, files.KINDS["png"], out_path.name, signer, original, region)
    except (ValueError, files.CredentialsError) as error:
        raise ReviewError(f"{out_path.name} cannot be exported: {error}") from None
    journal.write(out_path, content)


def _region(mask_path: Path) -> torch.Tensor:
    with Image.open(mask_path) as mask:
        return torch.from_numpy(np.asarray(mask.convert("L")).copy())


def write(
    desk: Desk, store: Store, out: Path, with_passed: bool = False, photographs: Mapping[str, Path] = EMPTY
) -> str:
    """Export what was approved into a new or empty folder -> what to tell the user.

    with_passed: also what the policy passed and nobody was shown. photographs: the items' own files by the
    key of the item, for what they carry. Raises ReviewError, OSError.
    """
    try:
        signer = files.find_signer(os.environ)
        unsigned = files.why_unsigned(signer) if signer else files.NO_SIGNER
    except files.CredentialsError as error:
        raise ReviewError(str(error)) from None
    signer = None if unsigned else signer
    found = policy.of_run(journal.load(store.folder) or {})
    if signer is None and found.rules.marks == "c2pa":
        raise ReviewError(
            f"the policy {found.name} wants signed pictures (marks: c2pa), and they are {unsigned}"
        )
    if out.exists() and any(out.iterdir()):
        raise ReviewError(f"{out} is not empty: an export needs a folder of its own")
    desk.sync()
    votes, items = desk.votes(), desk.items()
    approved = [one for one in items if outcome(votes[one.key], desk.eyes) == "approve"]
    chosen = [(one, [v.reviewer for v in votes[one.key]], votes[one.key][-1].cast) for one in approved]
    if with_passed:
        seen = {one.key for one in items}
        chosen += [(one, [POLICY], one.row["finished"]) for one in _passed(store.folder, seen)]
    if not chosen:
        raise ReviewError("nothing is approved yet: there is nothing to export")
    (out / PICTURES).mkdir(parents=True)
    lines, pairs = [], []
    for one, people, when in chosen:
        for name in one.edits:
            path = out / PICTURES / _file_name(one, name)
            own = photographs.get(one.key.rpartition("-")[0])
            line, pair = _one(store.folder, one, name, path, own, signer)
            lines.append(line | {"approved_by": ", ".join(people), "approved_at": when})
            pairs.append((*pair, one.row["name"]))
    lines = [{column: line[column] for column in COLUMNS} for line in lines]
    journal.write(out / "export.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    journal.write(out / "export.csv", _csv(lines).encode("utf-8-sig"))
    _sheet(pairs, out / "contact-sheet.jpg")
    entry = {"action": "export", "who": "", "role": "", "list": audit.file_hash(out / "export.jsonl")}
    head = store.log(entry | {"pictures": len(lines), "items": [one.key for one, *_ in chosen]})
    marked = f"not signed: {unsigned}" if unsigned else "signed"
    return (
        f"{len(lines)} pictures, {marked}: {out.resolve()}\nhead of the audit log: {head}\n"
        "Keep the head outside the run's folder: pilot verify DIR --head HASH then shows whether the log was "
        "cut or rewritten."
    )


def _passed(folder: Path, seen: set[str]) -> list[Candidate]:
    run = journal.load(folder) or {"settings": {}}
    rows = [journal.filled(row) for row in journal.each(folder) if row["status"] == "ok"]
    return [
        candidate(folder, run, row, False)
        for row in rows
        if row["verdict"] == "pass" and row["key"] not in seen
    ]


def _one(
    folder: Path, one: Candidate, name: str, path: Path, own: Path | None, signer: files.Signer | None
) -> tuple[dict, tuple[Path, Path]]:
    """Delivers a picture, if its files are still those that were approved. own: the photograph's own file."""
    kept = {which: folder / one.row["files"][which] for which in one.hashes}
    mask = "given_mask" if one.row["scored"] == "given" and "given_mask" in kept else "mask"
    for which in ("source", name, mask):
        if which in kept and audit.file_hash(kept[which]) != one.hashes[which]:
            raise ReviewError(f"{one.row['name']}: its {which} changed during the export; run it again")
    deliver(own or kept["source"], kept[name], kept.get(mask), path, signer)
    said = {column: one.row.get(column, "") for column in COLUMNS}
    hashes = {"source_sha256": "source", "edited_sha256": name, "mask_sha256": mask}
    said |= {column: one.hashes.get(which, "") for column, which in hashes.items()}
    said |= {"file": f"{PICTURES}/{path.name}", "item": one.key, "sha256": audit.file_hash(path)}
    return said, (kept["source"], kept[name])


def _file_name(one: Candidate, name: str) -> str:
    """Named after the item, safe on every system, and its own by the item's key."""
    stem = re.sub(r"[^\w.-]+", "-", Path(one.row["name"]).stem).strip("-.")[:60] or "picture"
    return f"{stem}-{one.key[:8]}{name.removeprefix('edited').replace('_', '-')}.png"


def _csv(lines: list[dict]) -> str:
    """A table that a spreadsheet shows as text: nothing in it begins a formula."""
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(COLUMNS)
    table.writerows([_as_text(value) for value in line.values()] for line in lines)
    return out.getvalue()


def _as_text(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _sheet(pairs: list[tuple[Path, Path, str]], path: Path) -> None:
    """Before and after of every picture, ACROSS pairs in a row; sheets beyond the first are numbered."""
    most = ACROSS * 50
    for start in range(0, len(pairs), most):
        some = pairs[start : start + most]
        width, height = 2 * CELL + GAP, CELL + 2 * GAP + 8
        rows = -(-len(some) // ACROSS)
        across = min(ACROSS, len(some))
        sheet = Image.new("RGB", (GAP + across * (width + GAP), GAP + rows * (height + GAP)), "#f4f4f4")
        draw = ImageDraw.Draw(sheet)
        for i, (before, after, name) in enumerate(some):
            left, top = GAP + i % ACROSS * (width + GAP), GAP + i // ACROSS * (height + GAP)
            for j, file in enumerate((before, after)):
                with Image.open(file) as opened:
                    small = opened.convert("RGB")
                small.thumbnail((CELL, CELL))
                place = left + j * (CELL + GAP) + (CELL - small.width) // 2, top + (CELL - small.height) // 2
                sheet.paste(small, place)
            draw.text((left, top + CELL + 4), name.encode("ascii", "replace").decode()[:80], fill="#333333")
        number = start // most + 1
        sheet.save(path if number == 1 else path.with_name(f"{path.stem}-{number}.jpg"), quality=85)
