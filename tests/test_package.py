"""What the registry gets: the files git knows without those of .comfyignore, and pyproject.toml's words about
them.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
RAW = "https://raw.githubusercontent.com/eta-inversion/comfyui-eta-inversion/main/"
FOLDERS = {"eta_core", "example_workflows", "locales", "nodes", "pilot", "subgraphs", "web"}
FILES = {"__init__.py", "CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml"}


@pytest.fixture(scope="module")
def shipped() -> set[str]:
    """Paths as the registry's own tool chooses them."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout: git says which files are published")

    def listed(*options: str) -> set[str]:
        command = ["git", "-C", str(ROOT), "ls-files", "-z", *options]
        return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")) - {
            ""
        }

    return listed() - listed("--cached", "--ignored", "--exclude-from", ".comfyignore")


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_what_a_user_needs_is_shipped_and_nothing_else(shipped):
    assert {path.partition("/")[0] for path in shipped} == FOLDERS | FILES
    assert {path for path in shipped if "/" not in path} == FILES


def test_the_package_is_small_and_has_no_weights(shipped):
    assert not [path for path in shipped if path.endswith((".safetensors", ".pt", ".ckpt"))]
    sizes = {path: (ROOT / path).stat().st_size for path in shipped}
    assert max(sizes.values()) < 300_000 and sum(sizes.values()) < 4_000_000, sizes


def test_shipped_code_needs_no_file_that_is_left_out(shipped):
    for path in shipped:
        if path.endswith(".py"):
            assert not re.search(
                r"^\s*(from|import) (demo|dev|devtools|tests)\b", (ROOT / path).read_text("utf-8"), re.M
            ), path


def test_the_readmes_pictures_are_shipped(shipped):
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert pictures
    assert {address.replace("%20", " ") for address in pictures} <= shipped


def test_every_template_stands_in_the_table_of_templates():
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (.+?) \|.*\| (?:0\.3\.75, )?0\.33\.0 \|$", text, re.MULTILINE)
    assert listed == sorted(path.stem for path in (ROOT / "example_workflows").glob("*.json"))


def test_the_newest_release_of_the_changelog_is_the_version(project):
    version = project["project"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert headings[:2] == ["Unreleased", version]


def test_the_version_stands_in_one_place(project, shipped):
    version = project["project"]["version"]
    texts = {
        path: (ROOT / path).read_text(encoding="utf-8") for path in shipped if path.endswith((".py", ".js"))
    }
    assert not [path for path, text in texts.items() if f'"{version}"' in text]


def test_the_registry_finds_icon_and_banner(project, shipped):
    for name, fits in (("Icon", lambda w, h: w == h <= 400), ("Banner", lambda w, h: w * 9 == h * 21)):
        address = project["tool"]["comfy"][name]
        assert address.startswith(RAW) and address.removeprefix(RAW) in shipped
        with Image.open(ROOT / address.removeprefix(RAW)) as picture:
            picture.load()
            assert fits(*picture.size), (name, picture.size)


def test_the_registrys_rules_for_names(project):
    name, comfy = project["project"]["name"], project["tool"]["comfy"]
    assert re.fullmatch(r"[a-z]+([-_.]?[a-z0-9]+)*", name) and "comfyui" not in name
    assert comfy["PublisherId"] and comfy["DisplayName"]
    assert project["project"]["urls"]["Repository"].startswith("https://github.com/")
    assert project["project"]["dependencies"] == []  # what the pack imports comes with ComfyUI


def test_publishing_waits_for_the_tests():
    publish, test = (
        yaml.safe_load((ROOT / ".github/workflows" / f"{name}.yml").read_text())
        for name in ("publish", "test")
    )
    assert publish["jobs"]["publish"]["needs"] == "test"
    assert publish["jobs"]["test"]["uses"] == "./.github/workflows/test.yml"
    assert set(publish[True]) == {"push", "workflow_dispatch"} and set(publish[True]["push"]) == {
        "tags"
    }  # True: on
    assert "repository_owner" in publish["jobs"]["publish"]["if"]
    assert {"run": ".ci/run"} in test["jobs"]["test"]["steps"]
    assert test["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.10", "3.13"]
    assert test["jobs"]["newest"]["continue-on-error"] is True
    assert os.access(ROOT / ".ci/run", os.X_OK)
