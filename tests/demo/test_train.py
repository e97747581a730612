import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from devtools.demo import build, pack
from devtools.demo.flow_network import DEPTH

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


def test_one_command_trains_the_flow_model_and_its_checkpoint_has_sd3s_shapes(tmp_path):
    command = [
        sys.executable,
        "-m",
        "devtools.demo.train_flow",
        "--work",
        tmp_path,
        "--quick",
        "--device",
        "cpu",
    ]
    for _ in range(2):
        output = subprocess.run(command, check=True, cwd=DEMO.parents[1], stdout=subprocess.PIPE, text=True)
    assert "flow: resumed at step 3" in output.stdout
    build.build_flow(tmp_path / "sd3.safetensors", tmp_path / "flow.safetensors")
    state = load_file(tmp_path / "sd3.safetensors")
    model = {k.removeprefix("model.diffusion_model."): v for k, v in state.items() if "diffusion" in k}
    assert model["x_embedder.proj.weight"].shape == (64 * DEPTH, 16, 2, 2)
    assert model["context_embedder.weight"].shape == (64 * DEPTH, 4096)
    assert not model["context_embedder.weight"][:, 768:].any()  # CLIP-L alone
    assert sum(name.endswith("x_block.attn.qkv.weight") for name in model) == DEPTH
    assert f"joint_blocks.{DEPTH - 1}.context_block.mlp.fc1.weight" not in model


def test_what_is_shipped_stays_small():
    folder = DEMO
    assert (
        sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        < 16e6
    )
