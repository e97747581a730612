"""Cut the object pictures out of the Noto Color Emoji font: python -m devtools.demo.make_glyphs FONT.ttf

Only needed to change the set of objects; the pictures themselves are kept in glyphs/ (see
glyphs/LICENSE.txt).
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

GLYPHS = {
    "cat": "🐱",
    "dog": "🐶",
    "fox": "🦊",
    "panda": "🐼",
    "bear": "🐻",
    "frog": "🐸",
    "piglet": "🐷",
    "penguin": "🐧",
    "apple": "🍎",
    "orange": "🍊",
    "strawberry": "🍓",
    "sunflower": "🌻",
    "red heart": "❤",
    "yellow heart": "💛",
    "green heart": "💚",
    "blue heart": "💙",
    "purple heart": "💜",
    "red ball": "🔴",
    "yellow ball": "🟡",
    "green ball": "🟢",
    "blue ball": "🔵",
    "purple ball": "🟣",
}
BITMAP_SIZE = 109  # the one size of the font's bitmaps
KEPT_SIZE = 96


def cut(font: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((10, 10), character, font=font, embedded_color=True)
    glyph = canvas.crop(canvas.getbbox())
    glyph.thumbnail((KEPT_SIZE, KEPT_SIZE), Image.LANCZOS)
    return glyph


if __name__ == "__main__":
    font = ImageFont.truetype(sys.argv[1], BITMAP_SIZE)
    folder = Path(__file__).parent / "glyphs"
    folder.mkdir(exist_ok=True)
    for name, character in GLYPHS.items():
        cut(font, character).save(folder / f"{name.replace(' ', '_')}.png", optimize=True)
