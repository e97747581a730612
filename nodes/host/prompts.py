"""Prompts: the text above a node in the graph, its encoding and its tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from comfy_execution.graph_utils import is_link
from torch import Tensor

import nodes

from ...eta_core.methods.alignment import WORD_END, Token
from .families.text import CLIPS, as_words, encoder_of_rows, shift_of, span_of, tokenizer_of

NO_TEXT = -1  # the id of what a template has in the place of a token, such as Ming-Image's queries
PAIR = "EtaPromptPair"  # its outputs source and target come from its texts in this order


def typed_text(dynprompt, node_id: str | None, name: str) -> str | None:
    """The text that input `name` of a node is encoded from; None where it is computed, or not one text.

    Only this may be kept in files or sent to the page. Other strings above the node may be secrets.
    """
    if dynprompt is None or node_id is None:
        return None
    texts = set(_typed(dynprompt, dynprompt.get_node(node_id)["inputs"].get(name)))
    return texts.pop() if len(texts) == 1 else None


def _typed(dynprompt, link) -> Iterator[str | None]:
    """The texts that a conditioning is made of, None for each that is not known."""
    if not is_link(link):
        return
    node, slot = dynprompt.get_node(link[0]), link[1]
    inputs, types = node["inputs"], _input_types(node["class_type"])
    if "CLIP" in types.values():
        names = [name for name, kind in types.items() if kind == "STRING" and name in inputs]
        if node["class_type"] == PAIR:
            names = names[slot : slot + 1]
        for name in names:
            yield _string(dynprompt, inputs[name])
        return
    names = [name for name, kind in types.items() if kind == "CONDITIONING" and name in inputs]
    outputs = getattr(_class_of(node["class_type"]), "RETURN_NAMES", None) or ()
    same = outputs[slot] if slot < len(outputs) else ""
    for name in [same] if same in names else names:  # positive of ControlNetApplyAdvanced, not its negative
        yield from _typed(dynprompt, inputs[name])


def _string(dynprompt, value) -> str | None:
    """A text as it is typed, here or in a node that does nothing but hold it."""
    if not is_link(value):
        return value if isinstance(value, str) else None
    held = list(dynprompt.get_node(value[0])["inputs"].values())
    return held[0] if len(held) == 1 and isinstance(held[0], str) else None


def _input_types(class_type: str) -> dict[str, object]:
    inputs = _class_of(class_type).INPUT_TYPES()
    return {
        name: spec[0]
        for kind in ("required", "optional")
        for name, spec in inputs.get(kind, {}).items()
        if isinstance(spec, (tuple, list))
    }


def _class_of(class_type: str):
    return nodes.NODE_CLASS_MAPPINGS[class_type]  # pyright: ignore[reportAttributeAccessIssue]: not ours


def upstream_texts(dynprompt, node_id: str | None, name: str) -> tuple[str, ...]:
    """Every text above input `name` of a node, nearest first: what may have been encoded into it.

    Never keep or send these: among them are other nodes' texts.
    """
    if dynprompt is None or node_id is None:
        return ()
    texts, queue, seen = [], [dynprompt.get_node(node_id)["inputs"].get(name)], set()
    while queue:
        link = queue.pop(0)
        if not is_link(link) or link[0] in seen:
            continue
        seen.add(link[0])
        values = list(dynprompt.get_node(link[0])["inputs"].values())
        texts += [v for v in values if isinstance(v, str)]
        queue += values
    return tuple(dict.fromkeys(texts))


def encode(clip, text: str) -> list:
    """The text's CONDITIONING, as CLIPTextEncode makes it."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def encodes_to(clip, text: str, encoded: Tensor) -> bool:
    """Whether this CLIP makes the tensor `encoded` of the text, up to rounding."""
    own = encode(clip, text)[0][0]
    return own.shape == encoded.shape and bool(
        (own.cpu() - encoded.cpu()).norm() <= 0.01 * encoded.norm().cpu()
    )


def tokens_of(clip, text: str, rows: int = 0) -> tuple[Token, ...]:
    """The text's own tokens, without start, end, padding and template.

    Their positions are rows of its conditioning, which has `rows` rows; without it, places among the tokens.
    """
    encoder = encoder_of_rows(clip, clip.tokenize(""))
    tokenizer, ids = tokenizer_of(clip, encoder), _ids(clip, text)
    if encoder in CLIPS:
        special = set(_ids(clip, ""))
        return tuple(
            Token(i, each, _piece(tokenizer, each)) for i, each in enumerate(ids) if each not in special
        )
    start, end = span_of(ids, _ids(clip, ""), tokenizer.pad_token)
    shift = shift_of(clip, rows, len(ids)) if rows else 0
    found = [Token(i - shift, ids[i], _piece(tokenizer, ids[i])) for i in range(start, end)]
    return as_words(found, [_piece(tokenizer, each) for each in _ids(clip, "a a")])


def _ids(clip, text: str) -> list[int]:
    """Every row's id; a row of a textual inversion has a negative one, told by its values."""
    rows = (pair[0] for chunk in _rows(clip, text) for pair in chunk)
    return [row if isinstance(row, int) else _id_of(row) for row in rows]


def _piece(tokenizer, token: int) -> str:
    if token < 0:
        return WORD_END
    ((_, piece),) = tokenizer.untokenize([(token, 1.0)])
    return piece


def _id_of(embedding: Tensor | dict) -> int:
    """A negative id that tells one row of a textual inversion from others."""
    if isinstance(embedding, dict):
        return NO_TEXT
    values = embedding.detach().float().cpu().contiguous().numpy().tobytes()
    return -1 - int.from_bytes(hashlib.sha256(values).digest()[:6], "big")


def chunk_length(clip) -> int:
    """Rows of a conditioning that this CLIP encodes at once; 0 where it encodes the whole prompt at once."""
    encoders = clip.tokenize("")
    encoder = encoder_of_rows(clip, encoders)
    return len(encoders[encoder][0]) if encoder in CLIPS else 0


def _rows(clip, text: str) -> list:
    encoders = clip.tokenize(text)
    return encoders[encoder_of_rows(clip, encoders)]
