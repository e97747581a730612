"""Captioned scenes whose truth is known: one emoji on one procedural background, 128 x 128 pixels.

A scene is made by its seed alone. Training, validation and test scenes come from separate ranges of seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 128
OBJECTS = (
    "cat",
    "dog",
    "fox",
    "panda",
    "bear",
    "frog",
    "piglet",
    "penguin",
    "apple",
    "orange",
    "strawberry",
    "sunflower",
)
COLOURED = ("heart", "ball")
COLOURS = ("red", "yellow", "green", "blue", "purple")
PLACES = {
    "grass": "on the grass",
    "sand": "on the sand",
    "sky": "in the sky",
    "snow": "in the snow",
    "brickwork": "on the brickwork",
    "night": "in the night",
    "water": "in the water",
    "wood": "on the wood",
}
BACKGROUNDS = tuple(PLACES)
THINGS = OBJECTS + tuple(f"{colour} {thing}" for thing in COLOURED for colour in COLOURS)

TRAIN, VALIDATION, TEST = 0, 1_000_000, 2_000_000  # first seeds; the test range is never trained or tuned on


@dataclass(frozen=True)
class Scene:
    """image [H, W, 3] and mask [H, W], uint8; mask is the object's true alpha. thing: "cat", "red heart", ...
    or "".
    """

    image: np.ndarray
    mask: np.ndarray
    thing: str
    background: str

    @property
    def prompt(self) -> str:
        return prompt_of(self.thing, self.background)


def prompt_of(thing: str, background: str) -> str:
    """The plain caption: "a cat on the grass"."""
    return f"{article(thing)} {thing} {PLACES[background]}" if thing else f"the {background}"


def article(thing: str) -> str:
    return "an" if thing[0] in "ao" else "a"


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One of several ways to say what the scene shows, for training."""
    thing, background = scene.thing, scene.background
    if not thing:
        return prompt_of(thing, background) if rng.random() < 0.5 else background
    plain, kind = prompt_of(thing, background), rng.random()
    if kind < 0.6:
        return plain
    if kind < 0.7:
        return f"a photo of {plain}"
    if kind < 0.8:
        return f"{thing} {background}"
    return f"a picture of the {thing} {PLACES[background]}" if kind < 0.9 else f"{article(thing)} {thing}"


def render(seed: int, thing: str | None = None, background: str | None = None) -> Scene:
    """The scene of a seed; `thing` ("" = none) and `background` override what the seed would pick, nothing
    else.
    """
    thing, background, layout, ground = _laid_out(seed, thing, background)
    mask = Image.new("L", (SIZE, SIZE), 0)
    if thing:
        glyph = scaled_glyph(thing, layout.size, layout.flip)
        corner = layout.corner(glyph.size)
        ground.paste(glyph, corner, glyph)
        mask.paste(glyph.getchannel("A"), corner)
    return Scene(np.asarray(ground), np.asarray(mask), thing, background)


class Layout(NamedTuple):
    """Where a scene's thing is: its longer side in pixels, whether it is mirrored, its place in 0..1 of the
    room.
    """

    size: float
    flip: bool
    place: np.ndarray

    def corner(self, sides: tuple[int, int]) -> tuple[int, int]:
        """The upper left corner (x, y) of a thing of these sides."""
        x, y = (int(2 + p * (SIZE - 4 - side)) for p, side in zip(self.place, sides))
        return x, y


def layout_of(seed: int, background: str) -> tuple[Layout, np.ndarray]:
    """Where the thing of a seed is, whatever it is, and the ground behind it, [H, W, 3] uint8."""
    _, _, layout, ground = _laid_out(seed, None, background)
    return layout, np.asarray(ground)


def _laid_out(seed: int, thing: str | None, background: str | None) -> tuple[str, str, Layout, Image.Image]:
    rng = np.random.default_rng(seed)
    picked_thing, picked_background = _pick(rng), BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    thing = picked_thing if thing is None else thing
    background = background or picked_background
    layout = Layout(rng.uniform(60, 92), rng.random() < 0.5, rng.random(2))
    return thing, background, layout, _BACKGROUND[background](rng)


def _pick(rng: np.random.Generator) -> str:
    """Any object, coloured ones twice as often as one plain object, no object once in forty."""
    if rng.random() < 0.025:
        return ""
    kind = rng.integers(len(OBJECTS) + 2 * len(COLOURED))
    if kind < len(OBJECTS):
        return OBJECTS[kind]
    return f"{COLOURS[rng.integers(len(COLOURS))]} {COLOURED[(kind - len(OBJECTS)) // 2]}"


def scaled_glyph(thing: str, size: float, flip: bool) -> Image.Image:
    """The picture of a thing, RGBA, its longer side `size` pixels."""
    glyph = _glyph(thing)
    scale = size / max(glyph.size)
    glyph = glyph.resize([max(1, round(side * scale)) for side in glyph.size], Image.BICUBIC)
    return glyph.transpose(Image.FLIP_LEFT_RIGHT) if flip else glyph


@cache
def _glyph(thing: str) -> Image.Image:
    return Image.open(Path(__file__).parent / "glyphs" / f"{thing.replace(' ', '_')}.png").convert("RGBA")


# --- backgrounds: soft textures, so that the small autoencoder can keep them ----------------------

_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGB")


def _mix(low: tuple, high: tuple, weight: np.ndarray) -> np.ndarray:
    return (
        np.array(low, np.float32)
        + (np.array(high, np.float32) - np.array(low, np.float32)) * weight[..., None]
    )


def _dots(
    image: Image.Image,
    rng: np.random.Generator,
    count: int,
    radius: tuple[float, float],
    colour: tuple,
    soft: float,
) -> Image.Image:
    draw = ImageDraw.Draw(image)
    for _ in range(count):
        x, y, r = *rng.uniform(0, SIZE, 2), rng.uniform(*radius)
        draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)
    return image.filter(ImageFilter.GaussianBlur(soft))


def _grass(rng):
    phase, lean = rng.uniform(0, 6.28, 3), rng.uniform(-0.25, 0.25)
    blades = np.sin((_X + lean * _Y) / 2.6 + phase[0] + 0.6 * np.sin(_Y / 9 + phase[1])) * np.sin(
        _Y / 5.5 + phase[2]
    )
    return _picture(_mix((72, 150, 52), (116, 186, 80), 0.5 + 0.5 * blades))


def _sand(rng):
    phase = rng.uniform(0, 6.28, 2)
    waves = np.sin(_Y / 6 + 2.0 * np.sin(_X / 22 + phase[0]) + phase[1])
    return _picture(_mix((222, 190, 122), (246, 218, 158), 0.5 + 0.5 * waves))


def _sky(rng):
    image = _picture(_mix((84, 160, 238), (176, 216, 250), _Y / SIZE))
    clouds = Image.new("L", image.size)
    draw = ImageDraw.Draw(clouds)
    for _ in range(rng.integers(2, 5)):
        x, y = rng.uniform(0, SIZE), rng.uniform(6, SIZE - 6)
        for dx, r in ((-13, 8), (0, 11), (13, 8)):
            draw.ellipse([x + dx - r, y - 0.8 * r, x + dx + r, y + 0.8 * r], fill=255)
    image.paste((250, 252, 255), mask=clouds.filter(ImageFilter.GaussianBlur(2)))
    return image


def _snow(rng):
    return _dots(
        _picture(np.full((SIZE, SIZE, 3), (236, 242, 250), np.float32)), rng, 20, (4, 8), (196, 214, 238), 2.0
    )


def _brickwork(rng):
    oy, ox = rng.integers(0, 16), rng.integers(0, 32)
    row = (_Y + oy) // 16
    mortar = (((_X + ox + 16 * (row % 2)) % 32) < 3) | (((_Y + oy) % 16) < 3)
    return _picture(_mix((174, 82, 62), (206, 168, 150), mortar.astype(np.float32))).filter(
        ImageFilter.GaussianBlur(0.6)
    )


def _night(rng):
    image = _picture(_mix((14, 16, 54), (46, 40, 98), _Y / SIZE))
    return _dots(image, rng, 16, (2.0, 3.2), (240, 236, 190), 0.8)


def _water(rng):
    phase = rng.uniform(0, 6.28, 2)
    ripples = np.sin(_X / 7 + phase[0] + 1.2 * np.sin(_Y / 9 + phase[1])) * np.cos(_Y / 5)
    return _picture(_mix((26, 104, 158), (84, 178, 210), 1 / (1 + np.exp(-4 * ripples))))


def _wood(rng):
    x = (_X + rng.integers(0, 32)) % 32
    grain = np.sin(x / 2.6 + rng.uniform(0, 6.28) + 0.8 * np.sin(_Y / 20 + rng.uniform(0, 6.28)))
    pixels = _mix((158, 108, 62), (182, 128, 78), 0.5 + 0.5 * grain)
    pixels[x < 2.5] = (108, 70, 40)
    return _picture(pixels).filter(ImageFilter.GaussianBlur(0.6))


_BACKGROUND = {
    "grass": _grass,
    "sand": _sand,
    "sky": _sky,
    "snow": _snow,
    "brickwork": _brickwork,
    "night": _night,
    "water": _water,
    "wood": _wood,
}
