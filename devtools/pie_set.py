"""Rendered scenes as a benchmark in PIE-Bench's own format: python -m devtools.pie_set --out DIR [--count N]

Pictures and masks are 512 x 512, as there: the scenes' 128 pixels four times as large
(`python pilot run DIR --max-side 128` brings them back). The mask is the object's true outline, or the whole
of what may change where the background shall.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from pilot import pie_bench

from .demo import scenes

# PIE-Bench's category -> what becomes of (thing, background); None: this scene does not go into it
KINDS = {
    "0": lambda thing, place, rng: (_other(scenes.THINGS, thing, rng), place) if thing else None,
    "1": lambda thing, place, rng: (
        (_other(scenes.OBJECTS, thing, rng), place) if thing in scenes.OBJECTS else None
    ),
    "6": lambda thing, place, rng: (_recoloured(thing, rng), place) if " " in thing else None,
    "8": lambda thing, place, rng: (thing, _other(scenes.BACKGROUNDS, place, rng)) if thing else None,
}
FIRST = scenes.TEST + 50_000  # scenes that no other table here is made of


def _other(choice: tuple[str, ...], but: str, rng: np.random.Generator) -> str:
    return str(rng.choice([name for name in choice if name != but]))


def _recoloured(thing: str, rng: np.random.Generator) -> str:
    colour, kind = thing.split()
    return f"{_other(scenes.COLOURS, colour, rng)} {kind}"


def entries(count_: int) -> Iterator[tuple[dict, Image.Image]]:
    """The entries of a mapping_file.json and their pictures, the categories in turn."""
    made = 0
    for seed in count(FIRST):
        if made == count_:
            return
        kind = list(KINDS)[made % len(KINDS)]
        scene, rng = scenes.render(seed), np.random.default_rng(seed)
        change = KINDS[kind](scene.thing, scene.background, rng)
        if change:
            made += 1
            yield entry(f"{made - 1:012d}", kind, scene, *change)


def entry(name: str, kind: str, scene: scenes.Scene, thing: str, background: str) -> tuple[dict, Image.Image]:
    size = (pie_bench.SIZE,) * 2
    inside = np.asarray(Image.fromarray(scene.mask).resize(size, Image.NEAREST)) > 0
    elsewhere = background != scene.background
    old, new = (scene.background, background) if elsewhere else (scene.thing, thing)
    category = pie_bench.CATEGORIES[int(kind)]
    found = {
        "image_path": f"{kind}_{category.replace(' ', '_').replace(':', '')}/{name}.png",
        "original_prompt": scene.prompt.replace(old, f"[{old}]", 1),
        "editing_prompt": scenes.prompt_of(thing, background).replace(new, f"[{new}]", 1),
        "editing_instruction": f"Change the {old} to {new}",
        "editing_type_id": kind,
        "blended_word": f"{old.split()[-1]} {new.split()[-1]}",
        "mask": pie_bench.runs_of(~inside if elsewhere else inside),
    }
    return {name: found}, Image.fromarray(scene.image).resize(size, Image.BICUBIC)


def write(out: Path, count_: int) -> None:
    mapping = {}
    for found, picture in entries(count_):
        mapping |= found
        ((_, about),) = found.items()
        path = out / pie_bench.PICTURES / about["image_path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    (out / "mapping_file.json").write_text(json.dumps(mapping))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args()
    write(options.out, options.count)
