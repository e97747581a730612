"""The pack's JavaScript: linted by oxlint, its JSDoc types checked by TypeScript."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "web" / "js").rglob("*.js"))
TYPESCRIPT = ["npx", "--yes", "--package", "typescript@5.9.3", "--", "tsc"]


def test_lint():
    oxlint = shutil.which("oxlint", path=str(Path(sys.executable).parent))
    if not oxlint:
        pytest.skip("oxlint is not installed")
    done = subprocess.run(
        [oxlint, "--deny", "correctness", "--deny", "no-console", *SOURCES], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_types():
    if not shutil.which("npx"):
        pytest.skip("no npx: the types of the JavaScript are not checked")
    if subprocess.run([*TYPESCRIPT, "--version"], capture_output=True, timeout=120).returncode:
        pytest.skip("TypeScript cannot be fetched: the types of the JavaScript are not checked")
    done = subprocess.run(
        [*TYPESCRIPT, "--project", ROOT / "tests" / "web"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_file_is_type_checked_and_patches_no_prototype(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("// @ts-check") and ".prototype" not in text
