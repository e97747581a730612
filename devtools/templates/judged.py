"""Edits that are measured: by a policy, by a person, by a search."""

from __future__ import annotations

from .begun import REGION, SOURCE, Begun, checkpoint
from .files import CAT
from .notes import CAT_BY, FILES, PHOTO, PROMPTS
from .sheet import Sheet


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


TEMPLATES = {
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
}
