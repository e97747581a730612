"""What the example workflows are: a note and the nodes of each, in reading order.

Checkpoint and photographs are files that everybody can have: the page offers to download the one, and puts
the others into the input folder (web/js/pictures.js). Settings that are not named are the nodes' defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .templates import Node, Output, Sheet

SD15 = "v1-5-pruned-emaonly-fp16.safetensors"
CONTROL = "control_v11p_sd15_canny_fp16.safetensors"
LORA = "epiNoiseoffset_v2.safetensors"
HUGGING_FACE = "https://huggingface.co"
MODELS = {
    SD15: {
        "name": SD15,
        "url": f"{HUGGING_FACE}/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/{SD15}",
        "directory": "checkpoints",
    },
    CONTROL: {
        "name": CONTROL,
        "url": f"{HUGGING_FACE}/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/{CONTROL}",
        "directory": "controlnet",
    },
    LORA: {
        "name": LORA,
        "url": "https://civitai.com/api/download/models/16576?type=Model&format=SafeTensor&size=full&fp=fp16",
        "directory": "loras",
    },
}

SAM = {
    "name": "sam3.1_multiplex_fp16.safetensors",
    "url": f"{HUGGING_FACE}/Comfy-Org/sam3.1/resolve/main/checkpoints/sam3.1_multiplex_fp16.safetensors",
    "directory": "checkpoints",
}


def split(repository: str, folder: str, name: str) -> dict:
    """A file of one of the host's own repositories, as the host's templates name it."""
    return {
        "name": name,
        "url": f"{HUGGING_FACE}/Comfy-Org/{repository}/resolve/main/split_files/{folder}/{name}",
        "directory": folder,
    }


class Family(NamedTuple):
    """Network, text encoder and VAE of a family, as the host's own template for it loads them.

    kind: CLIPLoader's `type`. shift: that of ModelSamplingAuraFlow, where the host's template has one that
    is not the family's own.
    """

    network: dict
    encoder: dict
    kind: str
    vae: dict
    shift: float | None = None


Z_IMAGE = Family(
    split("z_image_turbo", "diffusion_models", "z_image_turbo_bf16.safetensors"),
    split("z_image_turbo", "text_encoders", "qwen_3_4b.safetensors"),
    "lumina2",
    split("z_image_turbo", "vae", "ae.safetensors"),
)
QWEN_IMAGE = Family(
    split("Qwen-Image_ComfyUI", "diffusion_models", "qwen_image_2512_fp8_e4m3fn.safetensors"),
    split("Qwen-Image_ComfyUI", "text_encoders", "qwen_2.5_vl_7b_fp8_scaled.safetensors"),
    "qwen_image",
    split("Qwen-Image_ComfyUI", "vae", "qwen_image_vae.safetensors"),
    shift=3.1,
)
KLEIN = Family(
    split("flux2-klein", "diffusion_models", "flux-2-klein-base-4b.safetensors"),
    split("flux2-klein", "text_encoders", "qwen_3_4b.safetensors"),
    "flux2",
    split("flux2-dev", "vae", "flux2-vae.safetensors"),
)

CAT, COFFEE, TABLE = "eta_cat.webp", "eta_coffee.webp", "eta_coffee_masked.webp"
RETOLD = "eta_coffee_edited.webp"  # COFFEE as an editor gives it back: a planted edit, zoomed and tinted
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

FILES = """
**Files.** Checkpoint: Stable Diffusion 1.5; the page offers the download. SDXL works as well. """
CAT_BY = "Photograph: Chelsea, by Stéfan van der Walt, CC0."
COFFEE_BY = "Photograph: Coffee, by Rachel Michetti, courtesy of Pikolo Espresso Bar, CC0."


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


def change_one_thing(sheet: Sheet) -> None:
    begun = Begun(sheet, "a photo of a cat", "a photo of a dog")
    mask = begun.region()
    sheet.column("4. Edit")
    eta = begun.schedule()
    edited = begun.edit(eta, mask=mask.out("mask"))
    sheet.column("5. Keep the rest, look, save", 420)
    pictures = begun.decode(edited.out("latent"))
    kept = begun.keep(pictures, mask.out("mask"))
    reconstruction = begun.decode(edited.out("reconstruction"), "Decode the reconstruction")
    begun.compare(kept, eta=eta, inversion=begun.inversion.out(), reconstruction=reconstruction)
    begun.save(kept)


def begun_on(sheet: Sheet, family: Family, steps: int, inverter: str) -> tuple[Begun, Output]:
    """The first columns on a flow family, and the region."""
    begun = Begun(
        sheet,
        "a photo of a cat",
        "a photo of a dog",
        load=of_family(family),
        steps=steps,
        scheduler="simple",
        inverter=inverter,
    )
    return begun, begun.region(**FLOW_REGION).out("mask")


def by_inversion(family: Family) -> Callable[[Sheet], None]:
    """The main workflow on a base model of a flow family."""

    def draw(sheet: Sheet) -> None:
        begun, mask = begun_on(sheet, family, 20, "warm")
        sheet.column("4. Edit")
        eta = begun.schedule(**FLOW_ETA)
        edited = begun.edit(eta, mask=mask, **FLOW_EDIT)
        sheet.column("5. Keep the rest, look, save", 420)
        kept = begun.keep(begun.decode(edited.out("latent")), mask)
        begun.compare(kept, eta=eta, inversion=begun.inversion.out())
        begun.save(kept)

    return draw


def by_flow_edit(family: Family, steps: int) -> Callable[[Sheet], None]:
    """An edit on a distilled model: the inversion there finds the region and no more."""

    def draw(sheet: Sheet) -> None:
        begun, mask = begun_on(sheet, family, steps, "edit_friendly")
        sheet.column("4. Edit")
        edited = sheet.add(
            "EtaFlowEdit",
            model=begun.model,
            latent_image=begun.latent,
            source=begun.pair.out("source"),
            positive=begun.pair.out("target"),
            negative=begun.negative.out(),
            mask=mask,
            steps=steps,
            scheduler="simple",
            source_cfg=1.0,
            cfg=1.0,
        )
        sheet.column("5. Keep the rest, look, save", 420)
        kept = begun.keep(begun.decode(edited.out("latent")), mask)
        begun.compare(kept, inversion=begun.inversion.out())
        begun.save(kept)

    return draw


def only_inside_my_mask(sheet: Sheet) -> None:
    begun = Begun(sheet, "a photo of the wood", "a photo of an apple on the wood", TABLE)
    sheet.column("4. Edit")
    eta = begun.schedule(preset="constant", end_eta=1.0)
    edited = begun.edit(eta, mask=begun.loaded[0].out("MASK"), start=1.0, cfg=7.5)
    begun.result(edited, eta)


def with_sams_mask(sheet: Sheet) -> None:
    begun = Begun(sheet, "a photo of a cat", "a photo of a dog")
    sheet.groups[-1]["title"] = "3. Invert"
    sheet.column("4. Find the region")
    loaded = sheet.add("CheckpointLoaderSimple", "Load SAM3", models=[SAM], ckpt_name=SAM["name"])
    asked = sheet.add(
        "CLIPTextEncode", "What SAM3 shall find", clip=loaded.out("CLIP"), text="cat", colour=TARGET
    )
    found = sheet.add("SAM3_Detect", model=loaded.out("MODEL"), image=begun.picture, conditioning=asked.out())
    mask = sheet.add("GrowMask", mask=found.out("masks"), expand=4).out()
    shown = sheet.add("MaskToImage", mask=mask)
    sheet.add("PreviewImage", "Region", images=shown.out())
    sheet.column("5. Edit")
    eta = begun.schedule()
    edited = begun.edit(eta, mask=mask)
    sheet.column("6. Keep the rest, look, save", 420)
    kept = begun.keep(begun.decode(edited.out("latent")), mask)
    begun.compare(kept, eta=eta, inversion=begun.inversion.out())
    begun.save(kept)


def large_photograph(sheet: Sheet) -> None:
    sheet.column("1. Model and photograph")
    model, clip, vae = checkpoint(sheet)
    loaded = sheet.add("LoadImage", "Your photograph, with a mask", image=TABLE)
    photograph, mask = loaded.out("IMAGE"), loaded.out("MASK")
    sheet.column("2. Cut out the part, say what changes")
    part = sheet.add("EtaCrop", image=photograph, mask=mask, megapixels=0.25, multiple=8)
    pair = sheet.add(
        "EtaPromptPair",
        clip=clip,
        source_prompt="a photo of the wood",
        target_prompt="a photo of an apple on the wood",
        colour=SOURCE,
    )
    negative = sheet.add("CLIPTextEncode", "Negative prompt", clip=clip, text="")
    latent = sheet.add("VAEEncode", pixels=part.out("part"), vae=vae)
    sheet.column("3. Invert")
    inversion = sheet.add(
        "EtaInversion", model=model, positive=pair.out("source"), latent_image=latent.out(), steps=STEPS
    )
    eta = sheet.add("EtaSchedule", **ETA)
    sheet.column("4. Edit", 320)
    edited = sheet.add(
        "EtaSampler",
        model=model,
        inversion=inversion.out(),
        eta=eta.out(),
        positive=pair.out("target"),
        negative=negative.out(),
        mask=part.out("mask"),
        **EDIT | {"start": 1.0, "cfg": 7.5},
    )
    decoded = sheet.add("VAEDecode", "Decode the part", samples=edited.out("latent"), vae=vae)
    sheet.column("5. Put it back, look, save", 420)
    whole = sheet.add("EtaStitch", source=photograph, edited=decoded.out(), place=part.out("place"))
    sheet.add("EtaCompare", before=photograph, after=whole.out("image"))
    sheet.add("EtaSaveEdited", "Edited, at full size", images=whole.out("image"), mask=whole.out("region"))


def keep_the_rest(sheet: Sheet) -> None:
    sheet.column("1. Before and after")
    before = sheet.add("LoadImage", "Your photograph", image=COFFEE).out("IMAGE")
    after = sheet.add("LoadImage", "The edit, by any program", image=RETOLD).out("IMAGE")
    sheet.column("2. Keep the rest")
    kept = sheet.add("EtaKeep", source=before, edited=after)
    sheet.column("3. Look", 420)
    sheet.add("EtaCompare", before=before, after=kept.out("image"))
    found = sheet.add("MaskToImage", mask=kept.out("mask"))
    sheet.add("PreviewImage", "What changed", images=found.out())
    sheet.column("4. Save", 420)
    sheet.add("EtaSaveEdited", "Edited", images=kept.out("image"), mask=kept.out("region"))


def keep_the_pose(sheet: Sheet) -> None:
    begun = Begun(sheet, "a photo of a cat", "a photo of a dog")
    mask = begun.region()
    sheet.column("4. Edit")
    eta = begun.schedule()
    method = sheet.add(
        "EtaPromptToPrompt",
        inversion=begun.inversion.out(),
        clip=begun.clip,
        positive=begun.pair.out("target"),
        cross_replace_end=0.4,
        self_replace_end=0.2,
        equalizer=1.0,
        local_blend=False,
    )
    edited = begun.edit(eta, mask=mask.out("mask"), edit=method.out(), start=0.8)
    begun.result(edited, eta)


def keep_the_layout(sheet: Sheet) -> None:
    begun = Begun(sheet, "a photo of a cat", "a photo of a cat in the snow")
    sheet.column("4. Edit")
    eta = begun.schedule(preset="paper_gentle")
    method = sheet.add("EtaPlugAndPlay")
    edited = begun.edit(eta, edit=method.out(), cfg=7.5, start=1.0, background_lock=0.0)
    begun.result(edited, eta)


def keep_the_texture(sheet: Sheet) -> None:
    begun = Begun(sheet, "a photo of a cat", "a photo of a fox")
    mask = begun.region()
    sheet.column("4. Edit")
    eta = begun.schedule(preset="paper_strong")
    method = sheet.add("EtaMasaCtrl")
    edited = begun.edit(eta, mask=mask.out("mask"), edit=method.out(), cfg=4.0, start=1.0)
    begun.result(edited, eta)


def two_edits(sheet: Sheet) -> None:
    begun = Begun(sheet, "a photo of a cat", "a photo of the snow")
    mask = begun.region(words="cat", grow=12, blur=6.0)
    sheet.column("4. Edit")
    eta = begun.schedule(preset="paper_strong")
    prompt = sheet.add(
        "CLIPTextEncode",
        "Target prompt of the region",
        clip=begun.clip,
        text="a photo of a fox in the snow",
        colour=TARGET,
    )
    second = sheet.add("EtaRegionEdit", positive=prompt.out(), mask=mask.out("mask"), cfg=7.5)
    edited = begun.edit(eta, edit=second.out(), cfg=7.5, start=1.0, background_lock=0.0)
    begun.result(edited, eta)


def gallery(sheet: Sheet) -> None:
    begun = Begun(sheet, "a photo of a cat", "a photo of a dog")
    mask = begun.region()
    sheet.column("4. Edit")
    eta = begun.schedule()
    edited = begun.edit(eta, mask=mask.out("mask"), variants=4)
    begun.result(edited, eta)


def batch(sheet: Sheet) -> None:
    begun = Begun(sheet, "a photo", "a photo in the snow", CAT, COFFEE)
    sheet.column("4. Edit")
    eta = begun.schedule(preset="paper_gentle")
    method = sheet.add("EtaPlugAndPlay")
    edited = begun.edit(eta, edit=method.out(), start=1.0, background_lock=0.0)
    begun.result(edited, eta)


ETAS = (
    ("eta 0", {"preset": "constant", "end_eta": 0.0}),
    ("paper_gentle", {"preset": "paper_gentle"}),
    ("paper_strong", {"preset": "paper_strong"}),
    ("eta 1", {"preset": "constant", "end_eta": 1.0}),
)


def compare_etas(sheet: Sheet) -> None:
    begun = Begun(sheet, "a photo of a cat", "a photo of a dog")
    mask = begun.region()
    row = begun.picture
    for name, settings in ETAS:
        sheet.column(f"4. Edit with {name}")
        eta = begun.schedule(name, **settings)
        edited = begun.edit(eta, f"Eta Sampler: {name}", mask=mask.out("mask"), start=1.0)
        pictures = begun.decode(edited.out(0))
        sheet.add("PreviewImage", f"Edited: {name}", images=pictures)
        row = sheet.add("ImageStitch", "Next picture of the row", image1=row, image2=pictures).out()
    sheet.column("5. Save the row", 640)
    begun.save(row, "Row", "eta/row")


def measure(sheet: Sheet) -> None:
    begun = Begun(sheet, "a photo of a cat", "a photo of a dog")
    mask = begun.region()
    sheet.column("4. Edit")
    eta = begun.schedule()
    edited = begun.edit(eta, mask=mask.out("mask"), variants=3)
    sheet.column("5. Measure and judge", 360)
    pictures = begun.decode(edited.out(0), "Decode the edits")
    figures = sheet.add("EtaMetrics", source=begun.picture, edited=pictures, mask=mask.out("mask"))
    verdict = sheet.add("EtaVerdict", figures=figures.out("figures"), image=pictures, policy="advertising")
    sheet.add("PreviewAny", "Reasons", source=verdict.out("reasons"))
    sheet.column("6. Look and save", 420)
    sheet.add("PreviewImage", "Table", images=figures.out("table"))
    begun.save(verdict.out(0), "Edited: what passes", "eta/passed")


def approve(sheet: Sheet) -> None:
    begun = Begun(sheet, "a photo of a cat", "a photo of a dog")
    found = begun.region()
    sheet.column("4. Approve the region", 360)
    region = sheet.add(
        "EtaApprove",
        "Is this the region?",
        before=begun.picture,
        after=found.out("heatmap"),
        mask=found.out("mask"),
    )
    sheet.column("5. Edit")
    eta = begun.schedule()
    edited = begun.edit(eta, mask=region.out("mask"), variants=2)
    sheet.column("6. Keep the rest, measure", 360)
    pictures = begun.decode(edited.out("latent"))
    kept = begun.keep(pictures, region.out("mask"))
    figures = sheet.add("EtaMetrics", source=begun.picture, edited=kept, mask=region.out("mask"))
    sheet.column("7. Approve the edits, save", 420)
    approved = sheet.add(
        "EtaApprove",
        "May these be saved?",
        before=begun.picture,
        after=kept,
        mask=region.out("mask"),
        figures=figures.out("figures"),
    )
    begun.save(approved.out("image"), "Edited: what was approved", "eta/approved")


def find_the_eta(sheet: Sheet) -> None:
    sheet.column("1. Model and photographs")
    model, clip, vae = checkpoint(sheet)
    pictures = [sheet.add("LoadImage", f"Photograph {i}", image=name) for i, name in ((1, CAT), (2, CAT))]
    pairs, regions, inversions = [], [], []
    sheet.column("2. Say what changes in each")
    latents = []
    for i, (picture, target) in enumerate(zip(pictures, ("dog", "fox")), 1):
        pairs.append(
            sheet.add(
                "EtaPromptPair",
                f"Prompts {i}",
                clip=clip,
                source_prompt="a photo of a cat",
                target_prompt=f"a photo of a {target}",
                colour=SOURCE,
            )
        )
        latents.append(sheet.add("VAEEncode", pixels=picture.out("IMAGE"), vae=vae))
    negative = sheet.add("CLIPTextEncode", "Negative prompt", clip=clip, text="")
    for i, (pair, latent) in enumerate(zip(pairs, latents), 1):
        if i == 1:
            sheet.column("3. Invert")
        inversions.append(
            sheet.add(
                "EtaInversion",
                f"Inversion {i}",
                model=model,
                positive=pair.out("source"),
                latent_image=latent.out(),
                steps=20,
            )
        )
    sheet.column("4. Find the regions")
    for i in range(2):
        regions.append(
            sheet.add(
                "AttentionMask",
                f"Region {i + 1}",
                inversion=inversions[i].out(),
                clip=clip,
                words=pairs[i].out("source_words"),
                image=pictures[i].out("IMAGE"),
                **REGION,
            )
        )
    sheet.column("5. Try etas on the examples", 340)
    example = None
    for i in (1, 0):
        more = {} if example is None else {"examples": example.out()}
        example = sheet.add(
            "EtaTuneExample",
            f"Example {i + 1}",
            image=pictures[i].out("IMAGE"),
            inversion=inversions[i].out(),
            positive=pairs[i].out("target"),
            mask=regions[i].out("mask"),
            **more,
        )
    tuned = sheet.add(
        "EtaTune",
        model=model,
        vae=vae,
        examples=example.out(),
        negative=negative.out(),
        cfg=2.0,
        background_limit=22.0,
        trials=8,
        background_lock=0.0,
    )
    sheet.column("6. Edit with what was found", 340)
    decoded = []
    for i in range(2):
        edited = sheet.add(
            "EtaSampler",
            f"Edit {i + 1}",
            model=model,
            inversion=inversions[i].out(),
            eta=tuned.out(0),
            positive=pairs[i].out("target"),
            negative=negative.out(),
            mask=regions[i].out("mask"),
            cfg=2.0,
            background_lock=0.0,
        )
        decoded.append(sheet.add("VAEDecode", f"Decode {i + 1}", samples=edited.out(0), vae=vae))
    sheet.column("7. Save")
    for i in range(2):
        sheet.add("SaveImage", f"Edited {i + 1}", images=decoded[i].out(), filename_prefix="eta/tuned")


def with_controlnet(sheet: Sheet) -> None:
    begun = Begun(sheet, "a photo of a cat", "a photo of a dog")
    mask = begun.region()
    sheet.column("4. Guide the edit by the edges")
    edges = sheet.add("Canny", image=begun.picture)
    control = sheet.add("ControlNetLoader", models=[MODELS[CONTROL]], control_net_name=CONTROL)
    guided = sheet.add(
        "ControlNetApplyAdvanced",
        "ControlNet on the target",
        positive=begun.pair.out("target"),
        negative=begun.negative.out(),
        control_net=control.out(),
        image=edges.out(),
        strength=0.8,
        end_percent=0.6,
    )
    sheet.add("PreviewImage", "Edges", images=edges.out())
    sheet.column("5. Edit")
    eta = begun.schedule()
    edited = begun.edit(
        eta,
        mask=mask.out("mask"),
        positive=guided.out("positive"),
        negative=guided.out("negative"),
        start=1.0,
    )
    sheet.column("6. Look and save", 420)
    pictures = begun.decode(edited.out(0))
    begun.compare(pictures, eta=eta, inversion=begun.inversion.out())
    begun.save(pictures)


def with_a_lora(sheet: Sheet) -> None:
    begun = Begun(sheet, "a photo of a cat", "a photo of a cat")
    sheet.column("4. Edit with the LoRA")
    eta = begun.schedule(preset="paper_gentle")
    lora = sheet.add(
        "LoraLoaderModelOnly", "LoRA of the edit", models=[MODELS[LORA]], model=begun.model, lora_name=LORA
    )
    method = sheet.add("EtaPlugAndPlay")
    edited = begun.edit(eta, model=lora.out(), edit=method.out(), start=1.0, background_lock=0.0)
    begun.result(edited, eta)


PHOTO = "1. **Load** a photograph of your own, 512 pixels or more on each side."
PROMPTS = (
    "2. **Eta Prompt Pair**: the source prompt says what the photograph shows. The target prompt is the same "
    "sentence with one thing changed."
)
TRY_FLOW = (
    "**If it is not right yet.** The old shape shines through: take the preset `flow_strong`, or raise "
    "`cfg` towards 5. The new thing is cut off: raise `grow`. Too much is free: raise `threshold`. The edit "
    "does not fit its surroundings: take 50 `steps`. Another try: change `seed`."
)
UNMEASURED = """
**A place to begin.** The settings were best on a toy flow model. Nothing was measured on this family's
weights.
"""


def files(names: str, host: str) -> str:
    """The last lines of a family's note."""
    return f"""
**Files.** {names}: the page offers the downloads. ComfyUI {host} or newer. {CAT_BY}
"""


TRY = (
    "**If it is not right yet.** Nothing changes: raise `cfg` towards 7.5, then `start` towards 1. The old "
    "shape shines through: raise `start`. The new thing is cut off: raise `grow`. Too much is free: raise "
    "`threshold`. Another try: change `seed`."
)
TRY_SAM = (
    "**If it is not right yet.** SAM3 finds nothing: name the thing in other words, or lower `threshold`. "
    "Nothing changes: raise `cfg` towards 7.5, then `start` towards 1. The old shape shines through: raise "
    "`start`. The new thing is cut off: raise `expand`. Another try: change `seed`."
)
FILES_SAM = (
    "**Files.** Two checkpoints, for `models/checkpoints`: Stable Diffusion 1.5 (SDXL works as well) and "
    f"SAM 3.1 (`{SAM['name']}`). The page offers the downloads. ComfyUI 0.33 or newer. "
)
TEMPLATES = {
    "Change one thing in a photo": (
        f"""{PHOTO}
{PROMPTS}
3. **Attention Mask** takes the words that changed and shows where they look. The white line is the edge
   of the region.
4. **Eta Sampler** edits inside the region. **Eta Keep** puts the edit back into the photograph:
   outside the region and its seam every pixel is the photograph's own.
5. **Eta Compare** shows before and after under a slider.

{TRY}
{FILES}{CAT_BY}
""",
        change_one_thing,
    ),
    "Edit with Qwen-Image": (
        f"""{PHOTO}
{PROMPTS}
3. **Eta Inversion** takes the photograph to noise in 20 steps of the base model.
   **Attention Mask** shows where the words that changed look.
4. **Eta Sampler** edits inside the region. **Eta Keep** puts the edit back into the photograph.

{TRY_FLOW}
{UNMEASURED}{files("Qwen-Image 2512, its text encoder and its VAE", "0.3.75")}""",
        by_inversion(QWEN_IMAGE),
    ),
    "Edit with Flux 2 Klein": (
        f"""{PHOTO}
{PROMPTS}
3. **Eta Inversion** takes the photograph to noise in 20 steps of the base model.
   **Attention Mask** shows where the words that changed look.
4. **Eta Sampler** edits inside the region. **Eta Keep** puts the edit back into the photograph.
5. For the distilled Klein (4 steps, cfg 1) take the workflow *Edit with Z-Image Turbo* and load Klein's
   files there.

{TRY_FLOW}
{UNMEASURED}{files("Flux.2 Klein base 4B, its text encoder and its VAE", "0.33")}""",
        by_inversion(KLEIN),
    ),
    "Edit with Z-Image Turbo": (
        f"""{PHOTO}
{PROMPTS}
3. **Eta Inversion** only finds the region here. It reads where the prompt's words look in the
   photograph under noise (`edit_friendly`, one evaluation a step).
4. **Eta Flow Edit** edits without an inversion: a distilled model of 8 steps cannot be played back
   closely. Both guidances stay 1. **Eta Keep** puts the edit back into the photograph.

**If it is not right yet.** Nothing changes: raise `start` towards 1. Too much changes: lower `start`. The
new thing is cut off: raise `grow`. Too much is free: raise `threshold`. Another try: change `seed`.
{UNMEASURED}{files("Z-Image-Turbo, its text encoder and its VAE", "0.3.75")}""",
        by_flow_edit(Z_IMAGE, 8),
    ),
    "Only inside my mask": (
        f"""{PHOTO}
2. **Draw the mask**: right-click the picture, *Open in MaskEditor*, and paint where the edit may act.
   This photograph comes with a mask on the empty wood.
3. **Prompts**: here the place is empty, so no word of the source could point at it. Both prompts
   describe the place inside the mask.
4. **Eta Sampler**: a new thing needs much fresh noise and the whole way: eta 1, `start` 1, `cfg` 7.5.
   To change a thing that is there, begin with `cfg` 2 and `start` 0.6.
{FILES}{COFFEE_BY}
""",
        only_inside_my_mask,
    ),
    "With SAM's mask": (
        f"""{PHOTO}
{PROMPTS}
3. **What SAM3 shall find**: a noun or a few words for the thing that changes. **SAM3 Detect** finds its
   outline in the photograph.
4. **GrowMask** gives the new thing some room around the old one.
5. **Eta Sampler** edits inside the region. **Eta Keep** puts the edit back into the photograph.

{TRY_SAM}

{FILES_SAM}{CAT_BY}
""",
        with_sams_mask,
    ),
    "A large photograph": (
        f"""1. **Load** a photograph of any size. Right-click it, *Open in MaskEditor*, and paint over
   what shall change.
2. **Eta Crop** cuts out the part around the mask and resizes it to what the model likes: `megapixels`
   0.25 for SD1.5, 1 for SDXL and newer.
3. **Prompts**: say what the part shows, before and after.
4. **Eta Sampler** edits the part. A new thing needs `start` 1 and `cfg` 7.5; to change a thing that is
   there, begin with `cfg` 2 and `start` 0.6.
5. **Eta Stitch** puts the part back. Outside the mask and its seam every pixel is the photograph's own.
6. **Save Edited Image** keeps colour profile and EXIF of the photograph's file. The mask editor's copy has
   no EXIF: choose your own file in `source_file`.
{FILES}{COFFEE_BY}
""",
        large_photograph,
    ),
    "Keep the rest of any edit": (
        f"""1. **Load** your photograph, and the same photograph as any editor gave it back: another
   program, an online service, or a workflow of Qwen-Image-Edit or Flux Kontext. No model is needed here.
2. **Eta Keep** finds how the edit was shifted, zoomed and tinted, undoes that, and finds what changed.
   Only that is taken. Its figures stand on the node.
3. Is too much or too little found? Connect a **mask** of your own.
4. **Save Edited Image** keeps colour profile and EXIF of the photograph's file.

In a workflow of an editor, connect its picture in place of the second *Load Image*.

**Files.** {COFFEE_BY} The second picture is a planted edit of it: the coffee made green, the whole picture
zoomed by 2 % and tinted.
""",
        keep_the_rest,
    ),
    "Keep the pose with Prompt-to-Prompt": (
        f"""{PHOTO}
{PROMPTS}
3. **Eta Prompt-to-Prompt** lets the source's attention steer the first part of the edit, so that the
   new thing stands as the old one stood. `cross_replace_end` keeps the place, `self_replace_end` the
   shape. 0 is off; the paper takes 0.4 and 0.6.
4. Higher values keep more of the old shape, lower ones give the new thing a shape of its own.
{FILES}{CAT_BY}
""",
        keep_the_pose,
    ),
    "Keep the layout with Plug-and-Play": (
        f"""{PHOTO}
{PROMPTS}
3. **Eta Plug-and-Play** takes features and self-attention from the source during the first part of the
   edit. Everything stays where it is, the look changes.
4. There is no mask here: the whole picture may change. `feature_end` 0.8 and `attention_end` 0.5 are
   the paper's; lower values let more change.
{FILES}{CAT_BY}
""",
        keep_the_layout,
    ),
    "Keep the texture with MasaCtrl": (
        f"""{PHOTO}
{PROMPTS}
3. **Eta MasaCtrl** lets the edit look its texture up in the source, from step `start` and layer
   `start_layer` on. The new shape is made of the old fur.
4. A later `start` gives the new thing more of a look of its own.
{FILES}{CAT_BY}
""",
        keep_the_texture,
    ),
    "Two edits at once": (
        f"""{PHOTO}
2. **Eta Prompt Pair**: the target prompt here is the first edit, of everything outside the region: snow.
3. **Eta Region Edit** is the second edit. Inside its mask another prompt acts, with an eta, a guidance
   and a method of its own. Chain more of them through `edit`.
4. Draw the mask a little larger than the thing (`grow`, `blur`), so that both edits meet softly.
{FILES}{CAT_BY}
""",
        two_edits,
    ),
    "Gallery of variants": (
        f"""{PHOTO}
{PROMPTS}
3. **Eta Sampler**: `variants` 4 makes four edits with seed, seed + 1 and so on. They share one source
   branch and come out as a batch.
4. More eta and a higher `start` make them differ more.
{FILES}{CAT_BY}
""",
        gallery,
    ),
    "A batch of pictures": (
        f"""1. **Load** photographs of one size. For a longer batch chain more *Batch Images* nodes.
2. **Eta Prompt Pair**: the source prompt has to be true of every picture.
3. Each picture is inverted and edited on its own way; it comes out as it would alone. Memory grows with
   the batch.
4. **Eta Plug-and-Play** keeps every layout, the target prompt changes the look.
{FILES}{CAT_BY} {COFFEE_BY}
""",
        batch,
    ),
    "Compare etas in a grid": (
        f"""{PHOTO}
{PROMPTS}
3. The photograph is inverted once. Four **Eta Samplers** share inversion and region and differ in eta
   alone.
4. The row shows the source, then eta 0, `paper_gentle`, `paper_strong` and eta 1. Take the smallest eta
   that makes your edit.
{FILES}{CAT_BY}
""",
        compare_etas,
    ),
    "Measure an edit and hold back what fails": (
        f"""{PHOTO}
{PROMPTS}
3. **Eta Sampler** makes three variants.
4. **Eta Metrics** compares each with the source, inside and outside the region. The table has a row for
   each.
5. **Eta Verdict** judges the figures by a policy and says why. Only what passes is saved.
   `advertising`: the background may lose what a VAE loses. `catalogue-strict`: the background has to be
   exact.
{FILES}{CAT_BY}
""",
        measure,
    ),
    "Approve before saving": (
        f"""{PHOTO}
{PROMPTS}
3. **Is this the region?** The run waits here before any edit is made. Approve the orange region, or
   redraw it in the mask editor and approve that. Reject ends the run.
4. **Eta Sampler** makes two edits inside the approved region.
5. **May these be saved?** Pick one, both or none. Only what you approve is saved.

**Keys**, after a click on the pictures: A approve, R reject, E redraw, X pick, Space (held) before, arrows
next picture. Cancel in the queue ends the wait. After `time_limit` seconds, and in runs without a page, the
pictures are rejected.
{FILES}{CAT_BY}
""",
        approve,
    ),
    "Find the eta for your pictures": (
        f"""1. Two **examples**: each has a photograph, two prompts and a region. One is enough; chain
   *Eta Tune Example* for more. Take pictures like those you will edit.
2. **Eta Tune** tries eta curves on the examples and hands out the one that edits most while every
   background keeps `background_limit` dB.
3. What it finds holds for this model and for edits of this kind. Use the curve for the rest of your
   pictures, with the same `cfg` and `background_lock`.
{FILES}{CAT_BY}
""",
        find_the_eta,
    ),
    "With ControlNet": (
        f"""{PHOTO}
{PROMPTS}
3. The **ControlNet** sits on the target prompt alone and holds the edit to the edges of the photograph.
   `strength` and `end_percent` say how much and how long; lower them where the old shape should go.
4. Any ControlNet works, on the source prompt too.
{FILES}ControlNet: Canny for SD1.5. {CAT_BY}
""",
        with_controlnet,
    ),
    "With a LoRA": (
        f"""{PHOTO}
2. **Prompts**: both are the same here, so that only the LoRA changes the picture. Add the LoRA's
   trigger words to the target prompt if it has some.
3. The **LoRA** sits on the model of Eta Sampler alone: the photograph is inverted as it is and comes
   out in the LoRA's look. The pack warns that the models differ; here that is meant.
4. **Eta Plug-and-Play** keeps the layout.
{FILES}LoRA: epiNoiseoffset, more contrast and darker shadows. {CAT_BY}
""",
        with_a_lora,
    ),
}
