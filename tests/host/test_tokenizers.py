"""Words of prompts, by every kind of vocabulary that the host has."""

from types import SimpleNamespace

import pytest

from eta_core.methods.alignment import Prompt
from tests.host.test_sampling import pack

PROMPT = "a red cat, 16 dogs and the user ball"
WORDS = ["a", "red", "cat", ",", "16", "dogs", "and", "the", "user", "ball"]
KINDS = {
    "PixArt and Chroma": ("pixart_t5", "PixArtTokenizer"),
    "AuraFlow": ("aura_t5", "AuraT5Tokenizer"),
    "Z-Image": ("z_image", "ZImageTokenizer"),
    "Qwen-Image": ("qwen_image", "QwenImageTokenizer"),
}


@pytest.fixture(scope="module", params=KINDS)
def clip(host, request):
    """A CLIP of that family as far as its words go: the host's own tokenizer, without the weights."""
    import importlib

    module, name = KINDS[request.param]
    tokenizer = getattr(importlib.import_module(f"comfy.text_encoders.{module}"), name)()
    return SimpleNamespace(
        tokenizer=tokenizer, tokenize=tokenizer.tokenize_with_weights, cond_stage_model=SimpleNamespace()
    )


def test_a_prompt_falls_into_its_words(host, clip):
    tokens = pack(host, "host.prompts").tokens_of(clip, PROMPT)
    prompt = Prompt(tokens, 512, 512)
    assert [word for word in prompt.texts if word] == WORDS
    assert len(prompt.spans(pack(host, "host.prompts").tokens_of(clip, "red cat"))) == 1
    assert prompt.spans(pack(host, "host.prompts").tokens_of(clip, "ca")) == []


def test_characters_of_several_bytes_stay_whole(host, clip):
    prompt = Prompt(pack(host, "host.prompts").tokens_of(clip, "un café près du lac"), 512, 512)
    assert prompt.texts == ["un", "café", "près", "du", "lac"]
