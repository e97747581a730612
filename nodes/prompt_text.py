"""Prompts as text: found in the graph, checked by encoding, their words placed on a conditioning's rows."""

from __future__ import annotations

from collections.abc import Sequence

from ..eta_core.methods.alignment import Prompt
from . import host
from .types import Inversion


def source_prompt(inversion: Inversion, clip, given: str | None, node_id: str | None) -> Prompt:
    """The source prompt: the text given, or the one above EtaInversion that this CLIP encodes to the same."""
    where = "the source prompt's text was not found in the graph above EtaInversion", "source_prompt"
    texts = list(dict.fromkeys([*inversion.trajectory.prompts, *inversion.texts]))
    return _prompt(inversion.positive, clip, given, texts, where, node_id)


def target_prompt(positive: list, clip, given: str | None, dynprompt, node_id: str | None) -> Prompt:
    """The target prompt: the text given, or the one above `positive` that this CLIP encodes to the same."""
    where = "the target prompt's text was not found in the graph above `positive`", "target_prompt"
    texts = host.upstream_texts(dynprompt, node_id, "positive")
    return _prompt(positive, clip, given, texts, where, node_id)


def _prompt(
    positive: list, clip, given: str | None, texts: Sequence[str], where: tuple[str, str], node_id
) -> Prompt:
    problem, field = where
    encoded, rows = positive[0][0], host.rows_of_text(positive)
    if given:
        tokens = host.tokens_of(clip, given, rows)
        if tokens and not 0 <= tokens[0].position <= tokens[-1].position < rows:
            raise ValueError(
                f"{field} '{given}' has more tokens than the prompt that was encoded: connect the very text"
            )
        if not host.encodes_to(clip, given, encoded):
            host.warn(
                f"'{given}' is not what was encoded: the region of a word may be another word's", node_id
            )
        return Prompt(tokens, rows, host.chunk_length(clip), given)
    for text in texts:
        if host.encodes_to(clip, text, encoded):
            return Prompt(host.tokens_of(clip, text, rows), rows, host.chunk_length(clip), text)
    raise ValueError(
        f"{problem}, or this is not the CLIP that encoded it: connect the same CLIP, or connect the text to "
        f"{field}"
    )


def places(prompt: Prompt, clip, phrase: str) -> list[tuple[int, ...]]:
    """The rows of every occurrence of a word or phrase; empty where there is none."""
    for text in (phrase, phrase.strip(" .!?;")):
        found = prompt.spans(host.tokens_of(clip, text))
        if found:
            return found
    return []


def missing(field: str, phrases: Sequence[str], which: str, *prompts: Prompt) -> ValueError:
    """The error for words that stand in none of the prompts."""
    words = list(dict.fromkeys(word for prompt in prompts for word in prompt.vocabulary))
    return ValueError(f"{field}: {list(phrases)} not in the {which}; its words are: {', '.join(words)}")
