"""What every table of the benchmark works with: unseen scenes, each with a word to swap."""

from __future__ import annotations

from typing import NamedTuple

import torch

from eta_core.evidence import metrics

from ..demo import judge, scenes
from ..demo.studio import pixels_of
from ..studio import Studio

CFG = 7.5
REGION = {"threshold": 0.4, "grow": 4, "blur": 0.0}  # that of the published tables
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


class Case(NamedTuple):
    """One swap in a batch of scenes that share both prompts."""

    thing: str
    wanted: str
    background: str
    batch: list[scenes.Scene]
    seeds: list[int]

    @property
    def pictures(self) -> torch.Tensor:
        return pixels_of(self.batch)

    @property
    def truth(self) -> torch.Tensor:
        return torch.stack([torch.from_numpy(s.mask.copy()) for s in self.batch]).float() / 255


def cases(count: int, first_seed: int) -> list[Case]:
    """`count` scenes, shared out over SWAPS."""
    each, found = -(-count // len(SWAPS)), []
    for k, (thing, wanted, background) in enumerate(SWAPS):
        seeds = [first_seed + 100 + each * k + i for i in range(each)]
        batch = [scenes.render(seed, thing, background) for seed in seeds]
        found.append(Case(thing, wanted, background, batch, seeds))
    return found


def inverted(studio: Studio, case: Case, steps: int, pixels: torch.Tensor | None = None) -> Start:
    """`pixels` instead of the case's own pictures."""
    texts = tuple(scenes.prompt_of(thing, case.background) for thing in (case.thing, case.wanted))
    source, target = map(studio.prompt, texts)
    latent = studio.encode(case.pictures if pixels is None else pixels)
    return Start(studio, case, steps, texts, source, target, latent, invert(studio, source, latent, steps))


class Start(NamedTuple):
    """A picture encoded and inverted: what every edit of it starts from. case: None where its thing has no
    mask.
    """

    studio: Studio
    case: Case | None
    steps: int
    texts: tuple[str, str]  # source, target
    source: list
    target: list
    latent: dict
    inversion: object

    def mask(self, **settings) -> torch.Tensor:
        if self.case is None:
            raise ValueError("no thing is known in this picture")
        region = REGION | settings
        return self.studio.region(self.inversion, self.case.thing, source_prompt=self.texts[0], **region)[0]

    def method(self, name: str, **settings):
        return method_of(self.studio, name, self.inversion, self.target, *self.texts, **settings)

    def edit(self, eta, **settings) -> torch.Tensor:
        return self.studio.edit(
            self.inversion, **{"positive": self.target, "eta": eta, "cfg": CFG} | settings
        )


METHODS = ("simple", "Prompt-to-Prompt", "MasaCtrl", "Plug-and-Play")


def method_of(
    studio: Studio, name: str, inversion, target: list, source_text: str, target_text: str, **settings
):
    """ETA_EDIT of a method at its node's defaults, but for the settings given."""
    if name == "simple":
        return None
    if name == "MasaCtrl":
        return studio.masactrl(**settings)
    if name == "Plug-and-Play":
        return studio.plug_and_play(**settings)
    texts = {"source_prompt": source_text, "target_prompt": target_text}
    return studio.prompt_to_prompt(inversion, positive=target, **texts | settings)


def invert(studio: Studio, source: list, latent: dict, steps: int):
    return studio.invert(positive=source, latent_image=latent, steps=steps)


def stock_img2img(
    studio: Studio, target: list, latent: dict, steps: int, denoise: float, cfg: float = CFG
) -> torch.Tensor:
    """The host's KSampler on the reference's grid."""
    asked = {"seed": 0, "steps": steps, "cfg": cfg, "scheduler": "ddim_uniform", "denoise": denoise}
    return studio.ksampler(positive=target, latent_image=latent, **asked)


def judged(judges: judge.Judge, case: Case, pictures: torch.Tensor) -> list[dict]:
    """For each picture: what the judge sees, whether that was wanted, and PSNR outside the true object, in
    dB.
    """
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
