import hashlib
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from eta_core.schedule import ddim_grid
from eta_core.trajectory import Trajectory, TrajectoryFileError, load, save
from tests.core.toy import scaled_linear_table

GRID = ddim_grid(3, scaled_linear_table())


@pytest.fixture
def trajectory():
    return Trajectory(
        torch.randn(4, 2, 4, 6, 5),
        GRID,
        {"network": "SD15"},
        "f00",
        maps=torch.rand(2, 77, 3, 3),
        prompts=("a cat",),
        inverter="edit_friendly",
    )


def test_a_saved_trajectory_is_loaded_as_it_was(tmp_path, trajectory):
    save(
        tmp_path / "a.safetensors",
        trajectory,
        {"0.cond": torch.ones(1, 77, 8)},
        {"conditioning": [{"strength": 1.0}]},
    )
    loaded, tensors, notes = load(tmp_path / "a.safetensors")
    assert torch.equal(loaded.x, trajectory.x) and torch.equal(loaded.maps, trajectory.maps)
    assert (loaded.grid, loaded.signature, loaded.fingerprint, loaded.prompts, loaded.inverter) == (
        GRID,
        {"network": "SD15"},
        "f00",
        ("a cat",),
        "edit_friendly",
    )
    assert torch.equal(tensors["0.cond"], torch.ones(1, 77, 8)) and notes == {
        "conditioning": [{"strength": 1.0}]
    }
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_source_is_the_latent_that_was_inverted(trajectory):
    torch.testing.assert_close(trajectory.latents[0], trajectory.source)
    assert trajectory.picture_size == (48, 40)


def test_a_damaged_file_is_named(tmp_path, trajectory):
    path = tmp_path / "broken.safetensors"
    save(path, trajectory, {}, {})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(TrajectoryFileError, match="'broken.safetensors' is damaged"):
        load(path)


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "empty.safetensors").touch()
    with pytest.raises(TrajectoryFileError, match="'empty.safetensors'"):
        load(tmp_path / "empty.safetensors")


def test_another_programs_file_is_named(tmp_path):
    save_file({"x": torch.ones(1)}, tmp_path / "foreign.safetensors", {"format": "pt"})
    with pytest.raises(TrajectoryFileError, match="not a saved inversion"):
        load(tmp_path / "foreign.safetensors")


def test_a_file_whose_parts_do_not_fit_is_named(tmp_path, trajectory):
    path = tmp_path / "odd.safetensors"
    save(path, trajectory, {}, {})
    with safe_open(path, "pt") as file:
        tensors, about = {k: file.get_tensor(k) for k in file.keys()}, file.metadata()
    save_file({**tensors, "x": tensors["x"][:2]}, path, about)
    with pytest.raises(TrajectoryFileError, match="is damaged"):
        load(path)


def test_a_file_from_before_there_were_inverters_is_ddims(tmp_path):
    """The file is rewritten as the first release wrote it: without the key `inverter`."""
    path = tmp_path / "old.safetensors"
    save(path, Trajectory(torch.zeros(4, 1, 4, 2, 2), GRID, {}, ""), {}, {})
    with safe_open(path, "pt") as file:
        tensors, about = {k: file.get_tensor(k) for k in file.keys()}, file.metadata()
    values = json.loads(about["about"])
    del values["inverter"]
    text = json.dumps(values)
    digest = hashlib.sha256(text.encode() + b"x" + tensors["x"].numpy().tobytes()).hexdigest()
    save_file(tensors, path, {**about, "about": text, "digest": digest})
    assert load(path)[0].inverter == "ddim"


def test_an_inverter_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="inverter 'magic' is unknown: use one of ddim, fixed_point, "):
        Trajectory(torch.zeros(4, 1, 4, 2, 2), GRID, {}, "", inverter="magic")


def test_points_that_do_not_fit_the_grid_are_refused():
    with pytest.raises(ValueError, match="over 3 steps"):
        Trajectory(torch.zeros(3, 1, 4, 2, 2), GRID, {}, "")
