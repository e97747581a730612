"""Editing methods for EtaSampler's `edit`: each node adds one to the chain."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..eta_core.masks import OVERLAP
from ..eta_core.methods import GIVERS, LocalBlend, MasaCtrl, PlugAndPlay, PromptToPrompt, Span, alignment
from ..eta_core.methods.alignment import Alignment, Prompt, parse_factors, parse_spans
from . import host, prompt_text
from .inputs import guidance_input
from .prompt_text import missing, places
from .types import CATEGORY, EditPlan, EditSocket, EtaNode, Inversion, InversionSocket, RegionEdit, schema

METHODS = f"{CATEGORY}/methods"
EARLIER = "Methods or edits to use together with this one."
OUTPUT = "For EtaSampler's edit, or the next method's."


def _fraction(name: str, default: float, tooltip: str, **more) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.005, tooltip=tooltip, **more)


class EtaPromptToPrompt(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaPromptToPrompt",
            display_name="Eta Prompt-to-Prompt",
            category=METHODS,
            search=(
                "p2p",
                "prompt2prompt",
                "attention control",
                "word swap",
            ),
            description=(
                "The source prompt's attention maps steer the target's: the new thing keeps the old one's "
                "place and pose. On transformers such as Flux and Qwen-Image: the words' columns in the "
                "image tokens' attention."
            ),
            inputs=[
                InversionSocket.Input("inversion", tooltip="The inversion EtaSampler edits."),
                io.Clip.Input("clip", tooltip="The CLIP that encoded both prompts."),
                io.Conditioning.Input(
                    "positive", tooltip="The target prompt, the same as EtaSampler's positive."
                ),
                io.Combo.Input(
                    "mode",
                    options=list(ALIGN),
                    tooltip=(
                        "replace: each word takes the map of the word in its place (cat to dog). refine: "
                        "equal words keep their maps, new "
                        "ones have their own. reweight: the same prompt, other weights. auto: replace where "
                        "only words were swapped, else refine."
                    ),
                ),
                _fraction(
                    "cross_replace_start",
                    0.0,
                    "First step of the cross-attention's steering, 0 = the first. Paper: 0.",
                ),
                _fraction(
                    "cross_replace_end",
                    0.4,
                    "Cross-attention is steered up to this fraction of the steps; 0 = never (neutral). "
                    "Paper: 0.4 to 0.8.",
                ),
                _fraction(
                    "self_replace_start", 0.0, "First step of the self-attention's replacement. Paper: 0."
                ),
                _fraction(
                    "self_replace_end",
                    0.6,
                    "Self-attention is the source's up to this fraction of the steps; 0 = never (neutral). "
                    "Paper: 0.4 to 0.6. On transformers: the image tokens' queries and keys.",
                ),
                io.String.Input(
                    "word_steps",
                    default="",
                    tooltip="Target words with steps of their own: dog:0-0.2, sitting:0.8. Empty = neutral.",
                ),
                io.Float.Input(
                    "equalizer",
                    default=2.0,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    tooltip=(
                        "Attention to the equalizer's words is multiplied by this in the steered steps. 1 = "
                        "neutral, reference: 2."
                    ),
                ),
                io.String.Input(
                    "equalizer_words",
                    default="",
                    tooltip=(
                        "Target words the equalizer acts on, a factor of its own after a colon: dog:3. Empty "
                        "= the new words."
                    ),
                ),
                io.Boolean.Input(
                    "local_blend",
                    default=True,
                    tooltip=(
                        "Hold the picture on the source where neither prompt's words look. Off = neutral, "
                        "reference: on."
                    ),
                ),
                io.String.Input(
                    "blend_words",
                    default="",
                    tooltip="Words of either prompt for the local blend. Empty = the words that changed.",
                ),
                _fraction(
                    "blend_threshold",
                    0.3,
                    "Part of the words' strongest attention that counts as theirs. Paper: 0.3.",
                ),
                _fraction(
                    "blend_start",
                    0.2,
                    "Fraction of the steps after which the local blend begins. Paper: 0.2.",
                ),
                io.Mask.Input(
                    "blend_mask",
                    optional=True,
                    tooltip="Your own mask for the local blend, instead of words.",
                ),
                EditSocket.Input("edit", optional=True, tooltip=EARLIER),
                *(
                    io.String.Input(
                        f"{which}_prompt",
                        optional=True,
                        force_input=True,
                        tooltip=(
                            f"The {which} prompt's text, only needed where it cannot be read from the graph."
                        ),
                    )
                    for which in ("source", "target")
                ),
            ],
            outputs=[EditSocket.Output(display_name="method", tooltip=OUTPUT)],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def execute(
        cls,
        inversion: Inversion,
        clip,
        positive,
        mode,
        cross_replace_start,
        cross_replace_end,
        self_replace_start,
        self_replace_end,
        word_steps,
        equalizer,
        equalizer_words,
        local_blend,
        blend_words,
        blend_threshold,
        blend_start,
        blend_mask=None,
        edit=None,
        source_prompt=None,
        target_prompt=None,
    ) -> io.NodeOutput:
        for which, conditioning in (("source", inversion.positive), ("target", positive)):
            if len(conditioning) != 1:
                raise ValueError(
                    f"the {which} prompt has {len(conditioning)} entries (Conditioning Combine or areas): "
                    "Prompt-to-Prompt needs one prompt each"
                )
        node_id = cls.hidden.unique_id
        source = prompt_text.source_prompt(inversion, clip, source_prompt, node_id)
        target = prompt_text.target_prompt(positive, clip, target_prompt, cls.hidden.dynprompt, node_id)
        aligned = _aligned(source, target, mode)
        scale = _scale(clip, target, aligned, equalizer, equalizer_words)
        if equalizer != 1 and bool((scale == 1).all()):
            host.warn(
                f"the equalizer {equalizer:g} acts on no word: the target has no new words, and "
                "equalizer_words names none",
                node_id,
            )
        cross = Span(cross_replace_start, cross_replace_end).check("cross_replace")
        blend = None
        if local_blend:
            old, new = (), ()
            if blend_mask is None:
                old, new = _blend_rows(clip, source, target, aligned, blend_words, equalizer_words)
            blend = LocalBlend(old, new, blend_threshold, blend_start, blend_mask)
        method = PromptToPrompt(
            shares=_shares(aligned, source),
            scale=scale,
            cross=_word_spans(clip, target, cross, word_steps),
            self_attention=Span(self_replace_start, self_replace_end).check("self_replace"),
            blend=blend,
            source_prompt=inversion.trajectory.fingerprint,
            target_prompt=host.text_fingerprint(positive),
        )
        return io.NodeOutput((edit or EditPlan()).with_method(method))


ALIGN = {
    "auto": alignment.align,
    "replace": alignment.align_replaced,
    "refine": alignment.align_refined,
    "reweight": alignment.align_refined,
}


def _aligned(source: Prompt, target: Prompt, mode: str) -> Alignment:
    aligned = ALIGN[mode](source, target)
    if mode == "reweight" and (aligned.removed or aligned.added):
        changed = [
            *alignment.changed_words(source, aligned.removed),
            *alignment.changed_words(target, aligned.added),
        ]
        raise ValueError(
            f"mode reweight needs the same prompt twice, but {changed} differ: use refine or replace"
        )
    return aligned


def _shares(aligned: Alignment, source: Prompt) -> torch.Tensor:
    """[source rows, target rows], see attention.transfer."""
    shares = torch.zeros(source.rows, len(aligned.shares))
    for column, parts in enumerate(aligned.shares):
        for row, share in parts:
            shares[row, column] += share
    return shares


def _rows(clip, field: str, phrase: str, which: str, *prompts: Prompt) -> list[tuple[int, ...]]:
    """The rows of a phrase in each of `prompts`. Raises ValueError where none has it."""
    found = [tuple(row for place in places(prompt, clip, phrase) for row in place) for prompt in prompts]
    if not any(found):
        raise missing(field, [phrase], which, *prompts)
    return found


def _scale(clip, target: Prompt, aligned: Alignment, equalizer: float, words: str) -> torch.Tensor:
    """[target rows]: the equalizer's factor of each token."""
    scale, phrases = torch.ones(target.rows), parse_factors("equalizer_words", words, equalizer)
    scale[list(aligned.added)] = 1.0 if phrases else equalizer
    for phrase in phrases:
        (rows,) = _rows(clip, "equalizer_words", phrase.text, "target prompt", target)
        scale[list(rows)] = phrase.weight
    return scale


def _word_spans(clip, target: Prompt, default: Span, word_steps: str) -> tuple[Span, ...]:
    spans = [default] * target.rows
    for phrase, start, end in parse_spans("word_steps", word_steps):
        (rows,) = _rows(clip, "word_steps", phrase, "target prompt", target)
        for row in rows:
            spans[row] = Span(start, end).check(f"word_steps of '{phrase}'")
    return tuple(spans)


def _blend_rows(
    clip, source: Prompt, target: Prompt, aligned: Alignment, words: str, equalized: str
) -> tuple:
    """Rows of the local blend's words in both prompts: the named words, else the changed, else the
    equalizer's.
    """
    if not words.strip() and (aligned.removed or aligned.added):
        return aligned.removed, aligned.added
    phrases = parse_factors("blend_words", words if words.strip() else equalized, 1.0)
    found = [_rows(clip, "blend_words", phrase.text, "two prompts", source, target) for phrase in phrases]
    return tuple(tuple(row for rows in side for row in rows) for side in zip(*found)) or ((), ())


class EtaMasaCtrl(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaMasaCtrl",
            display_name="Eta MasaCtrl",
            category=METHODS,
            search=(
                "mutual self-attention",
                "pose change",
                "texture",
            ),
            description=(
                "The target looks its texture up in the source (mutual self-attention): for changes of pose "
                "and shape of the same thing. On transformers such as Flux and Qwen-Image: the image tokens' "
                "keys and values."
            ),
            inputs=[
                _fraction(
                    "start",
                    0.08,
                    "First step, as a fraction of the steps; 1 = never (neutral). Paper: 0.08 (step 4 of "
                    "50).",
                ),
                _fraction(
                    "start_layer",
                    0.625,
                    "First layer, as a fraction of the model's self-attention layers in order, or of a "
                    "transformer's blocks; 0 = all, 1 = none (neutral). Paper: 10 of 16.",
                ),
                _fraction("end", 1.0, "Last step, as a fraction of the steps. Paper: 1.", optional=True),
                io.Mask.Input(
                    "source_mask",
                    optional=True,
                    tooltip=(
                        "Where the thing is in the source: foreground then looks at foreground only. Needs "
                        "target_mask."
                    ),
                ),
                io.Mask.Input(
                    "target_mask", optional=True, tooltip="Where the thing is to be. Needs source_mask."
                ),
                EditSocket.Input("edit", optional=True, tooltip=EARLIER),
                io.Mask.Input(
                    "free_mask",
                    optional=True,
                    tooltip=(
                        "Where the target looks things up in itself; outside it in the source (KV-Edit). "
                        "Without it: in the source everywhere (neutral)."
                    ),
                ),
                _fraction(
                    "source_inside",
                    0.0,
                    "How much of the source is mixed in inside free_mask. 0 = nothing (KV-Edit), ProEdit: "
                    "0.1. Without free_mask it is not read.",
                    optional=True,
                ),
            ],
            outputs=[EditSocket.Output(display_name="method", tooltip=OUTPUT)],
        )

    @classmethod
    def execute(
        cls,
        start,
        start_layer,
        end=1.0,
        source_mask=None,
        target_mask=None,
        edit=None,
        free_mask=None,
        source_inside=0.0,
    ) -> io.NodeOutput:
        if (source_mask is None) != (target_mask is None):
            lacking = "source_mask" if source_mask is None else "target_mask"
            raise ValueError(
                f"{lacking} is not connected: MasaCtrl's foreground needs both masks, or neither"
            )
        for name, mask in (("source_mask", source_mask), ("target_mask", target_mask)):
            _check_not_empty(name, mask)
        regions = None if source_mask is None or target_mask is None else (source_mask, target_mask)
        steps = Span(start, max(start, end)).check("MasaCtrl's steps")
        method = MasaCtrl(steps, start_layer, regions, free_mask, source_inside)
        return io.NodeOutput((edit or EditPlan()).with_method(method))


def _check_not_empty(name: str, mask: torch.Tensor | None) -> None:
    if mask is not None and not bool((mask > 0).any()):
        raise ValueError(
            f"{name} is empty: no pixel is above 0, so there is nothing to edit; lower the threshold it "
            "comes from"
        )


class EtaPlugAndPlay(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaPlugAndPlay",
            display_name="Eta Plug-and-Play",
            category=METHODS,
            search=(
                "pnp",
                "plug and play",
                "feature injection",
                "style change",
            ),
            description=(
                "The target keeps the source's layout by its features and self-attention: for changes of "
                "look and style. On transformers such as Flux and Qwen-Image: the image tokens' values, and "
                "their queries and keys, in the later half of the blocks."
            ),
            inputs=[
                _fraction(
                    "feature_end",
                    0.8,
                    "Features are the source's up to this fraction of the steps; 0 = never (neutral). Paper: "
                    "0.8. On transformers: the image tokens' values.",
                ),
                _fraction(
                    "attention_end",
                    0.5,
                    "Self-attention is the source's up to this fraction; 0 = never (neutral). Paper: 0.5.",
                ),
                EditSocket.Input("edit", optional=True, tooltip=EARLIER),
                io.Conditioning.Input(
                    "source_negative",
                    optional=True,
                    tooltip=(
                        "The empty prompt of the giver 'empty prompt'. Without it: EtaSampler's negative, "
                        "which may then not describe anything."
                    ),
                ),
                io.Combo.Input(
                    "giver",
                    options=list(GIVERS),
                    default=GIVERS[0],
                    optional=True,
                    tooltip=(
                        "own rows: prompt and negative prompt each take from the source's row of their kind. "
                        "empty prompt: both take from the source under the empty prompt, as the paper's "
                        "program does; it saves one row a step."
                    ),
                ),
            ],
            outputs=[EditSocket.Output(display_name="method", tooltip=OUTPUT)],
        )

    @classmethod
    def execute(
        cls, feature_end, attention_end, edit=None, source_negative=None, giver=GIVERS[0]
    ) -> io.NodeOutput:
        method = PlugAndPlay(Span(0.0, feature_end), Span(0.0, attention_end), giver, source_negative)
        return io.NodeOutput((edit or EditPlan()).with_method(method))


class EtaRegionEdit(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaRegionEdit",
            display_name="Eta Region Edit",
            category=METHODS,
            search=(
                "regional prompt",
                "second edit",
                "several edits",
            ),
            description="One more edit in the same run: a target prompt of its own inside a mask of its own.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="The target prompt of this region."),
                io.Mask.Input("mask", tooltip="Where this prompt acts, for example from Attention Mask."),
                io.Float.Input(
                    "eta_scale",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="Multiplies eta in this region. 1 = neutral, 0 = no fresh noise here.",
                ),
                guidance_input("Guidance in this region; 1 = none. Paper: 7.5."),
                io.Combo.Input(
                    "overlap",
                    options=list(OVERLAP),
                    tooltip=(
                        "Where this mask meets those of earlier edits: over them, under them, or both in "
                        "shares."
                    ),
                ),
                EditSocket.Input(
                    "edit", optional=True, tooltip="Edits before this one, and EtaSampler's own methods."
                ),
                EditSocket.Input("method", optional=True, tooltip="Methods for this region's prompt alone."),
            ],
            outputs=[
                EditSocket.Output(
                    display_name="edits", tooltip="For EtaSampler's edit, or the next Eta Region Edit."
                )
            ],
        )

    @classmethod
    def execute(cls, positive, mask, eta_scale, cfg, overlap, edit=None, method=None) -> io.NodeOutput:
        method = method or EditPlan()
        if method.regions:
            raise ValueError(
                "`method` holds further region edits: connect those to `edit`, and methods alone to `method`"
            )
        if method.words is not None:
            raise ValueError(
                "Eta Target Words joins EtaSampler's mask, not a region's: connect it to `edit`, and methods "
                "alone to `method`"
            )
        if any(isinstance(m, PromptToPrompt) and m.blend for m in method.methods):
            raise ValueError(
                "the local blend holds the whole picture, a region has its mask: switch local_blend off in "
                "`method`"
            )
        _check_not_empty("mask", mask)
        region = RegionEdit(positive, mask, eta_scale, cfg, overlap, method.methods)
        return io.NodeOutput((edit or EditPlan()).with_region(region))


NODES = [EtaPromptToPrompt, EtaMasaCtrl, EtaPlugAndPlay, EtaRegionEdit]
