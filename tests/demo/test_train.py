import subprocess
import sys
from pathlib import Path

import pytest

from devtools.demo import pack

DEMO = Path(pack.__file__).parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    subprocess.run(
        [sys.executable, "-m", "devtools.demo.train", "--work", work, "--quick", "--device", "cpu"],
        check=True,
        cwd=DEMO.parents[1],
        stdout=subprocess.DEVNULL,
    )
    return work


def test_one_command_trains_every_stage(trained):
    networks, mean, std = pack.read(trained / "weights.safetensors")
    assert set(networks) == {"unet", "text", "encoder", "decoder"} and std > 0
    assert (trained / "judge.safetensors").exists()


def test_an_interrupted_training_goes_on_where_it_was(trained):
    output = subprocess.run(
        [sys.executable, "-m", "devtools.demo.train", "--work", trained, "--quick", "--device", "cpu"],
        check=True,
        cwd=DEMO.parents[1],
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    assert "unet: resumed at step 3" in output


def test_what_is_shipped_stays_small():
    folder = DEMO
    assert (
        sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        < 10e6
    )
