"""The whole photograph, of any size, exact outside the region."""

from __future__ import annotations

from .begun import EDIT, ETA, SOURCE, STEPS, checkpoint
from .files import COFFEE, RETOLD, TABLE
from .notes import COFFEE_BY, FILES
from .sheet import Sheet


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


TEMPLATES = {
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
}
