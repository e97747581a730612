"""EtaPromptPair: both prompts of an edit in one place."""

from __future__ import annotations

from collections.abc import Iterator

from comfy_api.latest import io, ui

from ..eta_core.methods.alignment import Alignment, Prompt, align_refined, changed_words
from . import host
from .types import CATEGORY, EtaNode, schema


class EtaPromptPair(EtaNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="EtaPromptPair",
            display_name="Eta Prompt Pair",
            category=CATEGORY,
            search=(
                "two prompts",
                "prompt diff",
                "source and target prompt",
            ),
            description="Both prompts of an edit: encoded, compared, and the words that changed handed on.",
            inputs=[
                io.Clip.Input("clip", tooltip="The model's CLIP."),
                io.String.Input(
                    "source_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="The picture as it is: a cat on the grass.",
                ),
                io.String.Input(
                    "target_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="The picture as it shall be: a dog on the grass.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="source", tooltip="For EtaInversion's positive."),
                io.Conditioning.Output(display_name="target", tooltip="For EtaSampler's positive."),
                io.String.Output(
                    display_name="source_words", tooltip="Words that only the source has, for AttentionMask."
                ),
                io.String.Output(display_name="target_words", tooltip="Words that only the target has."),
                io.String.Output(
                    display_name="source_text", tooltip="For the input source_prompt of other nodes."
                ),
                io.String.Output(
                    display_name="target_text", tooltip="For the input target_prompt of other nodes."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, clip, source_prompt: str, target_prompt: str) -> io.NodeOutput:
        encoded = [host.encode(clip, text) for text in (source_prompt, target_prompt)]
        source, target = (
            Prompt(host.tokens_of(clip, text), conditioning[0][0].shape[1], host.chunk_length(clip))
            for text, conditioning in zip((source_prompt, target_prompt), encoded)
        )
        aligned = align_refined(source, target)
        gone, new = changed_words(source, aligned.removed), changed_words(target, aligned.added)
        changes = f"gone: {', '.join(gone) or 'nothing'}\nnew: {', '.join(new) or 'nothing'}"
        for problem in _problems(source, target, gone, new, aligned, source_prompt == target_prompt):
            host.warn(problem, cls.hidden.unique_id)
        return io.NodeOutput(
            *encoded,
            ", ".join(gone),
            ", ".join(new),
            source_prompt,
            target_prompt,
            ui=ui.PreviewText(changes),
        )


def _problems(
    source: Prompt, target: Prompt, gone: tuple, new: tuple, aligned: Alignment, same: bool
) -> Iterator[str]:
    """What a person should know before the words are used."""
    if same:
        yield "the two prompts are the same: nothing asks for an edit"
    elif not gone and not new:
        yield "no word differs between the two prompts, only weights, punctuation or embeddings"
    for which, prompt, rows, phrases in (
        ("source", source, aligned.removed, gone),
        ("target", target, aligned.added, new),
    ):
        changed = set(rows)
        for phrase in dict.fromkeys(phrases):
            if not set(prompt.rows_of(phrase)) <= changed:
                yield (
                    f"'{phrase}' also stands unchanged in the {which} prompt: nodes that are given the word "
                    "take both places; "
                    "add an adjective that tells them apart"
                )


NODES = [EtaPromptPair]
