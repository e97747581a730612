"""PIE-Bench's table: the runs behind each of its rows, and the rows as published."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import journal

# column -> figure, factor, digits
COLUMNS = {
    "structure x 1000": ("structure_distance", 1e3, 2),
    "PSNR, dB": ("pie_psnr", 1, 2),
    "LPIPS x 1000": ("pie_lpips", 1e3, 2),
    "MSE x 10000": ("pie_mse", 1e4, 2),
    "SSIM x 100": ("pie_ssim", 1e2, 2),
    "CLIP": ("clip_similarity", 1, 2),
    "CLIP, edited part": ("clip_similarity_edited", 1, 2),
}
ABOUT = (
    "PSNR, LPIPS, MSE and SSIM: both pictures x (1 - the benchmark's mask), averaged over the whole frame; "
    "pictures without background are "
    "left out. A run that was given the mask knows more than one that was not: the two are no rivals."
)

SOURCE = (
    'Published: Ju et al. 2023, "Direct Inversion", table 1, SD1.4 (Plug-and-Play: SD1.5), without the '
    "benchmark's masks."
)
PUBLISHED = {
    "DDIM inversion + PtP": (69.43, 17.87, 208.80, 219.88, 71.14, 25.01, 22.44),
    "Null-text + PtP": (13.44, 27.03, 60.67, 35.86, 84.11, 24.75, 21.86),
    "Direct Inversion + PtP": (11.65, 27.22, 54.55, 32.86, 84.76, 25.02, 22.10),
    "Direct Inversion + MasaCtrl": (24.70, 22.64, 87.94, 81.09, 81.33, 24.38, 21.35),
    "Direct Inversion + PnP": (24.29, 22.46, 106.06, 80.45, 79.68, 25.41, 22.62),
}


@dataclass(frozen=True)
class Row:
    """A run: an example workflow, its settings, and the mask it is run with."""

    folder: str
    workflow: str
    mask: str
    settings: tuple[str, ...]


COMMON = (
    "EtaInversion.cfg=1.0",
    "EtaInversion.scheduler=ddim_uniform",
    "EtaInversion.inverter=ddim",
    "EtaSampler.noise_candidates=10",
    "EtaSampler.noise_blend=0.0",
    "EtaSampler.variants=1",
)
REFERENCE = (
    "EtaSampler.background_lock=0.0",
    "EtaSampler.cfg=7.5",
    "EtaSampler.start=1.0",
    "EtaSampler.parity=true",
)
DIRECT = (
    *REFERENCE,
    "EtaSchedule.preset=constant",
    "EtaSchedule.start_eta=0.0",
    "EtaSchedule.end_eta=0.0",
)  # eta 0
STRONG = (*REFERENCE, "EtaSchedule.preset=paper_strong")
PAPER_MASK = (
    "AttentionMask.threshold=0.2",
    "AttentionMask.refine=false",
    "AttentionMask.grow=0",
    "AttentionMask.blur=0.0",
)
PTP = (
    "EtaPromptToPrompt.mode=refine",
    "EtaPromptToPrompt.cross_replace_end=0.4",
    "EtaPromptToPrompt.self_replace_end=0.6",
    "EtaPromptToPrompt.equalizer=2.0",
    "EtaPromptToPrompt.equalizer_words={target_words}",
    "EtaPromptToPrompt.local_blend={has_words}",
    "EtaPromptToPrompt.blend_words={words}, {target_words}",
)
KEEP_POSE, KEEP_TEXTURE = "Keep the pose with Prompt-to-Prompt", "Keep the texture with MasaCtrl"
KEEP_LAYOUT, MAIN = "Keep the layout with Plug-and-Play", "Change one thing in a photo"
ROWS = {
    "Direct Inversion + PtP": Row("direct-ptp", KEEP_POSE, "none", (*DIRECT, *PTP)),
    "Direct Inversion + MasaCtrl": Row("direct-masactrl", KEEP_TEXTURE, "none", DIRECT),
    "Direct Inversion + PnP": Row("direct-pnp", KEEP_LAYOUT, "none", DIRECT),
    "Eta Inversion + PtP, auto mask": Row("eta-ptp-auto", KEEP_POSE, "auto", (*STRONG, *PAPER_MASK, *PTP)),
    "Eta Inversion + PtP, given mask": Row("eta-ptp-given", KEEP_POSE, "given", (*STRONG, *PTP)),
    "this pack's default, auto mask": Row("default-auto", MAIN, "auto", ()),
    "this pack's default, given mask": Row("default-given", MAIN, "given", ()),
}


def cells(rows: Iterable[dict]) -> list[str]:
    """A line of the table: the means over the items scored with a mask of their own. Empty without such
    items.
    """
    scored = [row for row in rows if row["status"] == "ok" and row.get("scored") == "given"]
    return [_cell(scored, *column) for column in COLUMNS.values()] if scored else []


def _cell(rows: Sequence[dict], name: str, factor: float, digits: int) -> str:
    found = [
        float(picture[name]) for row in rows for picture in row["figures"] if picture.get(name) is not None
    ]
    return f"{factor * statistics.fmean(found):.{digits}f}" if found else "-"


def write(folder: Path) -> str:
    """table.md of the rows that were run below `folder` -> its text."""
    lines = [["", "items", "errors", *COLUMNS]]
    for name, row in ROWS.items():
        rows = journal.rows(folder / row.folder)
        if rows:
            failed = sum(row["status"] == "error" for row in rows)
            lines.append([name, str(len(rows)), str(failed), *(cells(rows) or ["-"] * len(COLUMNS))])
            lines += _published(name)
    for name in PUBLISHED:
        lines += [] if name in ROWS else _published(name)
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    text = "\n".join([head, "|---" * len(lines[0]) + "|", *body, "", ABOUT, SOURCE, ""])
    journal.write(folder / "table.md", text.encode())
    return text


def _published(name: str) -> list[list[str]]:
    figures = PUBLISHED.get(name)
    return [[f"(published: {name})", "700", "", *(f"{value:.2f}" for value in figures)]] if figures else []
