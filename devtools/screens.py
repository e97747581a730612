"""The pictures of the help pages that show a node as the page draws it: python -m devtools.screens CHROMIUM

CHROMIUM is a browser's path. Writes below web/docs; the main example workflow is run in its 50 steps for it.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from .browser import make_base, opened
from .demo.prepare import prepare
from .demo.run_demo import WORKFLOW
from .environment import ROOT, environment
from .server import free_port, running, server_command

DOCS = ROOT / "web" / "docs"
SCREENS = {
    "AttentionMask": "AttentionMask/words.jpg",
    "EtaSchedule": "EtaSchedule/editor.png",
    "EtaCompare": "EtaCompare/slider.jpg",
}
FINISHED = "window.ended"
WIDTH, SCALE = 420, 1.5


def main(chromium: str) -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        base = Path(folder)
        make_base(base)
        prepare(base)
        env, port = environment()._replace(base=base), free_port()
        command = server_command(env, port)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        with (
            running(command, env, port, base / "server.log") as (_, address),
            opened(browser, address, Comfy_NodeBadge_NodeSourceBadgeMode="None") as page,
        ):
            page.evaluate(
                "workflow => app.loadGraphData(workflow)", json.loads(WORKFLOW.read_text(encoding="utf-8"))
            )
            page.evaluate("app.api.addEventListener('execution_success', () => { window.ended = true })")
            page.evaluate("app.queuePrompt(0, 1)")
            page.wait_for_function(FINISHED, timeout=600_000)
            for kind, name in SCREENS.items():
                picture = node_picture(page, kind)
                if name.endswith("png"):
                    picture.quantize(96).save(DOCS / name, optimize=True)
                else:
                    picture.save(DOCS / name, quality=84, optimize=True)
                print(DOCS / name, picture.size, (DOCS / name).stat().st_size)


def node_picture(page, kind: str) -> Image.Image:
    """One node, in the middle of the page."""
    box = page.evaluate(
        """([kind, scale]) => {
            const { ds } = app.canvas, node = app.graph.nodes.find(node => node.comfyClass === kind);
            ds.scale = scale;
            ds.offset = [120 - node.pos[0], 120 - node.pos[1]];
            app.canvas.setDirty(true, true);
            return [120 * scale, 90 * scale, node.size[0] * scale, (node.size[1] + 30) * scale];
        }""",
        [kind, SCALE],
    )
    page.wait_for_timeout(1500)
    left, top = page.evaluate("(({ left, top }) => [left, top])(app.canvas.canvas.getBoundingClientRect())")
    clip = {"x": left + box[0], "y": top + box[1], "width": box[2], "height": box[3]}
    picture = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
    return picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.LANCZOS)


if __name__ == "__main__":
    main(sys.argv[1])
