"""The help pages: web/docs/<node>.md in English, web/docs/<node>/<language>.md in the others."""

import re
from pathlib import Path

import pytest
from PIL import Image

DOCS = Path(__file__).resolve().parents[2] / "web" / "docs"
LANGUAGES = ("en", "ja")
PICTURE = re.compile(r"!\[[^\]]+\]\(([^)\s]+)\)")


def page_of(node_id: str, language: str) -> Path:
    return DOCS / f"{node_id}.md" if language == "en" else DOCS / node_id / f"{language}.md"


def test_no_page_is_left_without_its_node(ours):
    assert {path.stem for path in DOCS.glob("*.md")} == set(ours)
    assert {path.parent.name for path in DOCS.glob("*/*.md")} <= set(ours)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_names_its_node_and_every_input_and_output(ours, language):
    """Inputs and outputs in bold, by their ids: the words on the node's face in English, and in a saved
    workflow.
    """
    for name, node in ours.items():
        schema = node.GET_SCHEMA()
        text = page_of(name, language).read_text(encoding="utf-8")
        assert text.startswith("# "), name
        assert schema.display_name in text or language != "en", name
        wanted = [socket.id for socket in schema.inputs] + [socket.display_name for socket in schema.outputs]
        assert not [word for word in wanted if f"**{word}**" not in text], name


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_has_a_picture_that_opens(ours, language):
    """The page reads a picture's address from docs/ on, in every language."""
    for name in ours:
        pictures = PICTURE.findall(page_of(name, language).read_text(encoding="utf-8"))
        assert pictures, name
        for address in pictures:
            path = DOCS / address
            assert path.stat().st_size < 40_000, address
            with Image.open(path) as picture:
                picture.load()
                assert min(picture.size) >= 100, address


def test_japanese_pages_are_japanese_and_keep_the_numbers(ours):
    for name in ours:
        english, japanese = (page_of(name, language).read_text(encoding="utf-8") for language in LANGUAGES)
        assert len(re.findall("[\u3040-\u30ff\u4e00-\u9fff]", japanese)) > len(english) / 8, name
        assert set(re.findall(r"\d+\.\d+", english)) == set(re.findall(r"\d+\.\d+", japanese)), name
