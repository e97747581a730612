"""EtaTargetWords: the place where the target's own words look is free, too."""

from __future__ import annotations

from comfy_api.latest import io

from ..eta_core.methods.alignment import parse_phrases
from . import host, prompt_text
from .method_nodes import EARLIER, METHODS, OUTPUT
from .prompt_text import missing, places
from .shaping import blur_input, grow_input
from .target_words import TargetWords
from .types import EditPlan, EditSocket, EtaNode, schema


class EtaTargetWords(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaTargetWords",
            display_name="Eta Target Words",
            category=METHODS,
            search=(
                "target mask",
                "dynamic mask",
                "grow mask while sampling",
            ),
            description=(
                "Room for the new thing: where the target's own words look, in the first steps of the "
                "sampling, joins EtaSampler's mask. The mask only gains."
            ),
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP that encoded the target prompt."),
                io.Conditioning.Input(
                    "positive", tooltip="The target prompt, the same as EtaSampler's positive."
                ),
                io.String.Input(
                    "words",
                    default="",
                    tooltip=(
                        "Words or phrases of the target prompt, with commas between; a weight after a colon, "
                        "for example: dog, red ball:0.5. 1 = neutral."
                    ),
                ),
                io.Float.Input(
                    "read",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip=(
                        "Share of the steps in which the words are read, the first ones; what is found holds "
                        "at once and to the end. 0 = none (neutral), 1 = all. Try 0.2 to 0.6."
                    ),
                ),
                io.Boolean.Input(
                    "auto_threshold",
                    default=False,
                    tooltip=(
                        "On: each picture gets the threshold that parts its attention best in two (Otsu). "
                        "Off: `threshold`."
                    ),
                ),
                io.Float.Input(
                    "threshold",
                    default=0.6,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip=(
                        "Attention above it joins the mask; 1 joins nothing (neutral), 0 the attention "
                        "itself, softly. Read only where auto_threshold is off."
                    ),
                ),
                grow_input(),
                blur_input(),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip=(
                        "A picture whose edges the region's edge is to follow, of the size of the inverted "
                        "one. Without it the edge is as coarse as the latent."
                    ),
                ),
                EditSocket.Input("edit", optional=True, tooltip=EARLIER),
                io.String.Input(
                    "target_prompt",
                    optional=True,
                    force_input=True,
                    tooltip="The target prompt's text, only needed where it cannot be read from the graph.",
                ),
            ],
            outputs=[EditSocket.Output(display_name="method", tooltip=OUTPUT)],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def execute(
        cls,
        clip,
        positive,
        words,
        read,
        auto_threshold,
        threshold,
        grow,
        blur,
        image=None,
        edit=None,
        target_prompt=None,
    ) -> io.NodeOutput:
        if len(positive) != 1:
            raise ValueError(
                f"the target prompt has {len(positive)} entries (Conditioning Combine or areas): Eta Target "
                "Words needs one prompt"
            )
        phrases = parse_phrases(words)
        node_id = cls.hidden.unique_id
        prompt = prompt_text.target_prompt(positive, clip, target_prompt, cls.hidden.dynprompt, node_id)
        found = [places(prompt, clip, phrase.text) for phrase in phrases]
        unknown = [phrase.text for phrase, rows in zip(phrases, found) if not rows]
        if unknown:
            raise missing("words", unknown, "target prompt", prompt)
        level = None if auto_threshold else threshold
        weights = tuple(phrase.weight for phrase in phrases)
        own = TargetWords(
            tuple(found), weights, read, level, grow, blur, image, host.text_fingerprint(positive)
        )
        return io.NodeOutput((edit or EditPlan()).with_words(own))


NODES = [EtaTargetWords]
