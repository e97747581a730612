"""Saved inversions in the host's folders."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

SUFFIX = ".eta.safetensors"
DEPTH = 4  # folders below output and input that are searched: they can be huge


def saved_files() -> list[str]:
    """Saved inversions by the host's annotated names, newest first."""
    found = []
    for kind, root in (("output", _output()), ("input", Path(folder_paths.get_input_directory()).resolve())):
        for folder, below, names in os.walk(root):
            place = Path(folder).relative_to(root)
            if len(place.parts) >= DEPTH:
                below.clear()
            files = [Path(folder) / name for name in names if name.endswith(SUFFIX)]
            found += [
                (p.stat().st_mtime, f"{(place / p.name).as_posix()} [{kind}]") for p in files if p.is_file()
            ]
    return [name for _, name in sorted(found, reverse=True)]


def saved_path(name: str) -> Path:
    """The file of an annotated name. Raises ValueError outside the host's folders and where there is none."""
    relative, root = folder_paths.annotated_filepath(name)
    root = Path(root or _output()).resolve()
    path = _inside(root, relative.strip(), name)
    if not path.is_file():
        raise ValueError(
            f"'{name}' does not exist in {root}; save an inversion with Save Eta Inversion first, or refresh "
            "the list"
        )
    return path


def uploaded_path(subfolder: str, filename: str) -> Path:
    """A file that the page put into the input folder. ValueError outside of it, and where there is none."""
    root, name = Path(folder_paths.get_input_directory()).resolve(), f"{subfolder}/{filename}".lstrip("/")
    path = _inside(root, name, name)
    if not path.is_file():
        raise ValueError(f"'{name}' is not in the host's input folder: upload it first")
    return path


def new_path(prefix: str) -> tuple[Path, str]:
    """A fresh file in the output folder for a prefix, and its annotated name. ValueError as above."""
    if not Path(prefix).name:
        raise ValueError(f"filename_prefix is '{prefix}': give a file name, such as eta/inversion")
    deep = len(_inside(_output(), f"{prefix}_00001_{SUFFIX}", prefix).relative_to(_output()).parts) - 1
    if deep > DEPTH:
        raise ValueError(
            f"filename_prefix '{prefix[:80]}' leads {deep} folders deep, and Load Eta Inversion lists "
            f"{DEPTH}: "
            "use fewer folders"
        )
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, str(_output()))
    taken = {p.name for p in Path(folder).glob(f"*{SUFFIX}")}
    while (file := f"{name}_{counter:05}_{SUFFIX}") in taken:
        counter += 1
    return Path(folder) / file, f"{(Path(subfolder) / file).as_posix()} [output]"


def _output() -> Path:
    return Path(folder_paths.get_output_directory()).resolve()


def _inside(root: Path, relative: str, name: str) -> Path:
    try:
        path = (root / relative).resolve()
    except (ValueError, OSError) as error:
        raise ValueError(f"'{name}' is no file name: {error}") from error
    if not path.is_relative_to(root):
        raise ValueError(
            f"'{name}' lies outside the host's {root.name} folder: give a path inside it, such as "
            "eta/inversion"
        )
    return path
