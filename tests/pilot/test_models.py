import hashlib
import os
from pathlib import Path

import pytest

from pilot import models


def put(folder, content: bytes = b"weights"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.safetensors").write_bytes(content)
    return folder / "a.safetensors"


def test_the_hash_of_the_servers_file(tmp_path):
    put(tmp_path / "base" / "models" / "checkpoints" / "sd")
    roots = models.roots_of(["main.py", "--cpu", "--base-directory", str(tmp_path / "base")])
    found = models.described(["sd/a.safetensors", "b.ckpt"], roots, {})
    assert found["sd/a.safetensors"]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert found["b.ckpt"] == {}


def test_without_a_base_directory_the_models_are_beside_the_program(tmp_path):
    assert models.roots_of([str(tmp_path / "main.py"), "--cpu"]) == [tmp_path / "models"]
    assert models.roots_of([]) == []


def test_a_program_started_in_its_own_folder_is_the_one_this_pack_is_in():
    pack = Path(models.__file__).resolve().parent.parent
    assert models.roots_of(["main.py", "--cpu"]) == [pack.parent.parent / "models"]


def test_an_unchanged_file_is_hashed_once_and_a_changed_one_again(tmp_path):
    path = put(tmp_path / "loras")
    first = models.described(["a.safetensors"], [tmp_path], {})
    known = {"a.safetensors": first["a.safetensors"] | {"sha256": "as remembered"}}
    assert (
        models.described(["a.safetensors"], [tmp_path], known)["a.safetensors"]["sha256"] == "as remembered"
    )
    path.write_bytes(b"other")
    os.utime(path, ns=(1, 1))
    changed = models.described(["a.safetensors"], [tmp_path], known)["a.safetensors"]
    assert changed["sha256"] == hashlib.sha256(b"other").hexdigest()


def test_a_run_goes_on_with_the_files_it_began_with_alone():
    before = {"a.ckpt": {"sha256": "1"}, "b.ckpt": {}}
    models.check({"a.ckpt": {"sha256": "1"}, "b.ckpt": {"sha256": "2"}, "c.ckpt": {}}, before)
    with pytest.raises(models.ModelsError, match="a.ckpt is another file .* put that one back"):
        models.check({"a.ckpt": {"sha256": "3"}}, before)
    with pytest.raises(
        models.ModelsError, match="a.ckpt was hashed .* not found now: name its folder with --models"
    ):
        models.check({"a.ckpt": {}}, before)
