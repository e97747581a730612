"""The real server for whole runs, started and killed at will, and the pilot as a program beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from devtools.demo import scenes
from devtools.demo.prepare import prepare
from devtools.environment import PACK, ROOT, child_environ, environment, make_base
from devtools.server import free_port, server_command, wait_for_server

SECONDS = 120
SIDE = 64
CAT = {"source_prompt": "a cat on the grass", "target_prompt": "a dog on the grass"}
# A shell's background jobs, such as these tests may be, ignore Ctrl-C.
HEARING = (
    "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv.pop(0); "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


class Host:
    """The real server on a port and a base directory of its own; it can be killed and started again."""

    def __init__(self, base: Path):
        self.environment = environment()._replace(base=base)
        self.port, self.log = free_port(), base / "server.log"
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None
        make_base(base)
        (base / "custom_nodes" / PACK).symlink_to(ROOT, target_is_directory=True)
        prepare(base)

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        with open(self.log, "wb") as output:
            command = server_command(self.environment, self.port)
            environ = {**child_environ(self.environment), "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=environ)
        wait_for_server(self.process, self.port, "127.0.0.1", self.log)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def prompts(self) -> int:
        """How many it was given since it was started."""
        return self.log.read_text(errors="replace").count("got prompt")


def program(*arguments: object, **more: str) -> subprocess.Popen:
    """The pilot, running. more: for its environment."""
    command = [sys.executable, "-c", HEARING, str(ROOT / "pilot"), *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "encoding": "utf-8"}
    # a log that cannot spell every name
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii", **more}
    return subprocess.Popen(command, **streams, env=environ)


def finished(process: subprocess.Popen, status: int = 0) -> str:
    told, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == status, told
    return told


def until(happened, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def cat(folder: Path, name: str, number: int = 7) -> dict:
    Image.fromarray(scenes.render(scenes.TEST + number, "cat", "grass").image).save(folder / name)
    return CAT | {"picture": name}


def listed(folder: Path, rows: list) -> Path:
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
