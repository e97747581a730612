"""Script planted wherever a text, a file's name or a file's entry reaches the page: it is shown, never
run.
"""

import json

from devtools.browser import settle
from pilot import report
from tests.host.test_inversion_file import forged, parts
from tests.pilot.test_report import row
from tests.pilot.test_report import run as run_json
from tests.web.test_page import run

SCRIPT = "<img src=x onerror='window.PLANTED=1'>"
NAME = "eta/<img src=x onerror=window.PLANTED=1>"


def graph(inversion: dict) -> dict:
    """API graph in which every text of a node holds the script."""
    model = "eta_demo.safetensors"
    return {
        "1": ("CheckpointLoaderSimple", dict(ckpt_name=model)),
        "2": ("LoadImage", dict(image="eta_demo_cat.png")),
        "3": ("VAEEncode", dict(pixels=["2", 0], vae=["1", 2])),
        "4": (
            "EtaPromptPair",
            dict(
                clip=["1", 1], source_prompt=f"a cat {SCRIPT}", target_prompt=f"a dog {SCRIPT} on it {SCRIPT}"
            ),
        ),
        "5": (
            "EtaInversion",
            dict(
                model=["1", 0], positive=["4", 0], latent_image=["3", 0], steps=2, cfg=1.0, scheduler="normal"
            ),
        ),
        "6": ("EtaPromptPair", dict(clip=["1", 1], source_prompt=f"the cat {SCRIPT}", target_prompt="a cat")),
        "7": (
            "AttentionMask",
            dict(
                inversion=["5", 0],
                clip=["1", 1],
                words="cat",
                threshold=0.1,
                grow=0,
                blur=0.0,
                invert=True,
                source_prompt=["6", 4],
            ),
        ),
        "8": (
            "EtaSchedule",
            dict(preset="custom", start_t=0.0, start_eta=0.0, end_t=1.0, end_eta=0.4, power=1.0, curve=""),
        ),
        "9": (
            "EtaSampler",
            dict(
                model=["1", 0],
                inversion=inversion,
                eta=["8", 0],
                positive=["4", 1],
                negative=["6", 1],
                cfg=2.0,
                seed=1,
                noise_candidates=1,
                noise_blend=0.0,
                mask=["7", 0],
            ),
        ),
        "10": ("VAEDecode", dict(samples=["9", 0], vae=["1", 2])),
        "11": (
            "EtaMetrics",
            dict(source=["2", 0], edited=["10", 0], source_prompt=SCRIPT, target_prompt=SCRIPT),
        ),
        "12": (
            "EtaVerdict",
            dict(
                figures=["11", 0],
                policy="custom",
                let_through="everything",
                image=["10", 0],
                custom_policy=json.dumps({"background_psnr": {"pass": {"min": 99}}}),
            ),
        ),
        "13": ("EtaCompare", dict(before=["2", 0], after=["10", 0], gain=4.0)),
        "14": ("EtaSaveInversion", dict(inversion=["5", 0], filename_prefix=NAME)),
        "15": ("SaveImage", dict(images=["10", 0], filename_prefix="planted")),
    }


def queue(page, nodes: dict) -> None:
    given = {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}
    page.evaluate("given => app.loadApiJson(given, 'planted')", given)
    settle(page)
    run(page)


def test_a_planted_script_is_shown_and_never_run(page, base):
    queue(page, graph(["5", 0]))
    saved = max((base / "output/eta").glob("*.eta.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    about, tensors = parts(saved)
    about["signature"]["weights"] = about["signature"]["LoRA patches"] = SCRIPT
    hostile = forged(saved.with_name(f"hostile{saved.name}"), about, tensors)
    loaded = dict(file=f"eta/{hostile.name} [output]")
    queue(page, graph(["16", 0]) | {"16": ("EtaLoadInversion", loaded)})
    shown = page.evaluate("document.body.innerText")
    assert shown.count("<img src=x onerror") >= 2, "the texts are not on the page: the test sees nothing"
    assert page.evaluate("window.PLANTED") is None
    assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0


def test_the_pilots_page_shows_it_too(browser, tmp_path):
    said = dict.fromkeys(("name", "category", "source_prompt", "target_prompt", "words"), SCRIPT)
    rows = [
        row("a", **said, reasons=[SCRIPT], not_measured={SCRIPT: SCRIPT}, files={"source": SCRIPT}),
        row("b"),
    ]
    rows[0]["figures"] = [{"background_psnr": 1.0, SCRIPT: 2.0}]
    about = run_json(workflow=SCRIPT, policy=SCRIPT, set=[SCRIPT], **{SCRIPT: SCRIPT}) | {
        "items": SCRIPT,
        "nodes": {SCRIPT: {SCRIPT: SCRIPT}},
        "models": {SCRIPT: {}},
        "server": {SCRIPT: SCRIPT},
    }
    path = tmp_path / "report.html"
    path.write_text(report.page_of(tmp_path, about, rows), encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.evaluate("document.body.textContent").count("<img src=x onerror") >= 10
    assert page.evaluate("window.PLANTED") is None and page.locator("img[src=x]").count() == 0
    page.close()
