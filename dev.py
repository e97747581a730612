#!/usr/bin/env python3
"""Everything a developer or a curious user needs, in one command.

    python dev.py demo [--out DIR]                   one real edit in the real ComfyUI, on the embedded model
    python dev.py serve [--port N] [--listen ADDR]   the ComfyUI server with this pack and the embedded model
    python dev.py test [pytest arguments]            every test
    python dev.py attack [--minutes N] [--seed S]    the standing attack, with new seeds; prints what broke
    python dev.py check                              format, lint and types of the whole project
    python dev.py bench [arguments]                  the tables of docs/benchmarks.md
    python dev.py pilot run ITEMS --out DIR ...      many pictures through one workflow (see `pilot --help`)
    python dev.py env                                where host, base directory and Python are, as JSON

The first run makes .venv and .host beside this file (pinned packages, ComfyUI 0.3.75); later runs fetch
nothing, and an interrupted one is simply started again. COMFYUI_PATH=/your/ComfyUI uses that checkout and
its Python environment instead (COMFYUI_PYTHON names the Python if it is not found); nothing is written there.
The tests were run with ComfyUI 0.3.75 and 0.33.0; older ones are refused.
"""

import sys

if not (3, 10) <= sys.version_info < (3, 15):
    sys.exit("dev.py: Python 3.10 to 3.14 is needed, this is " + sys.version.split()[0])

import argparse
import json
import random
import signal
import time
from pathlib import Path

from devtools.environment import (
    ROOT,
    WORK,
    add_demo_model,
    environment,
    has_module,
    module,
    prepare,
    script,
    their_models,
)
from devtools.processes import Stop, say
from devtools.server import free_port, has_device, require_free, running, server_command

# `python -m pytest` would put the root first on sys.path, and nodes/ would shadow the host's module `nodes`
PYTEST = ["-c", "import sys; sys.path[:] = filter(None, sys.path); import pytest; sys.exit(pytest.main())"]
# glibc hands big tensors back to the system and asks for them again: a fifth of the tests' time on a CPU
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}


def main(arguments):
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    command = COMMANDS.get(arguments[0] if arguments else "")
    if command is None:
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    try:
        return command(arguments[1:])
    except (Stop, OSError) as error:
        print(f"dev.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndev.py: interrupted", file=sys.stderr)
        return 130


def demo(arguments):
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--out", default="demo-output", type=lambda path: Path(path).absolute())
    options, rest = parser.parse_known_args(arguments)
    env = prepare()
    return module(env, "devtools.demo.run_demo", "--out", options.out, *rest)


def serve(arguments):
    parser = argparse.ArgumentParser(prog="dev.py serve", allow_abbrev=False)
    parser.add_argument("--port", type=int, default=8188)
    parser.add_argument("--listen", default="127.0.0.1", help="address to listen on (0.0.0.0: every one)")
    parser.add_argument("--cpu", action="store_true", help="leave the GPU alone")
    options, rest = parser.parse_known_args(arguments)
    env = prepare()
    require_free(options.port, options.listen)
    add_demo_model(env)
    cpu = options.cpu or not has_device(env)
    command = [*server_command(env, options.port, options.listen, cpu), *their_models(env), *rest]
    log = WORK / "server.log"
    say(f"starting ComfyUI on the {'CPU' if cpu else 'GPU'} (log: {log})")
    with running(command, env, options.port, log, options.listen) as (server, address):
        say(f"ComfyUI with Eta Inversion is at {address} (Ctrl-C ends it)")
        return server.wait()


def test(arguments):
    """Every test in two processes, each with its own host; the tests that arguments name, in one."""
    env = prepare()
    if not has_module(env.python, "pytest"):
        raise Stop(f"pytest is missing there: {env.python} -m pip install pytest")
    settings = dict(KEEP_MEMORY)
    if not arguments and has_module(env.python, "xdist"):
        arguments = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
        settings["OMP_NUM_THREADS"] = "1"
    return script(env, PYTEST + arguments, cwd=ROOT, **settings)


ATTACK = ["tests/attack", "tests/host/test_attack.py"]


def attack(arguments):
    """Round after round of the standing attack, each with a seed of its own, until the time is up."""
    parser = argparse.ArgumentParser(prog="dev.py attack", allow_abbrev=False)
    parser.add_argument("--minutes", type=float, default=10.0, help="no round begins later; default: 10")
    parser.add_argument("--seed", type=int, help="one round with this seed, as a broken one named it")
    options = parser.parse_args(arguments)
    env, until, tried = prepare(), time.monotonic() + 60 * options.minutes, 0
    while True:
        seed = random.randrange(2**32) if options.seed is None else options.seed
        say(f"attack with seed {seed}")
        settings = {**KEEP_MEMORY, "ETA_ATTACK_SEED": str(seed), "ETA_ATTACK_ROUNDS": "4"}
        status = script(
            env, [*PYTEST, *ATTACK, "-q", "-x", f"--hypothesis-seed={seed}"], cwd=ROOT, **settings
        )
        tried += 1
        if status:
            say(f"broken with seed {seed}: python dev.py attack --seed {seed} does it again")
            return status
        if options.seed is not None or time.monotonic() > until:
            say(f"{tried} rounds, nothing broke")
            return 0


def bench(arguments):
    return module(prepare(), "devtools.bench.run", *arguments)


def pilot(arguments):
    """With a server of our own, where the command needs one and names none."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("command", nargs="?")
    parser.add_argument("--server")
    parser.add_argument("--ray")
    parser.add_argument("-h", "--help", action="store_true")
    options, _ = parser.parse_known_args(arguments)
    env = prepare()
    if options.help or options.server or options.ray or options.command not in ("run", "pie"):
        return script(env, [ROOT / "pilot", *arguments])
    add_demo_model(env)
    port, log = free_port(), WORK / "pilot-server.log"
    say(f"starting ComfyUI (log: {log})")
    command = [*server_command(env, port, cpu=not has_device(env)), *their_models(env)]
    with running(command, env, port, log) as (_, address):
        waits = ("--patience", "30")  # nobody would start this server again
        return script(env, [ROOT / "pilot", options.command, *waits, *arguments[1:], "--server", address])


def show_environment(arguments):
    print(json.dumps({name: str(path) for name, path in environment()._asdict().items()}))
    return 0


def check(arguments):
    return module(prepare(), "devtools.check", *arguments)


COMMANDS = {
    "attack": attack,
    "demo": demo,
    "serve": serve,
    "test": test,
    "check": check,
    "bench": bench,
    "pilot": pilot,
    "env": show_environment,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
