"""What every table of the benchmark works with: the embedded model in the real host, and unseen scenes with a word to swap."""

from __future__ import annotations

from copy import copy
from typing import NamedTuple

import judge
import scenes
import torch
from prepare import CHECKPOINT, prepare

from eta_core.evidence import metrics
from tests.host.conftest import Host

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
        self.apart: float | None = None  # once narrow

    def narrow(self) -> float:
        """From here on with the trained width; returns the networks' difference."""
        from narrow import difference, narrow_unet

        if self.apart is None:
            wide, narrow = self.model.model.diffusion_model, narrow_unet()
            self.model.model.diffusion_model = narrow
            self.apart = difference(wide, narrow, self.prompt("a cat on the grass")[0][0])
        return self.apart

    def on(self, model) -> Studio:
        """The same with another MODEL, such as one that carries a patch."""
        other = copy(self)
        other.model = model
        return other

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


def inverted(studio: Studio, case: Case, steps: int, pixels: torch.Tensor | None = None) -> Start:
    """`pixels` instead of the case's own pictures."""
    texts = tuple(scenes.prompt_of(thing, case.background) for thing in (case.thing, case.wanted))
    source, target = map(studio.prompt, texts)
    latent = studio.encode(case.pictures if pixels is None else pixels)
    return Start(studio, case, steps, texts, source, target, latent, studio.invert(source, latent, steps))


class Start(NamedTuple):
    """A case encoded and inverted: what every edit of it starts from."""

    studio: Studio
    case: Case
    steps: int
    texts: tuple[str, str]  # source, target
    source: list
    target: list
    latent: dict
    inversion: object

    def mask(self, **settings) -> torch.Tensor:
        return self.studio.mask(self.inversion, self.case.thing, self.texts[0], **settings)

    def method(self, name: str, **settings):
        return method_of(self.studio, name, self.inversion, self.target, *self.texts, **settings)

    def edit(self, eta, **settings) -> dict:
        return self.studio.edit(self.inversion, self.target, eta, **settings)


METHODS = ("simple", "Prompt-to-Prompt", "MasaCtrl", "Plug-and-Play")


def method_of(
    studio: Studio, name: str, inversion, target: list, source_text: str, target_text: str, **settings
):
    """ETA_EDIT of a method at its node's defaults, but for the settings given."""
    if name == "simple":
        return None
    if name == "MasaCtrl":
        return studio.host.call("EtaMasaCtrl", **{"start": 0.08, "start_layer": 0.625} | settings)[0]
    if name == "Plug-and-Play":
        return studio.host.call("EtaPlugAndPlay", **{"feature_end": 0.8, "attention_end": 0.5} | settings)[0]
    return studio.prompt_to_prompt(inversion, target, source_text, target_text, **settings)


def judged(judges: judge.Judge, case: Case, pictures: torch.Tensor) -> list[dict]:
    """Of each picture: what the judge sees, whether that was wanted, PSNR in dB against the source outside the true object."""
    psnr = metrics.background_psnr(case.pictures, pictures, case.truth).tolist()
    return [
        {
            "swap": f"{case.thing} -> {case.wanted}",
            "shows": thing,
            "success": thing == case.wanted,
            "background_psnr": p,
        }
        for (thing, _), p in zip(judge.say(judges, pictures), psnr)
    ]
