"""Several edits or photographs in one run."""

from __future__ import annotations

from .begun import Begun
from .files import CAT, COFFEE
from .notes import CAT_BY, COFFEE_BY, FILES, PHOTO, PROMPTS
from .sheet import Sheet


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


TEMPLATES = {
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
}
