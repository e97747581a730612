"""Each editing method at its node's defaults, with eta 0 and the paper's two curves.

Everywhere, in the mask, and with the lock.
"""

from __future__ import annotations

import argparse
import json
import statistics

import torch
from PIL import Image

from eta_core.evidence import metrics

from ..demo import judge
from ..demo.studio import DemoStudio
from .cases import CFG, METHODS, cases, inverted, judged

ETAS = {
    "0": {"preset": "constant", "end_eta": 0.0},
    "gentle": {"preset": "paper_gentle"},
    "strong": {"preset": "paper_strong"},
}


def methods(studio: DemoStudio, options: argparse.Namespace) -> list[str]:
    apart = studio.narrow()
    judges, rows, sheet = judge.load(), {}, []

    def features(pictures: torch.Tensor) -> torch.Tensor:
        """The judge's, where published figures take DINO's."""
        with torch.no_grad():
            return judges.body(2 * pictures[..., :3].movedim(-1, 1).float() - 1).flatten(2).transpose(1, 2)

    for case in cases(options.scenes, options.first_seed):
        start = inverted(studio, case, options.steps)
        mask = start.mask()
        places = {
            "everywhere": {},
            "mask": {"mask": mask},
            "mask + lock": {"mask": mask, "background_lock": 1.0},
        }
        strip = [case.pictures[0]]
        for method in METHODS:
            edit = start.method(method)
            for eta, curve in ETAS.items():
                for place in places:
                    if eta == "0" and place == "mask":
                        continue  # where nothing is renewed a mask means nothing
                    pictures = studio.decode(start.edit(studio.eta(**curve), edit=edit, **places[place]))
                    structure = metrics.structure_distance(
                        features(case.pictures), features(pictures)
                    ).tolist()
                    found = [
                        row | {"structure": s} for row, s in zip(judged(judges, case, pictures), structure)
                    ]
                    rows.setdefault((method, eta, place), []).extend(found)
                    strip.append(pictures[0])
        print(f"{case.thing} -> {case.wanted}", flush=True)
        sheet.append(torch.cat(strip, 1))
    (options.out / "methods.json").write_text(
        json.dumps({", ".join(key): found for key, found in rows.items()})
    )
    Image.fromarray((torch.cat(sheet) * 255).byte().numpy()).save(options.out / "methods.png")
    lines = [
        f"{options.scenes} unseen scenes, {options.steps} steps, cfg {CFG:g}, the UNet at its trained width "
        f"({apart:.0e} apart); structure: "
        "distance of the judge's self-similarities x 1e3",
        "",
        "| method | eta | where | success | background PSNR dB, mean | worst | structure |",
        "|---|---|---|---|---|---|---|",
    ]
    for (method, eta, place), found in rows.items():
        success, psnr, structure = (
            [row[k] for row in found] for k in ("success", "background_psnr", "structure")
        )
        lines.append(
            f"| {method} | {eta} | {place} | {sum(success)}/{len(success)} | {statistics.mean(psnr):.2f} | "
            f"{min(psnr):.2f} "
            f"| {1e3 * statistics.mean(structure):.2f} |"
        )
    return lines
