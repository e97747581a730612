"""The real ComfyUI server on our base directory. Standard library only."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import urllib.request

from .environment import child_environ
from .processes import Stop, end, read

BOOT_SECONDS = 300
HAS_DEVICE = """import sys, torch
backends = (torch.cuda, getattr(torch, "xpu", None), torch.backends.mps)
sys.exit(not any(b is not None and b.is_available() for b in backends))"""


def server_command(env, port, listen="127.0.0.1", cpu=True):
    """The command line of the real server on our base directory."""
    options = {
        "--port": port,
        "--listen": listen,
        "--base-directory": env.base,
        "--database-url": f"sqlite:///{env.base / 'user' / 'comfyui.db'}",
    }
    flags = ["--disable-auto-launch", "--disable-api-nodes", *(["--cpu"] if cpu else [])]
    return [str(part) for part in (env.python, env.host / "main.py", *sum(options.items(), ()), *flags)]


@contextlib.contextmanager
def running(command, env, port, log, listen="127.0.0.1"):
    """The server of a command line -> its process and its address; ended on the way out."""
    with open(log, "wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, env=child_environ(env))
    try:
        yield server, wait_for_server(server, port, listen, log)
        server.terminate()
    finally:
        end(server)


def has_device(env):
    return subprocess.call([env.python, "-c", HAS_DEVICE], stderr=subprocess.DEVNULL) == 0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def require_free(port, listen):
    with socket.socket(socket.AF_INET6 if ":" in listen else socket.AF_INET) as probe:
        if os.name != "nt":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen, port))
        except (OSError, OverflowError) as error:
            raise Stop(f"cannot listen on {listen}, port {port} ({error}); try another --port") from None


def wait_for_server(server, port, listen, log):
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen, listen)
    address = f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            last = (read(log).splitlines() or ["no output"])[-1]
            raise Stop(f"ComfyUI ended while starting: {last} (all of it: {log})")
        with contextlib.suppress(OSError), direct.open(f"{address}/system_stats", timeout=5):
            return address
        time.sleep(0.3)
    raise Stop(f"ComfyUI did not answer within {BOOT_SECONDS} s (log: {log})")
