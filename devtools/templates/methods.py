"""Editing methods, and two edits at once."""

from __future__ import annotations

from .begun import TARGET, Begun
from .notes import CAT_BY, FILES, PHOTO, PROMPTS
from .sheet import Sheet


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


TEMPLATES = {
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
}
