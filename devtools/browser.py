"""A page of the browser, ready to be used."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

from .environment import ROOT

SCREENS = ROOT / ".host" / "screens"
# Read before the page opens: no tour, no shop of templates over it.
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Workflow.Persist": False, "Comfy.Minimap.Visible": False}
READY = "window.app && app.extensionManager && Object.keys(LiteGraph.registered_node_types).length > 50"
# The page's own noise: it asks for things on the internet, and for settings that are not there yet.
NOT_OURS = ("Failed to load resource", "Content Security Policy", "api.comfy.org")


def make_base(base: Path) -> None:
    """The host's base directory with the pack, and the settings of a page that has been seen before."""
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "eta-inversion").symlink_to(ROOT, target_is_directory=True)
    user = base / "user" / "default"
    user.mkdir(parents=True)
    (user / "comfy.settings.json").write_text(json.dumps(SETTINGS))


@contextmanager
def opened(browser, address, **settings):
    """A page that is ready; the errors it has reported are in page.errors."""
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
    page.goto(address)
    page.wait_for_function(READY, timeout=120_000)
    for name, value in settings.items():
        page.evaluate(
            "([name, value]) => app.extensionManager.setting.set(name, value)",
            [name.replace("_", "."), value],
        )
    page.wait_for_timeout(500)
    page.errors.clear()  # of the host's own start
    yield page
    page.close()


def show(page, name: str) -> None:
    """A screenshot for people."""
    SCREENS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENS / f"{name} ({getattr(page, 'name', 'classic nodes')}).png")
