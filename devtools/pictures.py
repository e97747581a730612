"""The pictures of the help pages, of the README and of the registry, by the embedded model in the host:
python -m devtools.pictures [NAME ...]

Everything is written below web/. Edits take the settings of the templates (templates/begun.py) where nothing
else is said.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from eta_core.files import read_marks
from eta_core.outline import outlines

from . import certificate
from .bench.cases import REGION, method_of
from .demo import scenes
from .demo.prepare import given_back
from .demo.studio import DemoStudio, open_studio, pixels_of
from .environment import ROOT
from .templates.begun import EDIT, ETA
from .templates.files import COFFEE, RETOLD

WEB = ROOT / "web"
STEPS = 50
EVERYWHERE = {"cfg": 7.5, "start": 1.0, "eta": {"preset": "paper_gentle"}}  # what a method does shows best
CAT, BALL, PANDA = (  # unseen scenes
    (scenes.TEST + 7, "cat", "grass"),
    (scenes.TEST + 21, "red ball", "wood"),
    (scenes.TEST + 32, "panda", "wood"),
)
TILE, GAP = 192, 6
INK, PAPER = (40, 40, 48), (255, 255, 255)
COLOURS = ((214, 64, 69), (44, 110, 203), (42, 157, 96), (236, 151, 31), (126, 78, 192), (90, 90, 100))
FINE = 3  # drawings are made this much larger, then reduced


class Subject:
    """A picture with both its prompts, inverted: what every page starts from."""

    def __init__(self, studio: DemoStudio, scene: tuple, thing: str, background: str = ""):
        seed, self.thing, place = scene
        rendered = scenes.render(seed, self.thing, place)
        self.studio, self.pixels = studio, pixels_of([rendered])
        self.source_text = scenes.prompt_of(self.thing, place)
        self.target_text = scenes.prompt_of(thing, background or place)
        self.source, self.target = studio.prompt(self.source_text), studio.prompt(self.target_text)
        self.inversion = studio.invert(
            positive=self.source, latent_image=studio.encode(self.pixels), steps=STEPS
        )

    def region(self, **settings) -> tuple[torch.Tensor, torch.Tensor]:
        """AttentionMask's mask and heatmap."""
        inputs = REGION | {"image": self.pixels, "source_prompt": self.source_text} | settings
        return self.studio.region(self.inversion, self.thing, **inputs)

    def edit(self, method: str = "", masked: bool = True, eta: dict = ETA, **settings) -> torch.Tensor:
        """The edited picture by the settings of the templates, with mask and lock or without both."""
        settings = {"cfg": EDIT["cfg"], "start": EDIT["start"]} | settings
        if method:
            settings["edit"] = method_of(
                self.studio, method, self.inversion, self.target, self.source_text, self.target_text
            )
        if masked:
            settings |= {"mask": self.region()[0], "background_lock": EDIT["background_lock"]}
        return self.studio.decode(
            self.studio.edit(self.inversion, positive=self.target, eta=self.studio.eta(**eta), **settings)
        )


def tile(picture: torch.Tensor, size: int = TILE) -> Image.Image:
    """[1, H, W, 3] or a mask [1, H, W] as one square."""
    pixels = picture[0] if picture.dim() == 4 else picture[0][..., None].expand(-1, -1, 3)
    array = (pixels.clamp(0, 1) * 255).round().byte().cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(array)).resize((size, size), Image.LANCZOS)


def strip(*pictures: torch.Tensor) -> Image.Image:
    return grid([pictures])


def grid(rows: Sequence[Sequence[torch.Tensor]], heads: Sequence[str] = (), size: int = TILE) -> Image.Image:
    top = 26 if heads else 0
    width, height = (len(line) * (size + GAP) - GAP for line in (rows[0], rows))
    sheet = Image.new("RGB", (width, top + height), PAPER)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet.paste(tile(picture, size), (x * (size + GAP), top + y * (size + GAP)))
    for x, head in enumerate(heads):
        ImageDraw.Draw(sheet).text(
            (x * (size + GAP) + size / 2, 12), head, INK, ImageFont.load_default(15), "mm"
        )
    return sheet


def plot(
    curves: dict[str, list[tuple[float, float]]], x_name: str, y_name: str, top: float = 1.0
) -> Image.Image:
    """Lines through points, x in 0..1 from right to left (noise first), y in 0..top."""
    width, height, left, below, edge = 620 * FINE, 300 * FINE, 60 * FINE, 46 * FINE, 16 * FINE
    sheet = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14 * FINE)

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = width - left - edge, height - below - edge
        return left + (1 - x) * across, height - below - y / top * up

    for part in (0, 0.25, 0.5, 0.75, 1):
        for line in ([place(0, part * top), place(1, part * top)], [place(part, 0), place(part, top)]):
            draw.line(line, (225, 225, 230), FINE)
        draw.text((left - 8 * FINE, place(0, part * top)[1]), f"{part * top:g}", INK, font, "rm")
        draw.text((place(part, 0)[0], height - below + 8 * FINE), f"{part:g}", INK, font, "mt")
    draw.text((place(0.5, 0)[0], height - 2 * FINE), x_name, INK, font, "mb")
    draw.text((left + 10 * FINE, edge + 12 * FINE), y_name, INK, font, "lm")
    for i, (name, points) in enumerate(curves.items()):
        draw.line([place(*point) for point in points], COLOURS[i], 3 * FINE, "curve")
        draw.text((width - edge - 10 * FINE, edge + (12 + 20 * i) * FINE), name, COLOURS[i], font, "rm")
    return sheet.resize((width // FINE, height // FINE), Image.LANCZOS).quantize(128)


def words(lines: Sequence[tuple[str, str, tuple]]) -> Image.Image:
    """Prompts a line each, the given words of each in a box of a colour."""
    sheet = Image.new("RGB", (620 * FINE, 120 * FINE), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(26 * FINE)
    for i, (prompt, marked, colour) in enumerate(lines):
        x, y, chosen = 24 * FINE, (32 + 56 * i) * FINE, marked.split(", ")
        for word in prompt.split():
            box = draw.textbbox((x, y), word, font, "lm")
            if word in chosen:
                around = (box[0] - 8 * FINE, y - 20 * FINE, box[2] + 8 * FINE, y + 20 * FINE)
                draw.rounded_rectangle(around, 8 * FINE, colour)
            draw.text((x, y), word, PAPER if word in chosen else INK, font, "lm")
            x = box[2] + 18 * FINE
    return sheet.resize((620, 120), Image.LANCZOS).quantize(128)


def banner(pictures: Sequence[torch.Tensor]) -> Image.Image:
    """21:9, in the colours of the icon."""
    width, height, size = 1260, 540, 330
    dark, light = np.array([24, 34, 120]), np.array([96, 40, 150])
    slope = np.add.outer(np.linspace(0, 0.5, height), np.linspace(0, 0.5, width))[..., None]
    sheet = Image.fromarray((dark * (1 - slope) + light * slope).astype(np.uint8))
    draw = ImageDraw.Draw(sheet)
    draw.text((width / 2, 56), "Eta Inversion", PAPER, ImageFont.load_default(52), "mm")
    draw.text(
        (width / 2, 106), "change a word, keep the picture", (205, 210, 245), ImageFont.load_default(24), "mm"
    )
    rim = Image.new("L", (size, size), 0)
    ImageDraw.Draw(rim).rounded_rectangle((0, 0, size - 1, size - 1), 24, 255)
    gap = (width - len(pictures) * size) // (len(pictures) + 1)
    for i, picture in enumerate(pictures):
        sheet.paste(tile(picture, size), (gap + i * (size + gap), 160), rim)
    return sheet


# --- what each picture shows ----------------------------------------------------------------------


def of_inversion(cat: Subject) -> Image.Image:
    """Five points of the way to noise, decoded."""
    trajectory = cat.inversion.trajectory
    return strip(
        *(point(cat.studio, trajectory, round(p * trajectory.grid.steps)) for p in (0, 0.25, 0.5, 0.75, 1))
    )


def point(studio: DemoStudio, trajectory, index: int) -> torch.Tensor:
    """A point of the way to noise, decoded."""
    z = trajectory.x[index] / math.sqrt(1 + trajectory.grid.sigmas[index] ** 2)
    return studio.decode({"samples": studio.model.model.process_latent_out(z)})


def of_schedule(cat: Subject) -> Image.Image:
    """The presets as the node makes them; custom with a power and with a curve."""
    node = dict(start_t=0.0, start_eta=0.0, end_t=1.0, end_eta=0.4, power=1.0)
    settings = {
        name: {"preset": name} for name in ("paper_strong", "paper_gentle", "linear", "constant", "cosine")
    }
    settings["custom 0.3:0, 0.5:0.5, 1:0.9"] = {"preset": "custom", "curve": "0.3:0, 0.5:0.5, 1:0.9"}
    curves = {
        name: cat.studio.host.call("EtaSchedule", **node | chosen)[0] for name, chosen in settings.items()
    }
    times = np.linspace(0, 1, 201).tolist()
    return plot(
        {name: [(t, curve(t)) for t in times] for name, curve in curves.items()}, "t: noise 1, image 0", "eta"
    )


def of_sigmas(cat: Subject) -> Image.Image:
    (sigmas,) = cat.studio.host.call("EtaSigmas", inversion=cat.inversion)
    points = [(1 - i / (len(sigmas) - 1), float(sigma)) for i, sigma in enumerate(sigmas)]
    return plot({f"{len(sigmas) - 1} steps": points}, "steps left, as a fraction", "sigma", 16.0)


@cache
def of_saving(studio: DemoStudio) -> tuple[Image.Image, Image.Image]:
    """A file's way: picture, noise end and what is played back from it; then edits from it alone."""
    host, cat = studio.host, Subject(studio, CAT, "dog")
    host.call("EtaSaveInversion", inversion=cat.inversion, filename_prefix="eta/cat")
    (file,) = host.nodes.NODE_CLASS_MAPPINGS["EtaLoadInversion"].define_schema().inputs
    (loaded,) = host.call("EtaLoadInversion", file=file.options[0])
    played = studio.edit(loaded, positive=cat.source, eta=studio.eta(preset="constant", end_eta=0.0), cfg=1.0)
    cat.inversion = loaded
    edits = []
    for thing in ("dog", "fox", "panda"):
        cat.target_text = scenes.prompt_of(thing, "grass")
        cat.target = studio.prompt(cat.target_text)
        edits.append(cat.edit())
    return strip(cat.pixels, point(studio, loaded.trajectory, -1), studio.decode(played)), strip(
        cat.pixels, *edits
    )


def of_sampler_select(studio: DemoStudio) -> Image.Image:
    """One prompt and seed from noise, eta 0, 0.5 and 1."""
    call, prompt = studio.host.call, studio.prompt("a fox in the snow")
    (guider,) = call("CFGGuider", model=studio.model, positive=prompt, negative=studio.negative, cfg=5.0)
    (sigmas,) = call("BasicScheduler", model=studio.model, scheduler="ddim_uniform", steps=STEPS, denoise=1.0)
    (noise,) = call("RandomNoise", noise_seed=3)
    (latent,) = call("EmptyLatentImage", width=128, height=128, batch_size=1)
    made = []
    for eta in (0.0, 0.5, 1.0):
        (sampler,) = call("EtaSamplerSelect", eta=studio.eta(preset="constant", end_eta=eta))
        made.append(
            call(
                "SamplerCustomAdvanced",
                noise=noise,
                guider=guider,
                sampler=sampler,
                sigmas=sigmas,
                latent_image=latent,
            )[0]
        )
    return strip(*map(studio.decode, made))


def of_prompts(cat: Subject) -> Image.Image:
    pair = cat.studio.host.call(
        "EtaPromptPair", clip=cat.studio.clip, source_prompt=cat.source_text, target_prompt=cat.target_text
    )
    return words([(pair[4], pair[2], COLOURS[0]), (pair[5], pair[3], COLOURS[2])])


def of_region(panda: Subject) -> Image.Image:
    """Wood becomes snow, and the panda a bear."""
    studio, (mask, heat) = panda.studio, panda.region(grow=12, blur=6.0)
    (edit,) = studio.host.call(
        "EtaRegionEdit",
        positive=studio.prompt("a bear in the snow"),
        mask=mask,
        eta_scale=1.0,
        cfg=7.5,
        overlap="over",
    )
    edited = studio.edit(
        panda.inversion,
        positive=studio.prompt("the snow"),
        eta=studio.eta(preset="paper_strong"),
        edit=edit,
        cfg=7.5,
    )
    return strip(panda.pixels, heat, studio.decode(edited))


def of_edit_mask(cat: Subject) -> Image.Image:
    mask, heat = cat.studio.edit_mask(cat.inversion, positive=cat.target, image=cat.pixels)
    return strip(cat.pixels, heat, mask)


def of_target_words(cat: Subject) -> Image.Image:
    """A mask of the cat's head alone, and a dog in it without and with its own word's place."""
    studio, (mask, _) = cat.studio, cat.region()
    top = mask.clone()
    top[:, 68:] = 0
    asked = dict(positive=cat.target, eta=studio.eta(end_eta=1.0), mask=top, **EDIT)
    words = studio.target_words("dog", positive=cat.target, target_prompt=cat.target_text)
    without, _, _ = studio.edit_all(cat.inversion, **asked)
    freed, _, used = studio.edit_all(cat.inversion, edit=words, **asked)
    return strip(cat.pixels, top, used, studio.decode(without), studio.decode(freed))


def of_flow_edit(cat: Subject) -> Image.Image:
    """The cat, the region, and a dog without and with the region."""
    studio, (mask, heat) = cat.studio, cat.region()
    same = dict(source=cat.source, positive=cat.target, steps=20, start=0.85, cfg=5.5)
    latent = studio.encode(cat.pixels)
    edits = [studio.flow_edit(latent, **same, **place) for place in ({}, {"mask": mask})]
    return strip(cat.pixels, heat, *map(studio.decode, edits))


@cache
def of_metrics(cat: Subject) -> tuple[Image.Image, Image.Image]:
    """Two edits, one in the mask and one everywhere, and the node's table of them."""
    edits = torch.cat([cat.edit(), cat.edit(masked=False, **EVERYWHERE)])
    mask, heat = cat.region()
    table = cat.studio.host.call("EtaMetrics", source=cat.pixels, edited=edits, mask=mask)[1]
    drawn = Image.fromarray((table[0].numpy() * 255).round().astype(np.uint8))
    return grid([(cat.pixels, heat, edits[:1], edits[1:])], ("source", "mask", "1", "2")), drawn.quantize(32)


def of_verdict(cat: Subject) -> Image.Image:
    """Edits under one policy, each with what the node says of it."""
    call, mask = cat.studio.host.call, cat.region()[0]
    edits = [
        cat.edit(),
        cat.edit("Plug-and-Play", masked=False, **EVERYWHERE),
        cat.edit(masked=False, **EVERYWHERE),
    ]
    found = [call("EtaMetrics", source=cat.pixels, edited=edited, mask=mask) for edited in edits]
    said = [
        call("EtaVerdict", figures=figures, policy="advertising", let_through="everything")[1]
        for figures, *_ in found
    ]
    heads = [f"{verdict}, {numbers[2]:.1f} dB" for verdict, numbers in zip(said, found)]
    return grid([(cat.pixels, *edits)], ("picture", *heads))


def planted() -> Image.Image:
    """The coffee of the example photograph made green, as an editor gives it back."""
    photograph = Image.open(WEB / "pictures" / COFFEE).convert("RGB")
    cup = Image.new("L", photograph.size, 0)
    ImageDraw.Draw(cup).ellipse((262, 122, 474, 248), fill=255)
    hue, saturation, value = photograph.convert("HSV").split()
    warm = Image.eval(saturation, lambda level: min(255, max(0, 3 * (level - 70))))
    turned = Image.eval(hue, lambda level: (level + 34) % 256)
    pale = Image.eval(saturation, lambda level: round(0.55 * level))
    green = Image.merge("HSV", (turned, pale, Image.eval(value, lambda level: round(0.85 * level))))
    where = ImageChops.multiply(cup, warm).filter(ImageFilter.GaussianBlur(1.5))
    return given_back(Image.composite(green.convert("RGB"), photograph, where))


def of_saved(cat: Subject) -> Image.Image:
    """The photograph, the file that was saved of its edit, with the outline it tells, and what it tells."""
    host, mask = cat.studio.host, cat.region()[0]
    certificate.write(host.base / "user" / "eta_credentials")
    tile(cat.pixels, 128).save(host.base / "input" / "cat.png")
    host.call(
        "EtaSaveEdited",
        images=cat.edit(),
        filename_prefix="signed",
        source_file="cat.png",
        format="png",
        quality=100,
        mask=mask,
    )
    content = max((host.base / "output").glob("signed*.png")).read_bytes()
    saved = Image.open(io.BytesIO(content)).resize((TILE, TILE), Image.LANCZOS)
    for polygon in outlines(mask[0]):
        around = [(x * TILE / 100, y * TILE / 100) for x, y in [*polygon, polygon[0]]]
        ImageDraw.Draw(saved).line(around, PAPER, 2)
    sheet = Image.new("RGB", (2 * (TILE + GAP) + 2 * TILE, TILE), PAPER)
    sheet.paste(tile(cat.pixels), (0, 0))
    sheet.paste(saved, (TILE + GAP, 0))
    marks = read_marks(content)
    told = [marks.source_type.rpartition("/")[2], *marks.credentials]
    for i, line in enumerate(told):
        at, font = (2 * (TILE + GAP) + 8, 18 + 26 * i), ImageFont.load_default(14)
        ImageDraw.Draw(sheet).text(at, line, INK, font, "lm")
    return sheet


@cache
def of_tune(cat: Subject, ball: Subject) -> tuple[Image.Image, Image.Image]:
    """A search over two pictures at cfg 2, the node's drawing, and both pictures without eta and with the
    curve it found.
    """
    call, examples = cat.studio.host.call, ()
    for subject in (cat, ball):
        inputs = {"image": subject.pixels, "inversion": subject.inversion, "positive": subject.target}
        (examples,) = call("EtaTuneExample", **inputs, mask=subject.region()[0], examples=examples)
    settings = {"cfg": 2.0, "seed": 0, "background_limit": 22.0, "curve": "start, peak, power", "trials": 16}
    studio = cat.studio
    eta, drawn, _ = call(
        "EtaTune", model=studio.model, vae=studio.vae, examples=examples, negative=studio.negative, **settings
    )

    def edits(subject: Subject) -> list[torch.Tensor]:
        shared = {"mask": subject.region()[0], "cfg": settings["cfg"]}
        curves = (studio.eta(preset="constant", end_eta=0.0), eta)
        return [
            studio.decode(studio.edit(subject.inversion, positive=subject.target, eta=curve, **shared))
            for curve in curves
        ]

    rows = [(subject.pixels, *edits(subject)) for subject in (cat, ball)]
    plotted = Image.fromarray((drawn[0].numpy() * 255).round().astype(np.uint8))
    return plotted.quantize(48), grid(rows, ("picture", "eta 0", "tuned"))


def with_and_without(subject: Subject, method: str, **settings) -> Image.Image:
    return strip(subject.pixels, subject.edit(**settings), subject.edit(method, **settings))


METHODS = ("Prompt-to-Prompt", "MasaCtrl", "Plug-and-Play")


def main() -> None:
    only = sys.argv[1:]
    sys.argv = sys.argv[:1]  # the host reads it
    studio = open_studio()
    studio.narrow()
    cat = Subject(studio, CAT, "dog")
    ball = Subject(studio, BALL, "red heart")
    panda = Subject(studio, PANDA, "bear")
    snow = Subject(studio, CAT, "cat", "snow")
    mask, heat = cat.region()
    edited = cat.edit()
    swaps = (cat, ball, panda)
    pictures: dict[str, Callable[[], Image.Image]] = {
        "docs/AttentionMask/mask.jpg": lambda: strip(cat.pixels, heat, mask),
        "docs/EtaEditMask/mask.jpg": lambda: of_edit_mask(cat),
        "docs/EtaFlowEdit/edit.jpg": lambda: of_flow_edit(cat),
        "docs/EtaInversion/inversion.jpg": lambda: of_inversion(cat),
        "docs/EtaLoadInversion/edits.jpg": lambda: of_saving(studio)[1],
        "docs/EtaMasaCtrl/edit.jpg": lambda: with_and_without(ball, "MasaCtrl", masked=False, **EVERYWHERE),
        "docs/EtaMetrics/edits.jpg": lambda: of_metrics(cat)[0],
        "docs/EtaMetrics/table.png": lambda: of_metrics(cat)[1],
        "docs/EtaPlugAndPlay/edit.jpg": lambda: with_and_without(
            snow, "Plug-and-Play", masked=False, **EVERYWHERE
        ),
        "docs/EtaPromptPair/changes.png": lambda: of_prompts(cat),
        "docs/EtaPromptToPrompt/edit.jpg": lambda: with_and_without(cat, "Prompt-to-Prompt", **EVERYWHERE),
        "docs/EtaRegionEdit/edit.jpg": lambda: of_region(panda),
        "docs/EtaSampler/edit.jpg": lambda: strip(
            cat.pixels, heat, edited, point(studio, cat.inversion.trajectory, 0)
        ),
        "docs/EtaSamplerSelect/etas.jpg": lambda: of_sampler_select(studio),
        f"pictures/{RETOLD}": planted,
        "docs/EtaSaveEdited/saved.jpg": lambda: of_saved(cat),
        "docs/EtaSaveInversion/played.jpg": lambda: of_saving(studio)[0],
        "docs/EtaSchedule/curves.png": lambda: of_schedule(cat),
        "docs/EtaSigmas/sigmas.png": lambda: of_sigmas(cat),
        "docs/EtaTune/trials.png": lambda: of_tune(cat, ball)[0],
        "docs/EtaTuneExample/examples.jpg": lambda: of_tune(cat, ball)[1],
        "docs/EtaTargetWords/edit.jpg": lambda: of_target_words(cat),
        "docs/EtaVerdict/verdicts.jpg": lambda: of_verdict(cat),
        "methods.jpg": lambda: grid(
            [(s.pixels, *(s.edit(method, **EVERYWHERE) for method in ("", *METHODS))) for s in swaps],
            ("picture", "no method", *METHODS),
            150,
        ),
        "banner.png": lambda: banner((cat.pixels, heat, edited)),
    }
    for name, make in pictures.items():
        if not only or name in only:
            write(name, make())


def write(name: str, picture: Image.Image) -> None:
    path = WEB / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=82, optimize=True)
    print(f"{name}: {picture.size[0]} x {picture.size[1]}, {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
