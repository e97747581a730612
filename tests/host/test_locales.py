"""What the page says, in every language: English is what the schemas say, the others have the same keys.

After a text of a schema has changed: ETA_UPDATE_LOCALES=1 python dev.py test tests/host/test_locales.py, then
the other languages by hand.
"""

import json
import os
import re
from pathlib import Path

import pytest

LOCALES = Path(__file__).resolve().parents[2] / "locales"
LANGUAGES = sorted(path.name for path in LOCALES.iterdir())
JAPANESE = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")
SAME_IN_JAPANESE = {"cfg", "CLIP", "VAE", "eta", "Eta MasaCtrl", "Eta Plug-and-Play", "Eta Prompt-to-Prompt"}


def definition_of(node) -> dict:
    """A schema's texts under the keys the page looks them up by."""
    schema = node.GET_SCHEMA()
    inputs = {socket.id: {"name": socket.id, "tooltip": socket.tooltip} for socket in schema.inputs}
    if any(getattr(socket, "control_after_generate", None) for socket in schema.inputs):
        inputs["control_after_generate"] = {"name": "control after generate"}
    outputs = {
        str(i): {"name": socket.display_name, "tooltip": socket.tooltip}
        for i, socket in enumerate(schema.outputs)
    }
    texts = {"display_name": schema.display_name, "description": schema.description, "inputs": inputs}
    return texts | ({"outputs": outputs} if outputs else {})


def flat(texts: dict, *path: str) -> dict[str, str]:
    """{"EtaSampler.inputs.cfg.tooltip": ...}"""
    found = {}
    for key, value in texts.items():
        found |= flat(value, *path, key) if isinstance(value, dict) else {".".join((*path, key)): value}
    return found


def read(language: str, name: str) -> dict:
    return json.loads((LOCALES / language / name).read_text(encoding="utf-8"))


def test_english_is_what_the_schemas_say(ours):
    schemas = {name: definition_of(node) for name, node in ours.items()}
    if os.environ.get("ETA_UPDATE_LOCALES"):
        text = json.dumps(schemas, indent=2, ensure_ascii=False) + "\n"
        (LOCALES / "en" / "nodeDefs.json").write_text(text, encoding="utf-8")
    assert read("en", "nodeDefs.json") == schemas, __doc__.splitlines()[2]


@pytest.mark.parametrize("name", ["nodeDefs.json", "main.json"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_same_keys_and_no_empty_text(language, name):
    texts = flat(read(language, name))
    assert set(texts) == set(flat(read("en", name)))
    assert all(text.strip() for text in texts.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_holds_what_the_page_takes_for_code(language):
    """The page's message format gives {} @ and | a meaning."""
    texts = flat(read(language, "nodeDefs.json")) | flat(read(language, "main.json"))
    assert not [text for text in texts.values() if re.search(r"[{}@|]", text)]


def test_japanese_is_translated():
    texts = flat(read("ja", "nodeDefs.json")) | flat(read("ja", "main.json"))
    assert not [
        f"{key}: {t}" for key, t in texts.items() if not JAPANESE.search(t) and t not in SAME_IN_JAPANESE
    ]


def test_japanese_keeps_the_options_of_a_choice(ours):
    """Options are values, not words: a tooltip that explains one in English explains it in Japanese."""
    japanese = read("ja", "nodeDefs.json")
    for name, node in ours.items():
        for socket in node.GET_SCHEMA().inputs:
            for option in map(str, getattr(socket, "options", None) or []):
                if re.search(rf"\b{re.escape(option)}\b", socket.tooltip):
                    assert option in japanese[name]["inputs"][socket.id]["tooltip"], (name, socket.id, option)


def test_japanese_keeps_every_number(ours):
    """Neutral values and the paper's ranges are the same in every language."""
    english, japanese = flat(read("en", "nodeDefs.json")), flat(read("ja", "nodeDefs.json"))
    for key, text in english.items():
        assert set(re.findall(r"\d+(?:\.\d+)?", text)) <= set(re.findall(r"\d+(?:\.\d+)?", japanese[key])), (
            key
        )
