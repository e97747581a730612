"""Saved inversions in the host's folders."""

from __future__ import annotations

from pathlib import Path

import folder_paths

SUFFIX = ".eta.safetensors"


def saved_files() -> list[str]:
    """Saved inversions by the host's annotated names, newest first; folders are searched one level deep, as they can be huge."""
    roots = {"output": Path(folder_paths.get_output_directory()), "input": Path(folder_paths.get_input_directory())}
    found = (
        (kind, root, p)
        for kind, root in roots.items()
        for pattern in (f"*{SUFFIX}", f"*/*{SUFFIX}")
        for p in root.glob(pattern)
    )
    files = [(p, f"{p.relative_to(root).as_posix()} [{kind}]") for kind, root, p in found]
    return [name for _, name in sorted(files, key=lambda item: -item[0].stat().st_mtime)]


def saved_path(name: str) -> Path:
    """The file behind an annotated name. Raises ValueError outside the host's folders or where there is none."""
    relative, root = folder_paths.annotated_filepath(name)
    root = Path(root or folder_paths.get_output_directory()).resolve()
    path = (root / relative.strip()).resolve()
    if not path.is_relative_to(root):
        raise ValueError(
            f"'{name}' lies outside the host's {root.name} folder: give a path inside it, such as 'eta/inversion_00001_{SUFFIX} [output]'"
        )
    if not path.is_file():
        raise ValueError(
            f"'{name}' does not exist in {root}; save an inversion with Save Eta Inversion first, or refresh the list"
        )
    return path


def new_path(prefix: str) -> tuple[Path, str]:
    """A fresh file in the output folder for a filename prefix, and its annotated name."""
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    taken = {p.name for p in Path(folder).glob(f"*{SUFFIX}")}
    while (file := f"{name}_{counter:05}_{SUFFIX}") in taken:
        counter += 1
    return Path(folder) / file, f"{(Path(subfolder) / file).as_posix()} [output]"
