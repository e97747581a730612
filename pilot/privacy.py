"""What a run says of its settings to whoever reads its folder: all that makes it again, and no secret."""

from __future__ import annotations

import re

HIDDEN = "(hidden)"
SECRET_NAMES = re.compile(r"(?i)(password|passwd|secret|token|api_?key|authorization|credential)")
LOGINS = re.compile(r"(?<=://)[^/\s@]*@")  # name:password@ of an address
FOLDERS = re.compile(r"(?:(?<=^)|(?<=[=\s\"']))(?:/|~/|[A-Za-z]:[\\/])(?:[^\s\"'=]*[\\/])+")


def shown(text: str) -> str:
    """A text without logins, and with files named without the folders above them."""
    return FOLDERS.sub("", LOGINS.sub("", text))


def shown_setting(setting: str) -> str:
    """NODE.input=VALUE as it may be written down; a value that an input's name calls secret is left out."""
    where, equals, value = setting.partition("=")
    return f"{where}{equals}{HIDDEN if SECRET_NAMES.search(where) else shown(value)}"


def shown_values(values: dict) -> dict:
    """A node's plain settings as they may be written down."""
    return {
        name: HIDDEN if SECRET_NAMES.search(name) else shown(value) if isinstance(value, str) else value
        for name, value in values.items()
    }
