"""The real page in a headless Chromium, served by the real server of its own process.

Chromium: the one CHROMIUM names, else the system's. Without it these tests are skipped, and say so.
Server and pages end with their module: an open page draws all the time, which costs the tests beside it.
Screenshots go to .host/screens, to be looked at. ETA_FRONT_END: the `static` folder of another
comfyui-frontend-package than the host's own.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from devtools.browser import NOT_OURS, make_base, opened
from devtools.demo.prepare import prepare, put_pictures
from devtools.environment import environment
from devtools.server import free_port, running, server_command

EMPTY = {"last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "groups": [], "version": 0.4}
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def chromium() -> str:
    pytest.importorskip("playwright", reason="playwright is not installed: the page is not tested")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip("no Chromium found (apt install chromium, or set CHROMIUM): the page is not tested")
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """The server's base directory, with small pictures in place of the photographs: whole runs are quick."""
    base = tmp_path_factory.mktemp("web")
    make_base(base)
    prepare(base)
    shrink_pictures(base)
    return base


def shrink_pictures(base: Path) -> None:
    for path in (base / "input").glob("*.webp"):
        with Image.open(path) as picture:
            picture.resize((64, 64)).save(path, lossless=True, exact=True)


@pytest.fixture
def whole_pictures(base):
    """Pictures of the size that the embedded model knows: edits of smaller ones are bad."""
    put_pictures(base)
    yield
    shrink_pictures(base)


@pytest.fixture(scope="module")
def address(chromium, base) -> str:
    env, port = environment()._replace(base=base), free_port()
    command = server_command(env, port)
    if front_end := os.environ.get("ETA_FRONT_END"):
        command += ["--front-end-root", front_end]
    with running(command, env, port, base / "server.log") as (_, address):
        yield address


@pytest.fixture(scope="module")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def classic(browser, address):
    with opened(browser, address, Comfy_VueNodes_Enabled=False) as page:
        page.name = "classic nodes"
        yield page


@pytest.fixture(scope="module")
def vue(browser, address):
    with opened(browser, address, Comfy_VueNodes_Enabled=True) as page:
        page.name = "Nodes 2.0"
        yield page


@pytest.fixture(params=["classic", "vue"])
def page(request):
    """The page with an empty graph, with the host's two kinds of nodes; a test fails with what the page
    reports.
    """
    shared = request.getfixturevalue(request.param)
    shared.evaluate("async empty => { await app.loadGraphData(empty) }", EMPTY)
    shared.errors.clear()
    yield shared
    assert not [text for text in shared.errors if not any(part in text for part in NOT_OURS)]
