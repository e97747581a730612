"""Beside what other nodes of the host add to a model."""

from __future__ import annotations

from .begun import Begun
from .files import CONTROL, LORA, MODELS
from .notes import CAT_BY, FILES, PHOTO, PROMPTS
from .sheet import Sheet


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


TEMPLATES = {
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
