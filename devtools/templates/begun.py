"""How most templates begin, and the settings that they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .files import CAT, MODELS, SD15, Family
from .sheet import Node, Output, Sheet

# of the nodes that hold prompts: title and body
SOURCE, TARGET = ("#232", "#353"), ("#223", "#335")

# What docs/benchmarks.md found best on the embedded model; on other models a place to begin.
EDIT = {"cfg": 2.0, "start": 0.6, "background_lock": 1.0}
ETA = {"preset": "constant", "end_eta": 1.0}
REGION = {"threshold": 0.4, "refine": True, "grow": 3, "blur": 2.0}
STEPS = 30  # docs/benchmarks.md measured 20, the paper takes 50
# For flow models, as edits were best on the embedded one.
FLOW_EDIT = {"start": 1.0, "cfg": 2.0, "background_lock": 1.0, "seed": 2}
FLOW_REGION = {"grow": 8}
FLOW_ETA = {"preset": "flow_gentle"}


class Loaded(NamedTuple):
    model: Output
    clip: Output
    vae: Output


def checkpoint(sheet: Sheet) -> Loaded:
    loader = sheet.add("CheckpointLoaderSimple", models=[MODELS[SD15]], ckpt_name=SD15)
    return Loaded(*(loader.out(name) for name in ("MODEL", "CLIP", "VAE")))


def of_family(family: Family) -> Callable[[Sheet], Loaded]:
    def load(sheet: Sheet) -> Loaded:
        network, encoder, vae = family.network, family.encoder, family.vae
        model = sheet.add("UNETLoader", models=[network], unet_name=network["name"]).out()
        if family.shift is not None:
            model = sheet.add("ModelSamplingAuraFlow", model=model, shift=family.shift).out()
        clip = sheet.add("CLIPLoader", models=[encoder], clip_name=encoder["name"], type=family.kind)
        return Loaded(model, clip.out(), sheet.add("VAELoader", models=[vae], vae_name=vae["name"]).out())

    return load


class Begun:
    """The first columns of most workflows: model and photograph, both prompts, the inversion."""

    def __init__(
        self,
        sheet: Sheet,
        source: str,
        target: str,
        *pictures: str,
        load: Callable[[Sheet], Loaded] = checkpoint,
        **inversion: str | int,
    ):
        """pictures: files of the input folder; several are inverted as a batch."""
        self.sheet = sheet
        sheet.column("1. Model and photograph")
        self.model, self.clip, self.vae = load(sheet)
        titles = ["Your photograph"] if len(pictures) < 2 else [f"Photograph {i + 1}" for i in range(9)]
        self.loaded = [
            sheet.add("LoadImage", title, image=name) for title, name in zip(titles, pictures or (CAT,))
        ]
        sheet.column("2. Say what changes")
        self.picture = self.loaded[0].out("IMAGE")
        for further in self.loaded[1:]:
            self.picture = sheet.add("ImageBatch", image1=self.picture, image2=further.out("IMAGE")).out()
        self.pair = sheet.add(
            "EtaPromptPair", clip=self.clip, source_prompt=source, target_prompt=target, colour=SOURCE
        )
        self.negative = sheet.add("CLIPTextEncode", "Negative prompt", clip=self.clip, text="")
        self.latent = sheet.add("VAEEncode", pixels=self.picture, vae=self.vae).out()
        sheet.column("3. Invert, find the region")
        self.inversion = sheet.add(
            "EtaInversion",
            model=self.model,
            positive=self.pair.out("source"),
            latent_image=self.latent,
            **{"steps": STEPS} | inversion,
        )

    def region(self, **settings) -> Node:
        inputs = {"words": self.pair.out("source_words"), **REGION, **settings}
        return self.sheet.add(
            "AttentionMask",
            inversion=self.inversion.out(),
            clip=self.clip,
            image=self.picture,
            **inputs,
        )

    def edit(self, eta: Output, title: str = "", **settings) -> Node:
        inputs = {
            "model": self.model,
            "positive": self.pair.out("target"),
            "negative": self.negative.out(),
            **EDIT,
            **settings,
        }
        return self.sheet.add("EtaSampler", title, inversion=self.inversion.out(), eta=eta, **inputs)

    def schedule(self, title: str = "", **settings) -> Output:
        return self.sheet.add("EtaSchedule", title, **(settings or ETA)).out()

    def decode(self, latent: Output, title: str = "Decode the edit") -> Output:
        return self.sheet.add("VAEDecode", title, samples=latent, vae=self.vae).out()

    def keep(self, edited: Output, mask: Output) -> Output:
        """The edit in the photograph: the lock has left colours and places as they were."""
        whole = {"match_colour": 0.0, "align": False}
        return self.sheet.add("EtaKeep", source=self.picture, edited=edited, mask=mask, **whole).out("image")

    def compare(self, edited: Output, **more: Output) -> None:
        self.sheet.add("EtaCompare", before=self.picture, after=edited, **more)

    def save(self, pictures: Output, title: str = "Edited", prefix: str = "eta/edited") -> None:
        self.sheet.add("SaveImage", title, images=pictures, filename_prefix=prefix)

    def result(self, edited: Node, eta: Output) -> None:
        self.sheet.column("5. Look and save", 420)
        pictures = self.decode(edited.out(0))
        self.compare(pictures, eta=eta, inversion=self.inversion.out())
        self.save(pictures)
