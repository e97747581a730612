"""Change one thing: on the checkpoints that everybody has, and on newer families."""

from __future__ import annotations

from collections.abc import Callable

from .begun import FLOW_EDIT, FLOW_ETA, FLOW_REGION, Begun, of_family
from .files import KLEIN, QWEN_IMAGE, Z_IMAGE, Family
from .notes import CAT_BY, FILES, PHOTO, PROMPTS
from .sheet import Output, Sheet


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


TRY = (
    "**If it is not right yet.** Nothing changes: raise `cfg` towards 7.5, then `start` towards 1. The old "
    "shape shines through: raise `start`. The new thing is cut off: raise `grow`. Too much is free: raise "
    "`threshold`. Another try: change `seed`."
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
}
