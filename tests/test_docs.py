"""The documents: their links lead somewhere, and the program knows the commands that they show."""

import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest

from pilot import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("devtools/**/*.md")]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def anchors(path: Path) -> set[str]:
    """A page's headings as GitHub links them."""
    headings = re.findall(r"^#+ (.+)$", text_of(path), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text_of(page)):
        name, _, anchor = unquote(link).partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


COMMANDS = [
    line.partition("#")[0].strip()
    for page in PAGES
    for block in re.findall(r"^```\n(.*?)^```", text_of(page), re.M | re.S)
    for line in block.splitlines()
    if line.startswith(("python pilot ", "python dev.py pilot "))
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_for_the_pilot_is_one(command):
    words = shlex.split(command)
    assert cli.parser().parse_args(words[words.index("pilot") + 1 :]).command


def test_every_option_of_the_pilots_pages_is_one():
    pages = ("pilot", "review", "policies", "comparing-models", "several-servers", "run-folder", "million")
    sources = list((ROOT / "pilot").rglob("*.py"))
    known = {option for path in sources for option in re.findall(r'"(--[a-z][a-z-]+)"', text_of(path))}
    for page in pages:
        said = set(re.findall(r"--[a-z][a-z-]+", text_of(ROOT / "docs" / f"{page}.md")))
        assert said and said <= known | {"--help"}, page
