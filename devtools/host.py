"""The real ComfyUI in this process, to run whole graphs and to call single nodes.

Golden cases want float32 text encoding, so the host is started with --force-fp32 --fp32-text-enc, and with
PyTorch's attention, as on a GPU. The host's own choice on a CPU is what `dev.py demo` and the tests of the
page run. ETA_TEST_GPU=1 leaves the GPU to it.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch

from .environment import ROOT, environment

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
EXACT = ("--force-fp32", "--fp32-text-enc", "--use-pytorch-cross-attention", "--disable-api-nodes")
OPTIONS = EXACT if os.environ.get("ETA_TEST_GPU") else ("--cpu", *EXACT)


class Host:
    """The host's modules, and graphs through its executor."""

    def __init__(self, base: Path, nodes, execution, server, loop):
        self.base, self.nodes, self.server = base, nodes, server
        self._execution, self._loop = execution, loop

    def module(self, name: str) -> ModuleType:
        """A module of the pack, as the host imported it."""
        package = self.nodes.NODE_CLASS_MAPPINGS["EtaInversion"].__module__.rpartition(".")[0]
        return sys.modules[f"{package}.{name}"]

    def call(self, node_id: str, **inputs):
        """One node's outputs, called as the executor does. Fails with the node's own exception."""
        node = self.nodes.NODE_CLASS_MAPPINGS[node_id]
        with torch.inference_mode():
            if hasattr(node, "EXECUTE_NORMALIZED"):
                return node.PREPARE_CLASS_CLONE({}).EXECUTE_NORMALIZED(**inputs).result
            return getattr(node(), node.FUNCTION)(**inputs)

    def object_info(self) -> dict:
        """What the server's /object_info says of every node."""
        return {name: _info(node) for name, node in self.nodes.NODE_CLASS_MAPPINGS.items()}

    def run(self, graph: dict, client: str = "") -> Outcome:
        """A whole API-format graph through PromptExecutor; client: the page that waits for it."""
        return self.run_on(self.executor(), graph, client)

    def executor(self):
        return self._execution.PromptExecutor(
            self.server,
            cache_type=self._execution.CacheType.CLASSIC,
            cache_args={"lru": 0, "ram": 0, "ram_inactive": 0},
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


def _info(node) -> dict:
    if hasattr(node, "GET_NODE_INFO_V1"):
        return node.GET_NODE_INFO_V1()
    outputs = list(getattr(node, "RETURN_NAMES", node.RETURN_TYPES))
    return {"input": node.INPUT_TYPES(), "output": list(node.RETURN_TYPES), "output_name": outputs}


class Outcome:
    def __init__(self, success: bool, error: str, outputs: dict, executor):
        self.success, self.error, self.outputs, self.executor = success, error, outputs, executor


def boot(base: Path, options: Sequence[str] = OPTIONS) -> Host:
    """Start the host on a base directory of its own. Once in a process: the host cannot be started twice."""
    for folder in FOLDERS:
        (base / folder).mkdir(parents=True, exist_ok=True)
    (base / "custom_nodes" / "eta-inversion").symlink_to(ROOT, target_is_directory=True)
    sys.argv = ["main.py", *options, "--base-directory", str(base)]
    _put_host_first(environment().host)
    import comfy.options

    comfy.options.enable_args_parsing()
    importlib.import_module("comfy.cli_args")
    importlib.import_module("utils.extra_config")  # before `nodes`, which brings another module `utils`
    import folder_paths

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


def _put_host_first(host: Path) -> None:
    """The host first on sys.path, this repository last: its nodes/ would shadow the host's `nodes`."""
    others = [path for path in sys.path if path not in ("", str(ROOT))]
    sys.path[:] = [str(host), *others, str(ROOT)]
