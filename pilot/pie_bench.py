"""PIE-Bench's format and conventions (Ju et al. 2023, "Direct Inversion").

mapping_file.json: {id: {image_path, original_prompt, editing_prompt, editing_type_id, blended_word, mask,
...}}; the pictures are below annotation_images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIZE = 512
PICTURES = "annotation_images"
CATEGORIES = (
    "random",
    "change object",
    "add object",
    "delete object",
    "change attribute: content",
    "change attribute: pose",
    "change attribute: color",
    "change attribute: material",
    "change background",
    "change style",
)
COLUMNS = {"picture": "image_path", "source_prompt": "original_prompt", "target_prompt": "editing_prompt"}


def is_mapping(found: object) -> bool:
    """Whether JSON is the benchmark's: objects by an id, of which one at least has its columns."""
    return isinstance(found, dict) and any(
        isinstance(entry, dict) and "image_path" in entry and "editing_prompt" in entry
        for entry in found.values()
    )


def pictures_in(folder: Path) -> Path:
    return folder / PICTURES if (folder / PICTURES).is_dir() else folder


def row(name: str, entry: object) -> dict:
    """An entry under the names of items' columns. Raises ValueError for what is none."""
    if not isinstance(entry, dict):
        raise ValueError("the entry is no object")
    found = {column: entry[theirs] for column, theirs in COLUMNS.items() if theirs in entry}
    for column in ("source_prompt", "target_prompt"):
        if isinstance(found.get(column), str):
            found[column] = " ".join(found[column].replace("[", "").replace("]", "").split())
    words, target_words = blended(entry.get("blended_word"))
    kind = str(entry.get("editing_type_id", ""))
    return found | {
        "name": name,
        "words": words,
        "target_words": target_words,
        "exact_words": True,  # where the benchmark names no word, none is guessed
        "mask": entry.get("mask") or "",
        "category": CATEGORIES[int(kind)] if kind in tuple("0123456789") else kind,
    }


def blended(text: object) -> tuple[str, str]:
    """blended_word's two halves: the source prompt's words and the target prompt's. Both may be empty.

    Raises ValueError for an odd number of words.
    """
    words = text.split() if isinstance(text, str) else []
    if len(words) % 2:
        raise ValueError(
            f"blended_word is '{text}': it must be the source's words, then as many of the target's"
        )
    half = len(words) // 2
    return " ".join(words[:half]), " ".join(words[half:])


def mask(runs: tuple[int, ...]) -> np.ndarray:
    """Run lengths [start, length, ...] over 512 x 512 pixels, row by row -> bool [512, 512], True = edited.

    A run ends with the picture. The four borders count as edited, as in the benchmark. Raises ValueError for
    other numbers.
    """
    if len(runs) % 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in runs):
        raise ValueError("the mask is no list of run lengths: it must be start, length, start, length, ...")
    flat = np.zeros(SIZE * SIZE, bool)
    for start, length in zip(runs[::2], runs[1::2]):
        flat[start : start + length] = True
    found = flat.reshape(SIZE, SIZE)
    found[[0, -1], :] = True
    found[:, [0, -1]] = True
    return found


def runs_of(found: np.ndarray) -> list[int]:
    """bool [512, 512] -> the run lengths that `mask` reads."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], found.reshape(-1).astype(np.int8), [0]))))
    return [int(n) for start, end in zip(edges[::2], edges[1::2]) for n in (start, end - start)]
