"""A page of the browser, ready to be used."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

from .environment import ROOT

SCREENS = ROOT / ".host" / "screens"
# Read before the page opens: no tour, no shop of templates over it.
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Workflow.Persist": False, "Comfy.Minimap.Visible": False}
# The spinner turns until the page has its own workflow, which would replace one that was loaded before.
READY = (
    "window.app && app.extensionManager && !app.extensionManager.spinner "
    "&& Object.keys(LiteGraph.registered_node_types).length > 50"
)
# The page's own noise: it asks for things on the internet, for settings that are not there yet, and for
# routes of a newer host.
NOT_OURS = ("Failed to load resource", "Content Security Policy", "api.comfy.org", "JobsApiError")


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
    if settings:  # in force from the start: a new language loads the workflow again, some time later
        page.reload()
        page.wait_for_function(READY, timeout=120_000)
    page.wait_for_function("app.api.clientId")  # the host tells nobody of a run that is queued before
    settle(page)
    page.errors.clear()  # of the host's own start
    yield page
    page.close()


# What is drawn of the nodes and of the pack's own elements: places, sizes and texts.
LAYOUT = """() => JSON.stringify([
    app.graph.nodes.map(node => [node.id, ...node.pos, ...node.size]),
    [...document.querySelectorAll(
        '[data-node-id], .eta-curve, .eta-attention, .eta-compare, .eta-approve'
    )].map(element => {
        const { x, y, width, height } = element.getBoundingClientRect();
        return [x, y, width, height, element.textContent];
    }),
])"""
STILL_FRAMES, MOST_FRAMES = 12, 900


def settle(page) -> None:
    """Wait until the layout stays the same for STILL_FRAMES frames in a row. Fails if it never does."""
    still = page.evaluate(
        f"""async () => {{
            const look = {LAYOUT};
            let before = look(), still = 0;
            for (let frame = 0; frame < {MOST_FRAMES} && still < {STILL_FRAMES}; frame++) {{
                await new Promise(requestAnimationFrame);
                const now = look();
                still = now === before ? still + 1 : 0;
                before = now;
            }}
            return still;
        }}"""
    )
    assert still == STILL_FRAMES, f"the page still moves after {MOST_FRAMES} frames"


def show(page, name: str) -> None:
    """A screenshot for people."""
    SCREENS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENS / f"{name} ({getattr(page, 'name', 'classic nodes')}).png")
