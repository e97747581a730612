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
                io.Int.Input(
                    "grow",
                    default=0,
                    min=-256,
                    max=256,
                    tooltip="Pixels to grow the region by; negative shrinks, 0 = neutral (paper).",
                ),
                io.Float.Input(
                    "blur",
                    default=0.0,
                    min=0.0,
                    max=128.0,
                    step=0.5,
                    tooltip="Softness of the edge in pixels; 0 = neutral (paper).",
                ),
                io.Boolean.Input("invert", default=False, tooltip="Everything but the words. Off = neutral."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Your own mask, put together with the words' region as `combine` says.",
                ),
                io.Combo.Input(
                    "combine",
                    options=list(masks.COMBINE),
                    default="intersect",
                    optional=True,
                    tooltip=(
                        "intersect: only inside both. union: either. subtract: words without your mask. "
                        "multiply: soft intersection. "
                        "replace: your mask alone. Read only when a mask is connected."
                    ),
                ),
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
    ) -> io.NodeOutput:
        trajectory = inversion.trajectory
        phrases = parse_phrases(words)
        if trajectory.maps is None:
            raise ValueError(
                f"this inversion has no attention maps: {trajectory.no_maps}; connect a mask of your own to "
                "EtaSampler instead"
            )
        if image is not None and len(image) not in (1, trajectory.batch):
            raise ValueError(
                f"image has {len(image)} pictures, the inversion {trajectory.batch}: give one, or one for "
                "each"
            )
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
        soft = masks.join_phrases(
            [maps[phrase.text] for phrase in phrases], [phrase.weight for phrase in phrases]
        )
        region = masks.threshold(soft, threshold)
        if not bool((region > 0).flatten(1).any(1).all()):
            raise ValueError(
                f"no pixel of '{words}' is above threshold {threshold:g}: its attention reaches "
                f"{float(soft.flatten(1).amax(1).min()):.2f}; "
                "use a lower threshold"
            )
        size = trajectory.picture_size
        if image is not None and host.is_encoded_part(size, (image.shape[1], image.shape[2])):
            image = host.middle(image, size)
        region = masks.enlarge(region, size, hard=threshold > 0)
        shaped = (masks.blur(masks.dilate(region[i : i + 1], grow), blur) for i in host.counted(len(region)))
        region = torch.cat(list(shaped))
        region = 1 - region if invert else region
        if mask is not None:
            mask = host.fit_mask(mask, trajectory.batch, size, node_id)
            region = masks.combine(region, mask, combine)
        if not bool(region.flatten(1).any(1).all()):
            host.warn("the mask is empty after grow, invert and combine: nothing will be edited", node_id)
        fields = {
            "words": words,
            "threshold": threshold,
            "grow": grow,
            "blur": blur,
            "invert": invert,
            "combine": combine,
        }
        view = _view(maps, prompt, size, image, mask) | {"fields": fields}
        return io.NodeOutput(
            region, heatmap(masks.enlarge(soft, size), region, image), ui={"eta_attention": [view]}
        )


def _view(maps: dict[str, Tensor], prompt: Prompt, size: tuple[int, int], image, mask) -> dict:
    """What the node's preview draws from, for the first picture. `phrases` follow the sheet's order."""
    stacked = torch.stack([each[0] for each in maps.values()])
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
