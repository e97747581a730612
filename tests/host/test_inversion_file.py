"""Files of inversions: what is saved is loaded as it was, and whatever else is refused while it is loaded."""

import hashlib
import json
import os
import re
import threading
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.host.test_errors import SUFFIX, raises
from tests.host.test_sampling import pack


@pytest.fixture(scope="module")
def files(host):
    return pack(host, "host.inversion_file")


@pytest.fixture(scope="module")
def saved(studio, inversion, request) -> Path:
    """In a folder of the module's own."""
    folder = request.module.__name__.rpartition(".")[2]
    studio.host.call("EtaSaveInversion", inversion=inversion, filename_prefix=f"{folder}/inversion")
    (path,) = (studio.host.base / "output" / folder).glob(f"*{SUFFIX}")
    return path


def parts(path: Path) -> tuple[dict, dict]:
    """A file's header and its tensors."""
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["about"]), {name: file.get_tensor(name) for name in file.keys()}


def forged(path: Path, about: dict | str, tensors: dict) -> Path:
    """A file that is whole, with the right digest, whatever is in it."""
    text = about if isinstance(about, str) else json.dumps(about)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.flatten().view(torch.uint8).numpy().tobytes())
    metadata = {"format": "eta-inversion-1", "about": text, "digest": digest.hexdigest()}
    save_file(tensors, path, metadata)
    return path


def test_a_saved_inversion_is_loaded_as_it_was(files, saved, inversion):
    trajectory, positive = files.load(saved)
    mine = inversion.trajectory
    assert torch.equal(trajectory.x, mine.x) and torch.equal(trajectory.maps, mine.maps)
    for name in ("grid", "signature", "fingerprint", "prompts", "inverter", "cfg", "scale"):
        assert getattr(trajectory, name) == getattr(mine, name)
    for (cond, extra), (own, theirs) in zip(positive, inversion.positive, strict=True):
        assert torch.equal(cond, own) and extra.keys() == theirs.keys()
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_file_from_before_there_were_inverters_is_ddims(files, saved, tmp_path):
    about, tensors = parts(saved)
    del about["inverter"], about["cfg"], about["grid"]["frame"], about["grid"]["noise_scale"]
    assert files.load(forged(tmp_path / "old", about, tensors))[0].inverter == "ddim"


def grid(about: dict, **changes) -> dict:
    return about | {"grid": about["grid"] | changes}


def notes(about: dict, *conditioning) -> dict:
    return about | {"notes": {"conditioning": list(conditioning)}}


HEADERS = {
    "100,000 deep": (lambda about: "[" * 100_000, "nested 100000 deep"),
    "no JSON": (lambda about: "{", "its header is no JSON"),
    "a list": (lambda about: "[]", "valid dictionary"),
    "a name twice": (lambda about: '{"grid": 1, "grid": 2}', "grid twice"),
    "no grid": (lambda about: {k: v for k, v in about.items() if k != "grid"}, "grid"),
    "a number of 400 digits": (lambda about: about | {"scale": 10**400}, "400 digits|401 digits"),
    "a missing tensor": (
        lambda about: notes(about, {"pooled_output": {"tensor": "nope"}}),
        "nope is missing",
    ),
    "no source prompt": (lambda about: notes(about), "notes.conditioning"),
    "a ControlNet in words": (lambda about: notes(about, {"control": "x"}), "control"),
    "an area in words": (lambda about: notes(about, {"area": "x"}), "area"),
    "a strength in words": (lambda about: notes(about, {"strength": "x"}), "strength"),
    "pooled in words": (lambda about: notes(about, {"pooled_output": "x"}), "pooled_output"),
    "a list in a list": (lambda about: notes(about, {"area": [[1]]}), "notes.conditioning"),
    "a signature of another kind": (lambda about: about | {"signature": ["x"]}, "signature"),
    "no signature": (lambda about: about | {"signature": {}}, "signature lacks network"),
    "an unknown frame": (lambda about: grid(about, frame="x"), "grid.frame"),
    "flow's frame": (lambda about: grid(about, frame="flow"), "frame is flow"),
    "a noise scale of 0": (lambda about: grid(about, frame="flow", noise_scale=0), "noise_scale"),
    "scale 0": (lambda about: about | {"scale": 0}, "scale"),
    "scale true": (lambda about: about | {"scale": True}, "scale"),
    "scale in words": (lambda about: about | {"scale": "8"}, "scale"),
    "times of a billion": (lambda about: grid(about, times=[1e9] * 5), "times run from 0"),
    "times that are not numbers": (lambda about: grid(about, times=[None] * 5), "grid.times"),
    "levels that fall": (lambda about: grid(about, sigmas=about["grid"]["sigmas"][::-1]), "ascend"),
    "infinite levels": (
        lambda about: json.dumps(grid(about, sigmas=[*about["grid"]["sigmas"][:-1], float("inf")])),
        "grid.sigmas",
    ),
    "cfg below 0": (lambda about: about | {"cfg": -1.0}, "cfg"),
    "an unknown inverter": (lambda about: about | {"inverter": "ddpm"}, "inverter"),
    "prompts of numbers": (lambda about: about | {"prompts": [1]}, "prompts"),
    "one name more": (lambda about: about | {"more": 1}, "more"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_cannot_be_used_is_refused_while_it_is_loaded(files, saved, tmp_path, case):
    change, said = HEADERS[case]
    about, tensors = parts(saved)
    with pytest.raises(files.InversionFileError, match="'forged' is a damaged inversion") as told:
        files.load(forged(tmp_path / "forged", change(about), tensors))
    assert re.search(said, str(told.value)) and len(str(told.value)) < 500


TENSORS = {
    "x of integers": dict(x=lambda x: x.int()),
    "x of three channels": dict(x=lambda x: x[:, :, :3]),
    "x of no width": dict(x=lambda x: x[..., :0]),
    "x of no pictures": dict(x=lambda x: x[:, :0]),
    "x of NaN": dict(x=lambda x: x * float("nan")),
    "x of a billion": dict(x=lambda x: x + 1e9),
    "x of 4 axes": dict(x=lambda x: x[:, 0]),
    "one point less": dict(x=lambda x: x[1:]),
    "maps of integers": dict(maps=lambda maps: maps.int()),
    "maps of 2": dict(maps=lambda maps: maps + 2),
    "maps of another prompt": dict(maps=lambda maps: maps[:, :5]),
    "maps of more pictures": dict(maps=lambda maps: maps.repeat(3, 1, 1, 1)),
    "a prompt of 2 axes": {"extra.0.cond": lambda cond: cond[0]},
    "a prompt of three pictures": {"extra.0.cond": lambda cond: cond.repeat(3, 1, 1)},
    "a prompt of infinity": {"extra.0.cond": lambda cond: cond / 0},
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_cannot_be_sampled_are_refused_while_they_are_loaded(files, saved, tmp_path, case):
    about, tensors = parts(saved)
    tensors |= {name: change(tensors[name]) for name, change in TENSORS[case].items()}
    with raises("'forged' is a damaged inversion"):
        files.load(forged(tmp_path / "forged", about, tensors))


# --- saving ---------------------------------------------------------------------------------------


def test_two_savers_of_one_name_lose_nothing(files, inversion):
    positive, names = inversion.positive, []
    savers = [
        threading.Thread(target=lambda: names.append(files.save("both/x", inversion.trajectory, positive)))
        for _ in range(8)
    ]
    for saver in savers:
        saver.start()
    for saver in savers:
        saver.join()
    assert len(set(names)) == 8


@pytest.mark.parametrize(
    "prefix, words",
    [("n" * 300, ("too long", "shorter")), ("a/b/c/d/e/x", ("5 folders deep", "fewer folders"))],
)
def test_a_name_that_cannot_be_saved_or_would_not_be_listed(studio, inversion, prefix, words):
    with raises("filename_prefix", *words):
        studio.host.call("EtaSaveInversion", inversion=inversion, filename_prefix=prefix)


def test_a_full_disk_is_told_and_leaves_nothing(files, inversion, studio, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    with raises("the disk is full", "MB", "save again"):
        files.save("full/x", inversion.trajectory, inversion.positive)
    assert not os.listdir(studio.host.base / "output/full")
