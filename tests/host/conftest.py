"""The real ComfyUI in this process, for the whole tier: see devtools/host.py."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from devtools.environment import WORK
from devtools.golden import build
from devtools.host import Host, boot
from devtools.studio import Studio


@pytest.fixture(scope="session")
def host(tmp_path_factory) -> Host:
    # On a GPU TF32 rounds what is multiplied to ten bits, where these tests compare in float32.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return boot(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def ours(host) -> dict:
    """The pack's node classes by id."""
    nodes = host.nodes.NODE_CLASS_MAPPINGS
    return {
        name: node
        for name, node in sorted(nodes.items())
        if name.startswith("Eta") or name == "AttentionMask"
    }


@pytest.fixture
def blocks_read(host, monkeypatch) -> list:
    """An entry for each time that a block of a transformer is read for its words."""
    joint, read = host.module("host.families.joint"), []
    reads = joint.mean_to_text
    monkeypatch.setattr(joint, "mean_to_text", lambda *given: read.append(1) or reads(*given))
    return read


CACHE = WORK / "tests"


@pytest.fixture(scope="session")
def add_checkpoint(host) -> Callable[[str, Callable[[], dict]], str]:
    """Puts a seeded checkpoint into the host's folder by a name; built once and kept in .host/tests."""

    def add(name: str, state: Callable[[], dict]) -> str:
        recipe = b"".join(
            (Path(build.__file__).parent / file).read_bytes()
            for file in ("build.py", "weights.py", "shapes.json")
        )
        cached = CACHE / f"{name}-{hashlib.sha256(recipe).hexdigest()[:12]}.safetensors"
        if not cached.exists():
            CACHE.mkdir(parents=True, exist_ok=True)
            for stale in CACHE.glob(f"{name}-*.safetensors"):
                stale.unlink()
            build.write(cached, state())
        link = host.base / "models/checkpoints" / f"{name}.safetensors"
        if not link.exists():
            link.symlink_to(cached)
        return link.name

    return add


@pytest.fixture(scope="session")
def checkpoint(add_checkpoint) -> str:
    return add_checkpoint("small", build.small)


@pytest.fixture(scope="session")
def studio(host, checkpoint) -> Studio:
    """The small model, loaded by the stock loader."""
    return Studio(host, *host.call("CheckpointLoaderSimple", ckpt_name=checkpoint)[:2])


@pytest.fixture(scope="session")
def inversion(studio):
    return studio.invert()
