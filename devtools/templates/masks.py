"""A region that is not read from the words."""

from __future__ import annotations

from .begun import TARGET, Begun
from .files import SAM, TABLE
from .notes import CAT_BY, COFFEE_BY, FILES, PHOTO, PROMPTS
from .sheet import Sheet


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
}
