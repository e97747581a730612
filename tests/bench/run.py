"""The tables of the README, measured in the real host on the embedded model: python dev.py bench [quality] [cost]

quality  pairs of words swapped in unseen scenes: success by the judge against background PSNR, this pack beside the host's means
methods  the same scenes: each editing method, with eta 0 and the paper's two, everywhere, in the mask, with the lock
cost     network evaluations, time for each against the stock KSampler in the same run, peak memory of whole processes
Everything goes to --out (bench-output): a table, the raw figures, a sheet of pictures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "demo"), str(Path(__file__).parent)]
import judge  # noqa: E402
import scenes  # noqa: E402
from prepare import CHECKPOINT, prepare  # noqa: E402

from eta_core import metrics  # noqa: E402
from tests.host.conftest import Host, boot  # noqa: E402

CFG = 7.5
DEFAULT = {
    "method": "Plug-and-Play",
    "preset": "paper_gentle",
    "threshold": 0.4,
    "grow": 4,
    "blur": 0.0,
    "background_lock": 1.0,
}
PROMPT_TO_PROMPT = {
    "mode": "auto",
    "cross_replace_start": 0.0,
    "cross_replace_end": 0.4,
    "self_replace_start": 0.0,
    "self_replace_end": 0.6,
    "word_steps": "",
    "equalizer": 2.0,
    "equalizer_words": "",
    "local_blend": True,
    "blend_words": "",
    "blend_threshold": 0.3,
    "blend_start": 0.2,
}
# (thing in the picture, thing wanted, background); a word swap each
SWAPS = (
    ("cat", "dog", "grass"),
    ("dog", "fox", "sand"),
    ("apple", "orange", "wood"),
    ("panda", "bear", "snow"),
    ("frog", "piglet", "water"),
    ("red heart", "blue heart", "brickwork"),
    ("yellow ball", "purple ball", "night"),
    ("orange", "apple", "sky"),
    ("bear", "panda", "grass"),
    ("strawberry", "sunflower", "sand"),
)


class Studio:
    """The loaded model, and one call for each thing a workflow does."""

    def __init__(self, host: Host):
        self.host = host
        prepare(host.base)
        self.model, self.clip, self.vae = host.call("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)
        self.negative = self.prompt("")

    def narrow(self) -> float:
        """From here on with the trained width; returns the networks' difference."""
        from narrow import difference, narrow_unet

        wide, narrow = self.model.model.diffusion_model, narrow_unet()
        self.model.model.diffusion_model = narrow
        return difference(wide, narrow, self.prompt("a cat on the grass")[0][0])

    def prompt(self, text: str) -> list:
        return self.host.call("CLIPTextEncode", clip=self.clip, text=text)[0]

    def encode(self, pictures: torch.Tensor) -> dict:
        return self.host.call("VAEEncode", vae=self.vae, pixels=pictures)[0]

    def decode(self, latent: dict) -> torch.Tensor:
        return self.host.call("VAEDecode", vae=self.vae, samples=latent)[0].clamp(0, 1).cpu()

    def invert(self, source: list, latent: dict, steps: int):
        return self.host.call(
            "EtaInversion",
            model=self.model,
            positive=source,
            latent_image=latent,
            steps=steps,
            cfg=1.0,
            scheduler="ddim_uniform",
        )[0]

    def eta(self, preset: str, end_eta: float = 0.4):
        return self.host.call(
            "EtaSchedule", preset=preset, start_t=0.0, start_eta=0.0, end_t=1.0, end_eta=end_eta, power=1.0
        )[0]

    def mask(self, inversion, words: str, source: str, **settings) -> torch.Tensor:
        chosen = {k: DEFAULT[k] for k in ("threshold", "grow", "blur")} | settings
        return self.host.call(
            "AttentionMask",
            inversion=inversion,
            clip=self.clip,
            words=words,
            invert=False,
            source_prompt=source,
            **chosen,
        )[0]

    def edit(self, inversion, target: list, eta, seed: int = 0, **settings) -> dict:
        return self.host.call(
            "EtaSampler",
            model=self.model,
            inversion=inversion,
            eta=eta,
            positive=target,
            negative=self.negative,
            seed=seed,
            **({"cfg": CFG, "noise_candidates": 10, "noise_blend": 0.0} | settings),
        )[0]

    def prompt_to_prompt(self, inversion, target: list, source_text: str, target_text: str, **settings):
        return self.host.call(
            "EtaPromptToPrompt",
            inversion=inversion,
            clip=self.clip,
            positive=target,
            source_prompt=source_text,
            target_prompt=target_text,
            **PROMPT_TO_PROMPT | settings,
        )[0]

    def img2img(self, target: list, latent: dict, steps: int, denoise: float, cfg: float = CFG) -> dict:
        return self.host.call(
            "KSampler",
            model=self.model,
            seed=0,
            steps=steps,
            cfg=cfg,
            sampler_name="euler",
            scheduler="ddim_uniform",
            positive=target,
            negative=self.negative,
            latent_image=latent,
            denoise=denoise,
        )[0]

    def inpaint(self, target: list, latent: dict, mask: torch.Tensor, steps: int) -> dict:
        masked = self.host.call("SetLatentNoiseMask", samples=latent, mask=mask)[0]
        return self.img2img(target, masked, steps, 1.0)

    def unsample(self, source: list, target: list, latent: dict, steps: int) -> dict:
        """FlipSigmas: sampling with the noise levels reversed, then sampling the target."""
        sigmas = self.host.call("BasicScheduler", model=self.model, scheduler="ddim_uniform", steps=steps, denoise=1.0)[
            0
        ]
        flipped = self.host.call("FlipSigmas", sigmas=sigmas)[0]
        sampler = self.host.call("KSamplerSelect", sampler_name="euler")[0]
        common = {
            "model": self.model,
            "add_noise": False,
            "noise_seed": 0,
            "negative": self.negative,
            "sampler": sampler,
        }
        noise = self.host.call(
            "SamplerCustom", cfg=1.0, positive=source, sigmas=flipped, latent_image=latent, **common
        )[0]
        return self.host.call("SamplerCustom", cfg=CFG, positive=target, sigmas=sigmas, latent_image=noise, **common)[0]


# --- quality ---------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """One swap in a batch of scenes that share both prompts."""

    thing: str
    wanted: str
    background: str
    batch: list[scenes.Scene]

    @property
    def pictures(self) -> torch.Tensor:
        return torch.stack([torch.from_numpy(s.image.copy()) for s in self.batch]).float() / 255

    @property
    def truth(self) -> torch.Tensor:
        return torch.stack([torch.from_numpy(s.mask.copy()) for s in self.batch]).float() / 255


def cases(count: int, first_seed: int) -> list[Case]:
    """`count` scenes, shared out over SWAPS."""
    each = -(-count // len(SWAPS))
    return [
        Case(
            thing,
            wanted,
            background,
            [scenes.render(first_seed + 100 + each * k + i, thing, background) for i in range(each)],
        )
        for k, (thing, wanted, background) in enumerate(SWAPS)
    ]


def methods(studio: Studio, case: Case, steps: int) -> dict[str, Callable[[], dict]]:
    source_text, target_text = (scenes.prompt_of(thing, case.background) for thing in (case.thing, case.wanted))
    source, target = studio.prompt(source_text), studio.prompt(target_text)
    latent = studio.encode(case.pictures)
    inversion = studio.invert(source, latent, steps)
    mask = studio.mask(inversion, case.thing, source_text)
    eta, off, strong = studio.eta(DEFAULT["preset"]), studio.eta("constant", 0.0), studio.eta("paper_strong")
    edit = method_of(studio, DEFAULT["method"], inversion, target, source_text, target_text)
    default = {"mask": mask, "background_lock": DEFAULT["background_lock"], "edit": edit}
    return {
        f"this pack, default (mask, lock, {DEFAULT['method']}, {DEFAULT['preset']})": lambda: studio.edit(
            inversion, target, eta, **default
        ),
        "this pack, default with eta 0": lambda: studio.edit(inversion, target, off, **default),
        "this pack, default without a method": lambda: studio.edit(inversion, target, eta, **default | {"edit": None}),
        "this pack, paper's method: mask, paper_strong, no lock, parity": lambda: studio.edit(
            inversion, target, strong, mask=mask, parity=True
        ),
        "this pack, paper_strong, no mask, no lock": lambda: studio.edit(inversion, target, strong),
        "this pack, eta 0, no mask (Direct Inversion)": lambda: studio.edit(inversion, target, off),
        "host, KSampler img2img denoise 0.4": lambda: studio.img2img(target, latent, steps, 0.4),
        "host, KSampler img2img denoise 0.6": lambda: studio.img2img(target, latent, steps, 0.6),
        "host, KSampler img2img denoise 0.8": lambda: studio.img2img(target, latent, steps, 0.8),
        "host, SetLatentNoiseMask with our mask + KSampler, denoise 1": lambda: studio.inpaint(
            target, latent, mask, steps
        ),
        "host, FlipSigmas unsample + resample": lambda: studio.unsample(source, target, latent, steps),
        "(VAE round trip, no edit)": lambda: latent,
    }


def quality(studio: Studio, options: argparse.Namespace) -> list[str]:
    apart = None if options.wide else studio.narrow()
    judges, rows, sheet = judge.load(), {}, []
    for case in cases(options.scenes, scenes.VALIDATION if options.validation else scenes.TEST):
        strip = [case.pictures[0]]
        for name, run in methods(studio, case, options.steps).items():
            started = time.perf_counter()
            pictures = studio.decode(run())
            said = judge.say(judges, pictures)
            psnr = metrics.background_psnr(case.pictures, pictures, case.truth).tolist()
            rows.setdefault(name, []).extend(
                {
                    "swap": f"{case.thing} -> {case.wanted}",
                    "shows": thing,
                    "success": thing == case.wanted,
                    "background_psnr": p,
                }
                for (thing, _), p in zip(said, psnr)
            )
            strip.append(pictures[0])
            print(
                f"{case.thing} -> {case.wanted}: {name}: {sum(t == case.wanted for t, _ in said)}/{len(said)}, {statistics.mean(psnr):.1f} dB, "
                f"{time.perf_counter() - started:.0f} s",
                flush=True,
            )
        sheet.append(torch.cat(strip, 1))
    (options.out / "quality.json").write_text(json.dumps(rows, indent=1))
    Image.fromarray((torch.cat(sheet) * 255).byte().numpy()).save(options.out / "quality.png")
    lines = ["| method | success | background PSNR dB, mean | worst |", "|---|---|---|---|"]
    for name, found in rows.items():
        psnr = [row["background_psnr"] for row in found]
        success = sum(row["success"] for row in found)
        lines.append(
            f"| {name} | {success}/{len(found)} ({100 * success / len(found):.0f} %) | {statistics.mean(psnr):.2f} | {min(psnr):.2f} |"
        )
    how = (
        "the checkpoint"
        if apart is None
        else f"the UNet at its trained width ({apart:.0e} of its deviation from the checkpoint's)"
    )
    return [
        f"{options.scenes} unseen scenes, {options.steps} steps, cfg {CFG:g}, {how}; the rows are the columns of quality.png after the source:",
        "",
        *lines,
    ]


# --- methods ---------------------------------------------------------------------------------------------------------

ETAS = {"0": ("constant", 0.0), "gentle": ("paper_gentle",), "strong": ("paper_strong",)}
PLACES = ("everywhere", "mask", "mask + lock")


def method_of(studio: Studio, name: str, inversion, target: list, source_text: str, target_text: str):
    """ETA_EDIT of a method at its node's defaults."""
    if name == "simple":
        return None
    if name == "MasaCtrl":
        return studio.host.call("EtaMasaCtrl", start=0.08, start_layer=0.625)[0]
    if name == "Plug-and-Play":
        return studio.host.call("EtaPlugAndPlay", feature_end=0.8, attention_end=0.5)[0]
    return studio.prompt_to_prompt(inversion, target, source_text, target_text)


METHODS = ("simple", "Prompt-to-Prompt", "MasaCtrl", "Plug-and-Play")


def structure_distance(judges: judge.Judge, a: torch.Tensor, b: torch.Tensor) -> list[float]:
    """Mean squared difference of the self-similarities of features (Tumanyan et al. 2022), the judge's instead of DINO's."""

    def similarities(pictures: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            tokens = judges.body(2 * pictures[..., :3].movedim(-1, 1).float() - 1).flatten(2).transpose(1, 2)
        tokens = torch.nn.functional.normalize(tokens, dim=-1)
        return tokens @ tokens.transpose(1, 2)

    return (similarities(a) - similarities(b)).square().flatten(1).mean(1).tolist()


def methods_table(studio: Studio, options: argparse.Namespace) -> list[str]:
    apart = studio.narrow()
    judges, rows, sheet = judge.load(), {}, []
    for case in cases(options.scenes, scenes.VALIDATION if options.validation else scenes.TEST):
        texts = [scenes.prompt_of(thing, case.background) for thing in (case.thing, case.wanted)]
        source, target = map(studio.prompt, texts)
        inversion = studio.invert(source, studio.encode(case.pictures), options.steps)
        mask = studio.mask(inversion, case.thing, texts[0])
        places = {"everywhere": {}, "mask": {"mask": mask}, "mask + lock": {"mask": mask, "background_lock": 1.0}}
        strip = [case.pictures[0]]
        for method in METHODS:
            edit = method_of(studio, method, inversion, target, *texts)
            for eta, preset in ETAS.items():
                for place in PLACES:
                    if eta == "0" and place == "mask":
                        continue  # where nothing is renewed a mask means nothing
                    started = time.perf_counter()
                    made = studio.edit(inversion, target, studio.eta(*preset), edit=edit, **places[place])
                    pictures = studio.decode(made)
                    psnr = metrics.background_psnr(case.pictures, pictures, case.truth).tolist()
                    structure = structure_distance(judges, case.pictures, pictures)
                    said = [thing == case.wanted for thing, _ in judge.say(judges, pictures)]
                    rows.setdefault((method, eta, place), []).extend(zip(said, psnr, structure))
                    strip.append(pictures[0])
                    print(
                        f"{case.thing} -> {case.wanted}: {method}, eta {eta}, {place}: {sum(said)}/{len(said)}, "
                        f"{statistics.mean(psnr):.1f} dB, {time.perf_counter() - started:.0f} s",
                        flush=True,
                    )
        sheet.append(torch.cat(strip, 1))
        (options.out / "methods.json").write_text(json.dumps({", ".join(key): found for key, found in rows.items()}))
    Image.fromarray((torch.cat(sheet) * 255).byte().numpy()).save(options.out / "methods.png")
    lines = [
        f"{options.scenes} unseen scenes, {options.steps} steps, cfg {CFG:g}, the UNet at its trained width ({apart:.0e} apart); structure: "
        "distance of the judge's self-similarities x 1e3",
        "",
        "| method | eta | where | success | background PSNR dB, mean | worst | structure |",
        "|---|---|---|---|---|---|---|",
    ]
    for (method, eta, place), found in rows.items():
        success, psnr, structure = zip(*found)
        lines.append(
            f"| {method} | {eta} | {place} | {sum(success)}/{len(success)} | {statistics.mean(psnr):.2f} | {min(psnr):.2f} "
            f"| {1e3 * statistics.mean(structure):.2f} |"
        )
    return lines


# --- cost ------------------------------------------------------------------------------------------------------------


def cost(studio: Studio, options: argparse.Namespace) -> list[str]:
    case = cases(len(SWAPS), scenes.TEST)[0]
    texts = [scenes.prompt_of(thing, case.background) for thing in (case.thing, case.wanted)]
    source, target = map(studio.prompt, texts)
    latent, steps = studio.encode(case.pictures), options.steps
    counter = Counter(studio)
    inversion = studio.invert(source, latent, steps)
    off, strong = studio.eta("constant", 0.0), studio.eta("paper_strong")
    plain = "EtaSampler, paper_strong"
    jobs = {
        "KSampler, cfg 7.5": lambda: studio.img2img(target, latent, steps, 1.0),
        "KSampler, cfg 7.5, batch of 2": lambda: studio.img2img(target, twice(latent), steps, 1.0),
        "KSampler, cfg 1": lambda: studio.img2img(target, latent, steps, 1.0, cfg=1.0),
        "EtaInversion": lambda: studio.invert(source, latent, steps),
        "EtaSampler, eta 0": lambda: studio.edit(inversion, target, off),
        plain: lambda: studio.edit(inversion, target, strong),
    }
    for name in METHODS[1:]:
        method = method_of(studio, name, inversion, target, *texts)
        jobs[f"{plain}, {name}"] = lambda method=method: studio.edit(inversion, target, strong, edit=method)
    jobs[f"{plain}, 4 variants"] = lambda: studio.edit(inversion, target, strong, variants=4)
    times: dict[str, list[float]] = {name: [] for name in jobs}
    calls: dict[str, tuple[int, int]] = {}
    for run in jobs.values():
        run()
    for _ in range(options.rounds):
        for name, run in jobs.items():
            counter.reset()
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
            calls[name] = (counter.calls, counter.rows)
    lines = [
        f"{steps} steps, one picture of 128 px, {options.rounds} rounds in turn; ratios: medians over the rounds. Against KSampler: time against as many "
        "of its network calls at the same batch size. Against plain: time of the edit.",
        "",
        "| node | network calls | rows | seconds, median | against KSampler | against plain |",
        "|---|---|---|---|---|---|",
    ]
    for name, taken in times.items():
        against = [a / b for a, b in zip(taken, expected_seconds(name, calls, times))] if name in CALLS_LIKE else []
        to_plain = [a / b for a, b in zip(taken, times[plain])] if name.startswith("EtaSampler") else []
        ratios = [f"{statistics.median(ratio):.3f}" if ratio else "" for ratio in (against, to_plain)]
        lines.append(
            f"| {name} | {calls[name][0]} | {calls[name][1]} | {statistics.median(taken):.2f} | {' | '.join(ratios)} |"
        )
    whole = sum(calls[n][1] for n in ("EtaInversion", plain))
    lines += [
        "",
        f"A whole edit: {whole} rows through the network; the reference program: {6 * steps}.",
        "",
        *memory(options),
    ]
    return lines


# the KSampler job of each call size (rows) that a node's calls are compared with
CALLS_LIKE = {
    "EtaInversion": {1: "KSampler, cfg 1"},
    "EtaSampler, eta 0": {2: "KSampler, cfg 7.5"},
    "EtaSampler, paper_strong": {2: "KSampler, cfg 7.5", 4: "KSampler, cfg 7.5, batch of 2"},
}


def expected_seconds(name: str, calls: dict, times: dict) -> list[float]:
    """What the stock KSampler takes in each round for as many network calls of the same sizes."""
    made, rows = calls[name]
    sizes = CALLS_LIKE[name]
    large = (rows - min(sizes) * made) // (max(sizes) - min(sizes)) if len(sizes) > 1 else 0
    counts = {min(sizes): made - large, max(sizes): large} if len(sizes) > 1 else {min(sizes): made}
    return [
        sum(count * times[sizes[size]][i] / calls[sizes[size]][0] for size, count in counts.items())
        for i in range(len(times[name]))
    ]


def twice(latent: dict) -> dict:
    return {"samples": latent["samples"].repeat(2, 1, 1, 1)}


class Counter:
    """Counts the network's calls and rows on the studio's model, ours and the stock sampler's alike."""

    def __init__(self, studio: Studio):
        from comfy.patcher_extension import WrappersMP

        self.reset()
        studio.model = studio.model.clone()
        studio.model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "bench", self._count)

    def reset(self) -> None:
        self.calls = self.rows = 0

    def _count(self, apply_model, x, *args, **kwargs):
        self.calls, self.rows = self.calls + 1, self.rows + len(x)
        return apply_model(x, *args, **kwargs)


def memory(options: argparse.Namespace) -> list[str]:
    """Peak resident memory of whole processes: the same start, then one job each."""
    lines = ["| process | peak memory MB |", "|---|---|"]
    for job in PEAKS:
        printed = subprocess.run(
            [sys.executable, __file__, "--peak", job, "--steps", str(options.steps)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        lines.append(f"| {PEAKS[job]} | {printed.split()[-1]} |")
    return lines


PEAKS = {
    "load": "model loaded, nothing sampled",
    "ksampler": "KSampler, cfg 7.5",
    "edit": "EtaInversion + AttentionMask + EtaSampler",
    **{name: f"the same with {name}" for name in METHODS[1:]},
}


def peak(studio: Studio, options: argparse.Namespace) -> None:
    import resource

    case = cases(len(SWAPS), scenes.TEST)[0]
    texts = [scenes.prompt_of(thing, case.background) for thing in (case.thing, case.wanted)]
    source, target = map(studio.prompt, texts)
    latent = studio.encode(case.pictures)
    if options.peak == "ksampler":
        studio.img2img(target, latent, options.steps, 1.0)
    if options.peak in ("edit", *METHODS):
        inversion = studio.invert(source, latent, options.steps)
        mask = studio.mask(inversion, case.thing, texts[0])
        edit = None if options.peak == "edit" else method_of(studio, options.peak, inversion, target, *texts)
        studio.edit(inversion, target, studio.eta("paper_strong"), mask=mask, edit=edit)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


TABLES = {"cost": cost, "quality": quality, "methods": methods_table}  # cost first: it wants the checkpoint itself


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", help="quality, methods, cost; default: all")
    parser.add_argument("--scenes", type=int, default=50)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--wide", action="store_true", help="quality on the checkpoint itself: the same figures, many times slower"
    )
    parser.add_argument(
        "--validation", action="store_true", help="scenes of the validation range, for tuning; never report these"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench-output")
    parser.add_argument("--peak", choices=list(PEAKS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = sys.argv[:1]
        studio = Studio(boot(Path(folder)))
        if options.peak:
            return peak(studio, options)
        for name in options.tables or TABLES:
            text = "\n".join(TABLES[name](studio, options)) + "\n"
            (options.out / f"{name}.md").write_text(text)
            print(f"\n{text}", flush=True)


if __name__ == "__main__":
    main()
