"""The pack's JavaScript: linted by oxlint, its JSDoc types checked by TypeScript."""

import shutil
import subprocess

import pytest

from devtools.check import SCRIPTS, TYPESCRIPT, find, oxlint, typescript

SOURCES = sorted(path for folder in SCRIPTS for path in folder.rglob("*.js"))


def test_lint():
    if not find("oxlint"):
        pytest.skip("oxlint is not installed")
    done = subprocess.run(oxlint(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_types():
    if not shutil.which("npx"):
        pytest.skip("no npx: the types of the JavaScript are not checked")
    if subprocess.run([*TYPESCRIPT, "--version"], capture_output=True, timeout=120).returncode:
        pytest.skip("TypeScript cannot be fetched: the types of the JavaScript are not checked")
    done = subprocess.run(typescript(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_file_is_type_checked_and_patches_no_prototype(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("// @ts-check") and ".prototype" not in text
