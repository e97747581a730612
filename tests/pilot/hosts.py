"""The real server for whole runs, started and killed at will, and the pilot as a program beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from devtools.demo import scenes
from devtools.demo.prepare import prepare
from devtools.environment import PACK, ROOT, child_environ, environment, make_base
from devtools.server import free_port, server_command, wait_for_server
from pilot import journal

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


def of_seeds(folder: Path, count: int) -> Path:
    """A list of one edit with many seeds."""
    return listed(folder, [cat(folder, "a.png") | {"seed": seed} for seed in range(count)])


def short_run(items: Path, out: Path, *more: object) -> list[str]:
    """The arguments of a run of few steps."""
    given = ("run", items, "--out", out, "--max-side", SIDE, "--set", "EtaInversion.steps=2", *more)
    return [str(part) for part in given]


def servers(hosts: Iterable[Host]) -> list[str]:
    return [part for host in hosts for part in ("--server", host.address)]


class Doing(threading.Thread):
    """Something done beside a run that goes on in this thread, when it is time."""

    def __init__(self, *steps):
        super().__init__(daemon=True)
        self.steps, self.error = steps, None
        self.start()

    def run(self):
        try:
            for happened, act in self.steps:
                deadline = time.monotonic() + SECONDS
                while not happened():
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                act()
        except Exception as error:
            self.error = error

    def finish(self):
        self.join(SECONDS)
        assert self.error is None and not self.is_alive()


def counts(out: Path) -> Counter:
    return Counter((row["name"], row["seed"], row["status"]) for row in journal.rows(out))


def by_server(out: Path) -> Counter:
    return Counter(row["server"] for row in journal.rows(out))
