"""What the notes of several templates say."""

PHOTO = "1. **Load** a photograph of your own, 512 pixels or more on each side."
PROMPTS = (
    "2. **Eta Prompt Pair**: the source prompt says what the photograph shows. The target prompt is the same "
    "sentence with one thing changed."
)
FILES = """
**Files.** Checkpoint: Stable Diffusion 1.5; the page offers the download. SDXL works as well. """
CAT_BY = "Photograph: Chelsea, by Stéfan van der Walt, CC0."
COFFEE_BY = "Photograph: Coffee, by Rachel Michetti, courtesy of Pikolo Espresso Bar, CC0."
