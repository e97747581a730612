"""The name under which this pack stands in the files that it writes."""

import re
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
NAME = "Eta Inversion for ComfyUI"


@cache
def version() -> str:
    """As the registry has it."""
    return re.findall(r'^version = "(.+)"$', PROJECT.read_text(encoding="utf-8"), re.M)[0]
