"""AttentionMask: the region that words look at."""

from __future__ import annotations

from string import punctuation

import torch
from comfy_api.latest import io
from torch import Tensor

from ..eta_core import masks
from ..eta_core.methods.alignment import Prompt, parse_phrases
from . import host, preview, prompt_text
from .overlay import heatmap
from .prompt_text import missing, places
from .shaping import blur_input, grow_input, mask_inputs, picture_for, refined, shaped, with_own
from .types import CATEGORY, EtaNode, Inversion, InversionSocket, schema


class AttentionMask(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="AttentionMask",
            display_name="Attention Mask",
            category=CATEGORY,
            search=(
                "cross-attention mask",
                "word mask",
                "heatmap",
                "token mask",
                "segment by words",
            ),
            description="Where words of the source prompt look in the picture, as a mask for EtaSampler.",
            inputs=[
                InversionSocket.Input(
                    "inversion", tooltip="The inversion whose source prompt's attention is read."
                ),
                io.Clip.Input("clip", tooltip="The CLIP that encoded the source prompt."),
                io.String.Input(
                    "words",
                    default="",
                    tooltip=(
                        "Words or phrases of the source prompt, with commas between; a weight after a colon, "
                        "for example: cat, red ball:0.5. 1 = neutral."
                    ),
                ),
                io.Float.Input(
                    "threshold",
                    default=0.2,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip=(
                        "Attention above it belongs to the region. 0 = soft mask, the attention itself. "
                        "Paper: 0.2; higher = smaller region."
                    ),
                ),
                grow_input(),
                blur_input(),
                io.Boolean.Input("invert", default=False, tooltip="Everything but the words. Off = neutral."),
                *mask_inputs("words", "words'"),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The picture to draw the heatmap on; without it, a grey ground.",
                ),
                io.String.Input(
                    "source_prompt",
                    optional=True,
                    force_input=True,
                    tooltip=(
                        "The source prompt's text, only needed where it cannot be read from the graph (text "
                        "computed by other nodes)."
                    ),
                ),
                io.Boolean.Input(
                    "refine",
                    default=False,
                    optional=True,
                    tooltip=(
                        "On: the region's edge follows the edges of `image`, which must be connected. Off: "
                        "neutral."
                    ),
                ),
                io.Boolean.Input(
                    "auto_threshold",
                    default=False,
                    optional=True,
                    tooltip=(
                        "On: each picture gets the threshold that parts its attention best in two (Otsu); "
                        "`threshold` is not read. Off: neutral."
                    ),
                ),
            ],
            outputs=[
                io.Mask.Output(
                    display_name="mask",
                    tooltip="Full picture size; 1 = the region, soft where threshold is 0 or blur is used.",
                ),
                io.Image.Output(
                    display_name="heatmap",
                    tooltip="The attention drawn over the picture, the mask's edge in white.",
                ),
            ],
            # Its preview is wanted while no sampler is connected yet, and again when it is cached.
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        inversion: Inversion,
        clip,
        words,
        threshold,
        grow,
        blur,
        invert,
        mask=None,
        combine="intersect",
        image=None,
        source_prompt=None,
        refine=False,
        auto_threshold=False,
    ) -> io.NodeOutput:
        trajectory = inversion.trajectory
        phrases = parse_phrases(words)
        if trajectory.maps is None:
            raise ValueError(
                f"this inversion has no attention maps: {trajectory.no_maps}; connect a mask of your own to "
                "EtaSampler instead"
            )
        size = trajectory.picture_size
        image = picture_for(image, trajectory.batch, size)
        node_id = cls.hidden.unique_id
        prompt = prompt_text.source_prompt(inversion, clip, source_prompt, node_id)
        rows = {
            text: places(prompt, clip, text)
            for text in (*(phrase.text for phrase in phrases), *prompt.vocabulary)
        }
        unknown = [phrase.text for phrase in phrases if not rows[phrase.text]]
        if unknown:
            raise missing("words", unknown, "source prompt", prompt)
        latent_size = trajectory.latent_size
        maps = {
            text: masks.phrase_map(trajectory.maps, found, latent_size)
            for text, found in rows.items()
            if found
        }
        if refine:
            together = refined(torch.stack(list(maps.values()), 1), image, size)
            maps = dict(zip(maps, together.unbind(1)))
        soft = masks.join_phrases(
            [maps[phrase.text] for phrase in phrases], [phrase.weight for phrase in phrases]
        )
        _warn_of_flat(words, soft, node_id)
        level = None if auto_threshold else threshold
        region = masks.threshold(soft, level)
        if not bool((region > 0).flatten(1).any(1).all()):
            raise ValueError(_nothing_found(words, float(soft.flatten(1).amax(1).min()), level))
        region = shaped(region, size, level != 0, grow, blur, invert)
        if mask is not None:
            mask = host.fit_mask(mask, trajectory.batch, size, node_id)
        region = with_own(region, mask, combine, node_id)
        fields = {
            "words": words,
            "threshold": threshold,
            "grow": grow,
            "blur": blur,
            "invert": invert,
            "combine": combine,
            "auto_threshold": auto_threshold,
        }
        view = _view(maps, prompt, size, image, mask) | {"fields": fields}
        return io.NodeOutput(
            region, heatmap(masks.enlarge(soft, size), region, image), ui={"eta_attention": [view]}
        )


LARGEST = 320  # pixels of the longer side that the page draws
FLAT = 0.3  # the contrast below which a word's thing was not in the picture, on scenes of the toy model


def _nothing_found(words: str, reached: float, level: float | None) -> str:
    if level is None:
        return (
            f"no pixel of '{words}' stands out: its attention is {reached:.2f} everywhere, so that no "
            "auto_threshold parts it; give the words weights above 0, name other words, or draw a mask"
        )
    return (
        f"no pixel of '{words}' is above threshold {level:g}: its attention reaches {reached:.2f}; use a "
        "lower threshold"
    )


def _warn_of_flat(words: str, soft: Tensor, node_id: str | None) -> None:
    """Where the attention stands out nowhere, in one picture or more."""
    least = min(masks.contrast(one) for one in soft)
    if least < FLAT:
        host.warn(
            f"the attention of '{words}' is nearly flat (contrast {least:.2f}; a thing that is seen has "
            f"{FLAT:g} and more): it may not be in the picture. Look at the heatmap, name the thing in other "
            "words, or draw a mask",
            node_id,
        )


def _view(maps: dict[str, Tensor], prompt: Prompt, size: tuple[int, int], image, mask) -> dict:
    """What the node's preview draws from, for the first picture. `phrases` follow the sheet's order."""
    stacked = torch.stack([each[0] for each in maps.values()])
    largest = max(stacked.shape[1:])
    if largest > LARGEST:
        height, width = (max(1, side * LARGEST // largest) for side in stacked.shape[1:])
        stacked = masks.resize_mask(stacked, (height, width))
    return {
        "words": [word for word in prompt.vocabulary if not set(word) <= set(punctuation)],
        "texts": [prompt.text],
        "phrases": list(maps),
        "map_size": list(stacked.shape[1:]),
        "picture_size": list(size),
        "picture": preview.show(image[:1])[0] if image is not None else None,
        "mask": preview.show(mask[:1, ..., None])[0] if mask is not None else None,
        **preview.show_sheet(stacked),
    }


NODES = [AttentionMask]
