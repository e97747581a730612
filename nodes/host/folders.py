"""Files in the host's folders: those that are listed, and fresh ones."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import folder_paths
from safetensors import SafetensorError

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


def input_pictures() -> list[str]:
    """Pictures of the input folder, as Load Image lists them."""
    root = folder_paths.get_input_directory()
    files = [name for name in os.listdir(root) if os.path.isfile(os.path.join(root, name))]
    return sorted(folder_paths.filter_files_content_types(files, ["image"]))


def picture_path(name: str) -> Path:
    """The file that Load Image opens by this name. Raises ValueError outside the host's folders, and where
    there is none.
    """
    relative, root = folder_paths.annotated_filepath(name)
    root = Path(root or folder_paths.get_input_directory()).resolve()
    path = _inside(root, relative.strip(), name)
    if not path.is_file():
        raise ValueError(f"'{name}' does not exist in {root}: load the photograph, or refresh the list")
    return path


def check_prefix(prefix: str, deepest: int | None = None) -> None:
    """Raises ValueError where a prefix names no file in the output folder, or one below `deepest` folders."""
    if not Path(prefix).name:
        raise ValueError(f"filename_prefix is '{prefix}': give a file name, such as eta/inversion")
    deep = len(_inside(_output(), f"{prefix}_00001_", prefix).relative_to(_output()).parts) - 1
    if deepest is not None and deep > deepest:
        raise ValueError(
            f"filename_prefix '{prefix[:80]}' leads {deep} folders deep, and Load Eta Inversion lists "
            f"{deepest}: "
            "use fewer folders"
        )


def save_new(prefix: str, suffix: str, write: Callable[[Path], None], megabytes: float) -> tuple[str, str]:
    """Write a fresh file of the output folder, all or nothing -> its subfolder and its name.

    write: fills the file of a path. Two savers of one prefix get two names. Raises ValueError where the file
    cannot be written.
    """
    check_prefix(prefix)
    try:
        folder, subfolder, name = _fresh(prefix, suffix)
        half = folder / f"{uuid.uuid4().hex}.part"
        try:
            write(half)
            while not _take(half, folder / name):
                folder, subfolder, name = _fresh(prefix, suffix)
        finally:
            half.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"filename_prefix '{prefix[:80]}': {_why(error, megabytes)}") from None
    return subfolder, name


def _fresh(prefix: str, suffix: str) -> tuple[Path, str, str]:
    """Folder, subfolder and a name that is not taken yet."""
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, str(_output()))
    taken = {path.name for path in Path(folder).iterdir()}
    while (file := f"{name}_{counter:05}_{suffix}") in taken:
        counter += 1
    return Path(folder), subfolder, file


def _take(half: Path, path: Path) -> bool:
    """Give a whole file its name, unless another saver was faster."""
    try:
        os.link(half, path)
    except FileExistsError:
        return False
    except OSError:  # no links on this file system: the name is taken first
        with contextlib.suppress(FileExistsError):
            path.open("xb").close()
            os.replace(half, path)
            return True
        return False
    return True


def _why(error: Exception, megabytes: float) -> str:
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC or "No space left" in str(error):
        return f"the disk is full; the file takes {megabytes:.1f} MB, make room and save again"
    if number == errno.ENAMETOOLONG:
        return "the name is too long for this file system; use a shorter one"
    return f"the file cannot be written ({error})"


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
