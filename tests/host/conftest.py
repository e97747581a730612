"""The real ComfyUI in this process: its executor runs whole graphs, its nodes are called as the executor calls them.

Golden cases want float32 text encoding, so the host is started with --force-fp32 --fp32-text-enc for all of this tier, and with
PyTorch's attention, as on a GPU; the host's own choice on a CPU is what `dev.py demo` and the tests of the page run.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))
import dev  # noqa: E402
from tests.golden import build  # noqa: E402
from tests.host.studio import Studio  # noqa: E402

FOLDERS = (
    "custom_nodes",
    "input",
    "output",
    "temp",
    "user",
    "models/checkpoints",
    "models/controlnet",
    "models/loras",
)


class Host:
    """The host's modules, and graphs through its executor."""

    def __init__(self, base: Path, nodes, execution, server, loop):
        self.base, self.nodes, self.server = base, nodes, server
        self._execution, self._loop = execution, loop

    def call(self, node_id: str, **inputs):
        """One node's outputs, called as the executor does. Fails with the node's own exception."""
        node = self.nodes.NODE_CLASS_MAPPINGS[node_id]
        with torch.inference_mode():
            if hasattr(node, "EXECUTE_NORMALIZED"):
                return node.PREPARE_CLASS_CLONE({}).EXECUTE_NORMALIZED(**inputs).result
            return getattr(node(), node.FUNCTION)(**inputs)

    def run(self, graph: dict, client: str = "") -> Outcome:
        """A whole API-format graph through PromptExecutor; client: the page that waits for it."""
        return self.run_on(self.executor(), graph, client)

    def executor(self):
        return self._execution.PromptExecutor(
            self.server, cache_type=self._execution.CacheType.CLASSIC, cache_args={"lru": 0, "ram": 0}
        )

    def run_on(self, executor, graph: dict, client: str = "") -> Outcome:
        valid = self._loop.run_until_complete(self._execution.validate_prompt("test", graph, None))
        if not valid[0] or valid[3]:
            return Outcome(False, f"{valid[1]} {valid[3]}", {}, executor)
        extra = {"client_id": client} if client else {}
        self._loop.run_until_complete(executor.execute_async(graph, "test", extra, valid[2]))
        errors = [
            data["exception_message"]
            for event, data in executor.status_messages
            if event == "execution_error"
        ]
        return Outcome(
            executor.success, "; ".join(errors), executor.history_result.get("outputs", {}), executor
        )


class Outcome:
    def __init__(self, success: bool, error: str, outputs: dict, executor):
        self.success, self.error, self.outputs, self.executor = success, error, outputs, executor


def boot(base: Path) -> Host:
    environment = dev.environment()
    for folder in FOLDERS:
        (base / folder).mkdir(parents=True, exist_ok=True)
    (base / "custom_nodes" / "eta-inversion").symlink_to(ROOT, target_is_directory=True)
    sys.argv = [
        "main.py",
        "--cpu",
        "--force-fp32",
        "--fp32-text-enc",
        "--use-pytorch-cross-attention",
        "--base-directory",
        str(base),
        "--disable-api-nodes",
    ]
    sys.path.insert(0, str(environment.host))
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args  # noqa: F401
    import folder_paths
    import utils.extra_config  # noqa: F401

    for name in ("output", "input", "temp", "user"):
        getattr(folder_paths, f"set_{name}_directory")(str(base / name))
    import execution
    import server

    import nodes

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    prompt_server = server.PromptServer(loop)
    loop.run_until_complete(nodes.init_extra_nodes(init_custom_nodes=True, init_api_nodes=False))
    return Host(base, nodes, execution, prompt_server, loop)


@pytest.fixture(scope="session")
def host(tmp_path_factory) -> Host:
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


CACHE = dev.WORK / "tests"


@pytest.fixture(scope="session")
def add_checkpoint(host) -> Callable[[str, Callable[[], dict]], str]:
    """Puts a seeded checkpoint into the host's folder by a name; built once and kept in .host/tests."""

    def add(name: str, state: Callable[[], dict]) -> str:
        recipe = b"".join(
            (ROOT / "tests/golden" / file).read_bytes() for file in ("build.py", "weights.py", "shapes.json")
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
