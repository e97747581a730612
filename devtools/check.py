"""Format, lint and types of the whole project: python dev.py check

Python: ruff and basedpyright (the type checker's standard mode). JavaScript: oxlint, and TypeScript on its
JSDoc types. Every tool runs even where one before it failed. Exit status 1 where any failed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from .environment import ROOT

SCRIPTS = (ROOT / "web" / "js", ROOT / "pilot" / "review" / "page")
TYPESCRIPT = ("npx", "--yes", "--package", "typescript@5.9.3", "--", "tsc")


def main() -> int:
    failed = [name for name, command in commands().items() if not passes(name, command)]
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed", flush=True)
    return 1 if failed else 0


def commands() -> dict[str, list[str]]:
    """The command line of every tool by its name."""
    return {
        "format": [tool("ruff"), "format", "--check", "--quiet", "."],
        "lint": [tool("ruff"), "check", "--quiet", "."],
        "types": [tool("basedpyright")],
        "javascript lint": oxlint(),
        "javascript types": typescript(),
    }


def find(name: str) -> str | None:
    """A tool of this Python's environment, else of the system."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def tool(name: str) -> str:
    """The same. Exits where there is none."""
    found = find(name)
    if found is None:
        sys.exit(
            f"{name} is not installed: see devtools/requirements.txt, or unset COMFYUI_PATH to use our own "
            ".venv"
        )
    return found


def oxlint() -> list[str]:
    sources = sorted(str(path) for folder in SCRIPTS for path in folder.rglob("*.js"))
    return [tool("oxlint"), "--deny", "correctness", "--deny", "no-console", *sources]


def typescript() -> list[str]:
    return [*TYPESCRIPT, "--project", str(ROOT / "tests" / "web")]


def passes(name: str, command: list[str]) -> bool:
    if shutil.which(command[0]) is None:
        print(f"{name}: skipped, there is no {command[0]} (it comes with Node.js)", flush=True)
        return True
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(f"{name}: {'ok' if done.returncode == 0 else 'FAILED'}", flush=True)
    if done.returncode:
        print(done.stdout + done.stderr, flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
