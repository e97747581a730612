"""Which way of editing comes nearest to the right answer, this pack's and the host's, each at its best
settings.

The settings of every way are chosen on validation scenes over all their knobs, by truth. Then each way is
shown once on test scenes, with several seeds. What has been measured is kept in proof.jsonl, and a run that
is cut short goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from eta_core.evidence import metrics

from ..demo import judge, scenes
from ..demo.studio import DemoStudio, pixels_of
from .cases import Case, Start, cases, inverted, judged
from .curves import HOSTS, OURS, differential, img2img, unsample
from .truth import truth

Settings = dict[str, object]
Edit = Callable[[Start, Tensor | None, Settings, int], Tensor | dict]
ETAS: dict[str, Settings] = {
    "0": {"preset": "constant", "end_eta": 0.0},
    "paper_gentle": {"preset": "paper_gentle"},
    "0.5 to 1": {"preset": "custom", "curve": "0:0.5, 1:1"},
    "1": {"preset": "constant", "end_eta": 1.0},
}
LIGHT: Settings = {
    "cross_replace_end": 0.4,
    "self_replace_end": 0.2,
    "local_blend": False,
    "equalizer": 1.0,
}
FULL: Settings = {"cross_replace_end": 1.0, "self_replace_end": 1.0}
FIGURES = ("success", "background", "truth", "structure", "naturalness")
SEEDS = (0, 1, 2)


class Way(NamedTuple):
    """One way to edit. knobs: the values to choose from."""

    whose: str
    name: str
    masked: bool
    knobs: dict[str, tuple]
    run: Edit

    @property
    def title(self) -> str:
        return f"{self.name}, {'mask' if self.masked else 'no mask'}"

    def settings(self) -> Iterator[Settings]:
        for values in product(*self.knobs.values()):
            yield dict(zip(self.knobs, values))


def ours(method: str = "simple", **inputs) -> Edit:
    def run(start: Start, mask: Tensor | None, settings: Settings, seed: int) -> Tensor:
        chosen = dict(settings)
        eta = start.studio.eta(**ETAS[str(chosen.pop("eta"))])
        own = inputs | ({"giver": chosen.pop("giver")} if "giver" in chosen else {})
        held = {} if mask is None else {"mask": mask, "background_lock": 1.0}
        return start.edit(eta, edit=start.method(method, **own), seed=seed, **held, **chosen)

    return run


def hosts(run: Callable[..., Tensor | dict]) -> Edit:
    """The host's ways need no seed here: they start from the picture or from its inverted noise."""
    return lambda start, mask, settings, seed: run(start, mask, settings["denoise"], settings["cfg"])


CFGS, SOME_ETAS = (1.5, 2.0, 3.0), ("0", "0.5 to 1", "1")
PLAIN = {"cfg": CFGS, "eta": SOME_ETAS, "start": (1.0, 0.8, 0.6)}
WAYS = tuple(
    way
    for masked in (True, False)
    for way in (
        Way(OURS, "target prompt alone", masked, PLAIN, ours()),
        Way(
            OURS,
            "Prompt-to-Prompt, light",
            masked,
            {"cfg": (2.0, 3.0), "eta": SOME_ETAS, "start": (1.0, 0.8)},
            ours("Prompt-to-Prompt", **LIGHT),
        ),
        Way(
            OURS,
            "Prompt-to-Prompt, full",
            masked,
            {"cfg": (2.0, 4.0), "eta": SOME_ETAS},
            ours("Prompt-to-Prompt", **FULL),
        ),
        Way(
            OURS,
            "Plug-and-Play",
            masked,
            {"cfg": (2.0, 4.0, 7.5), "eta": SOME_ETAS, "giver": ("own rows", "empty prompt")},
            ours("Plug-and-Play"),
        ),
        Way(OURS, "MasaCtrl", masked, {"cfg": (2.0, 4.0), "eta": SOME_ETAS}, ours("MasaCtrl")),
        Way(
            HOSTS,
            "KSampler img2img" if not masked else "SetLatentNoiseMask",
            masked,
            {"cfg": (2.0, 4.0, 7.5), "denoise": (0.6, 0.8, 1.0)},
            hosts(img2img),
        ),
        Way(
            HOSTS,
            "FlipSigmas",
            masked,
            {"cfg": (1.5, 2.0, 4.0), "denoise": (0.5, 0.6, 0.8, 1.0)},
            hosts(unsample),
        ),
    )
) + (
    Way(
        HOSTS,
        "DifferentialDiffusion",
        True,
        {"cfg": (2.0, 4.0), "denoise": (0.6, 0.8, 1.0)},
        hosts(differential),
    ),
)


class Measure:
    """All figures of edited pictures of a case."""

    def __init__(self):
        self._judge = judge.load()
        self._typical: dict[tuple[str, str], Tensor] = {}

    def __call__(self, case: Case, pictures: Tensor) -> list[dict[str, float]]:
        seeds = case.seeds
        structure = metrics.structure_distance(self._features(case.pictures), self._features(pictures))
        natural = torch.cosine_similarity(self._pooled(pictures), self._real(case), dim=-1)
        rows = zip(
            judged(self._judge, case, pictures),
            truth(pictures, seeds, case.wanted, case.background),
            structure.tolist(),
            natural.tolist(),
        )
        return [
            {
                "success": 100.0 * row["success"],
                "background": row["background_psnr"],
                "truth": right,
                "structure": 1e3 * distance,
                "naturalness": 100 * nature,
            }
            for row, right, distance, nature in rows
        ]

    def _real(self, case: Case) -> Tensor:
        """The mean features of 30 validation scenes that show the wanted thing there."""
        key = (case.wanted, case.background)
        if key not in self._typical:
            real = [scenes.render(scenes.VALIDATION + 500 + i, *key) for i in range(30)]
            self._typical[key] = self._pooled(pixels_of(real)).mean(0, keepdim=True)
        return self._typical[key]

    def _features(self, pictures: Tensor) -> Tensor:
        with torch.no_grad():
            maps = self._judge.body(2 * pictures[..., :3].movedim(-1, 1).float() - 1)
        return maps.flatten(2).transpose(1, 2)

    def _pooled(self, pictures: Tensor) -> Tensor:
        features = self._features(pictures)
        return torch.cat([features.mean(1), features.amax(1)], -1)


def proof(studio: DemoStudio, options: argparse.Namespace) -> list[str]:
    apart, measure = studio.narrow(), Measure()
    book = Book(options.out / "proof.jsonl")
    few = [inverted(studio, case, options.steps) for case in cases(options.scenes, scenes.VALIDATION + 2000)]
    many = [inverted(studio, case, options.steps) for case in cases(options.test_scenes, scenes.TEST + 2000)]
    chosen, rows, tried = {}, {}, {}
    for way in WAYS:
        tried[way.title] = trials(way, few, measure, book)
        settings = chosen[way.title] = max(tried[way.title], key=lambda trial: trial.truth).settings
        rows[way.title] = [
            row for seed in SEEDS for row in shown(way, many, settings, seed, measure, book, "test")
        ]
        print(way.title, settings, summary(rows[way.title]), flush=True)
    frames = {
        "no edit": [row for start in many for row in measure(start.case, start.case.pictures)],
        "the VAE's ceiling": [
            row
            for start in many
            for row in measure(start.case, studio.decode(studio.encode(right(start.case))))
        ],
    }
    worst(options, many, rows, chosen)
    return [
        f"{options.test_scenes} test scenes, {len(SEEDS)} seeds, {options.steps} steps, the UNet "
        f"at its trained width ({apart:.0e} apart). Settings chosen by truth on {options.scenes} validation "
        "scenes. Mean and standard error over scenes.",
        "",
        *table(frames, rows, chosen),
        *knobs(tried),
        *candidates(few, chosen, measure, book),
        *parities(many, chosen, measure, book),
    ]


class Book:
    """What has been measured, on disk as soon as it is known."""

    def __init__(self, path):
        self._path, self._known = path, {}
        if path.exists():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                self._known[entry["key"]] = entry["rows"]

    def get(self, key: str, measure: Callable[[], list[dict]]) -> list[dict]:
        if key not in self._known:
            self._known[key] = measure()
            with open(self._path, "a") as file:
                file.write(json.dumps({"key": key, "rows": self._known[key]}) + "\n")
        return self._known[key]


def shown(
    way: Way, starts: list[Start], settings: Settings, seed: int, measure: Measure, book: Book, which: str
) -> list[dict]:
    def run() -> list[dict]:
        found = []
        for start in starts:
            mask = start.mask() if way.masked else None
            found += measure(start.case, start.studio.decode(way.run(start, mask, settings, seed)))
        return found

    count = sum(len(start.case.batch) for start in starts)
    return book.get(f"{which} {count} | {way.title} | {json.dumps(settings)} | {seed}", run)


class Trial(NamedTuple):
    """Settings of a way and their mean truth on validation scenes."""

    settings: Settings
    truth: float


def trials(way: Way, starts: list[Start], measure: Measure, book: Book) -> list[Trial]:
    found = []
    for settings in way.settings():
        rows = shown(way, starts, settings, 0, measure, book, "validation")
        found.append(Trial(settings, statistics.mean(row["truth"] for row in rows)))
    return found


def knobs(tried: dict[str, list[Trial]]) -> list[str]:
    """For each value of a knob the highest truth with it, whatever the other knobs; the best in bold."""
    lines = []
    for knob in ("cfg", "eta", "start", "giver", "denoise"):
        values = list(dict.fromkeys(value for way in WAYS for value in way.knobs.get(knob, ())))
        lines += ["", f"| {knob} | {' | '.join(map(str, values))} |", "|---" * (len(values) + 1) + "|"]
        for title, found in tried.items():
            if knob not in found[0].settings:
                continue
            best = {
                value: max((t.truth for t in found if t.settings[knob] == value), default=math.nan)
                for value in values
            }
            most = max(value for value in best.values() if not math.isnan(value))
            cells = [
                "" if math.isnan(value) else f"**{value:.2f}**" if value == most else f"{value:.2f}"
                for value in best.values()
            ]
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def candidates(starts: list[Start], chosen: dict[str, Settings], measure: Measure, book: Book) -> list[str]:
    """What more noise candidates bring, over many seeds on validation scenes."""
    lines = ["", "| noise candidates | " + " | ".join(FIGURES) + " |", "|---" * (len(FIGURES) + 1) + "|"]
    way = WAYS[0]
    for count in (1, 10, 100):
        settings = chosen[way.title] | {"noise_candidates": count}
        rows = [
            row
            for seed in range(10)
            for row in shown(way, starts, settings, seed, measure, book, "candidates")
        ]
        cells = [cell(by_scene(rows, figure, len(rows) // 10)) for figure in FIGURES]
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return lines


PAPERS: Settings = {"cfg": 7.5, "eta": "paper_gentle", "start": 1.0}


def parities(starts: list[Start], chosen: dict[str, Settings], measure: Measure, book: Book) -> list[str]:
    """Noise chosen by the trajectory itself, against the paper's, chosen by the network's source branch."""
    lines = ["", "| way | noise chosen by | " + " | ".join(FIGURES) + " | truth gained |"]
    lines.append("|---" * (len(FIGURES) + 3) + "|")
    masked, free = WAYS[0], next(way for way in WAYS if not way.masked)
    for way, settings in ((masked, chosen[masked.title]), (masked, PAPERS), (free, PAPERS)):
        scores = {}
        for parity in (True, False):
            asked = settings | {"parity": parity}
            rows = [row for seed in SEEDS for row in shown(way, starts, asked, seed, measure, book, "parity")]
            count = len(rows) // len(SEEDS)
            scores[parity] = by_scene(rows, "truth", count)
            cells = [cell(by_scene(rows, figure, count)) for figure in FIGURES]
            pairs = zip(scores[parity], scores[True])
            gained = "" if parity else cell([mine - theirs for mine, theirs in pairs])
            by = "the network (parity)" if parity else "the trajectory"
            said = ", ".join(f"{knob} {value}" for knob, value in settings.items())
            lines.append(f"| {way.title}; {said} | {by} | {' | '.join(cells)} | {gained} |")
    return lines


def right(case: Case) -> Tensor:
    """The counterfactual scenes themselves."""
    return pixels_of([scenes.render(seed, case.wanted, case.background) for seed in case.seeds])


def summary(rows: list[dict]) -> str:
    return ", ".join(f"{name} {statistics.mean(row[name] for row in rows):.2f}" for name in FIGURES)


def cell(values: list[float]) -> str:
    """Mean and standard error; infinite where a picture is equal to its source."""
    if not all(map(math.isfinite, values)):
        return "∞"
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {error:.2f}"


def by_scene(rows: list[dict], name: str, scenes_of_a_seed: int) -> list[float]:
    """Each scene's figure, the mean over seeds; rows hold all scenes of one seed after the other."""
    return [statistics.mean(row[name] for row in rows[i::scenes_of_a_seed]) for i in range(scenes_of_a_seed)]


def table(
    frames: dict[str, list[dict]], rows: dict[str, list[dict]], chosen: dict[str, Settings]
) -> list[str]:
    best_host = max(
        (way.title for way in WAYS if way.whose == HOSTS),
        key=lambda title: statistics.mean(row["truth"] for row in rows[title]),
    )
    lines = [
        "| way | settings | " + " | ".join(FIGURES) + f" | truth above {best_host} |",
        "|---" * (len(FIGURES) + 3) + "|",
    ]
    for name, found in frames.items():
        cells = [cell([row[figure] for row in found]) for figure in FIGURES]
        lines.append(f"| {name} | | {' | '.join(cells)} | |")
    for way in WAYS:
        found = rows[way.title]
        count = len(found) // len(SEEDS)
        cells = [cell(by_scene(found, figure, count)) for figure in FIGURES]
        pairs = zip(by_scene(found, "truth", count), by_scene(rows[best_host], "truth", count))
        ahead = cell([mine - theirs for mine, theirs in pairs])
        title = f"**{way.title}**" if way.whose == OURS else way.title
        settings = ", ".join(f"{knob} {value}" for knob, value in chosen[way.title].items())
        lines.append(f"| {title} | {settings} | {' | '.join(cells)} | {ahead} |")
    return lines


def worst(
    options: argparse.Namespace, starts: list[Start], rows: dict[str, list[dict]], chosen: dict[str, Settings]
) -> None:
    """A gallery of the five edits of each way that are farthest from the truth, each beside its source."""
    places = [(start, i) for start in starts for i in range(len(start.case.batch))]
    sheet = []
    for way in WAYS:
        first = rows[way.title][: len(places)]
        order = sorted(range(len(places)), key=lambda i: first[i]["truth"])[:5]
        line = []
        for i in order:
            start, place = places[i]
            mask = start.mask() if way.masked else None
            edited = start.studio.decode(way.run(start, mask, chosen[way.title], SEEDS[0]))
            line += [start.case.pictures[place], edited[place]]
        sheet.append(torch.cat(line, 1))
    Image.fromarray((torch.cat(sheet) * 255).byte().numpy()).save(options.out / "proof-worst.jpg", quality=88)
