"""Running commands that do not outlive us, and what is said to the user. Standard library only."""

from __future__ import annotations

import contextlib
import subprocess


class Stop(Exception):
    """What the user must know, in one line."""


def run(command, each_line=None, **options):
    """Exit status of a command that does not outlive us."""
    child = subprocess.Popen(command, text=True, errors="replace", **options)
    try:
        if each_line:
            for line in child.stdout:
                each_line(line)
        return child.wait()
    finally:
        end(child)


def end(child):
    """A terminal's Ctrl-C has reached the child as well: give it time, then insist."""
    for insist in (None, child.terminate, child.kill):
        if child.poll() is None:
            if insist:
                insist()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)


def say(text):
    print(text, flush=True)


def read(path):
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
