"""What a person sees and does on the page."""

import json
import re
from urllib.parse import quote

import numpy as np
import pytest
import torch
from PIL import Image

from devtools.browser import ROOT, opened, settle, show
from eta_core import masks
from eta_core.eta import EtaSchedule, flow_gentle, flow_strong, parse_curve
from eta_core.schedule import ddim_grid

PACK = "eta-inversion"
FAMILIES = {  # template that needs files of its own -> the oldest tested host that has it
    "Edit with Flux 2 Klein": "0.33",
    "Edit with Qwen-Image": "0.3.75",
    "Edit with Z-Image Turbo": "0.3.75",
    "With SAM's mask": "0.33",
}
TEMPLATES = sorted(path.stem for path in (ROOT / "example_workflows").glob("*.json"))
SHIPPED = sorted(path.name for path in (ROOT / "web" / "pictures").glob("*.webp"))
MAIN = "Change one thing in a photo"
JUDGED = "Measure an edit and hold back what fails"  # a verdict that holds all back is an error on the page
NODES = json.loads((ROOT / "locales/en/nodeDefs.json").read_text(encoding="utf-8"))
JAPANESE = json.loads((ROOT / "locales/ja/nodeDefs.json").read_text(encoding="utf-8"))
RUN_MS = 600_000
TRACKER = "app.extensionManager.workflow.activeWorkflow.changeTracker"
ELEMENTS = {"EtaSchedule": ".eta-curve", "AttentionMask": ".eta-attention", "EtaCompare": ".eta-compare"}


@pytest.fixture(scope="module")
def base(base):
    """With very small networks under the names that the families' templates load."""
    (base / "custom_nodes" / "families").symlink_to(ROOT / "tests/web/families", target_is_directory=True)
    return base


def add(page, kind: str, x: int = 100, y: int = 100) -> None:
    """One node, in view, as `node` on the page."""
    page.evaluate(
        """([kind, x, y]) => {
            window.node = LiteGraph.createNode(kind); node.pos = [x, y]; app.graph.add(node);
            app.canvas.ds.scale = 1; app.canvas.ds.offset = [60, 60]; app.canvas.setDirty(true, true);
        }""",
        [kind, x, y],
    )
    if kind in ELEMENTS:
        page.locator(ELEMENTS[kind]).first.wait_for()
    settle(page)
    page.evaluate(f"{TRACKER}.checkState()")  # one step of undo of its own


def values(page) -> dict:
    return page.evaluate("Object.fromEntries(node.widgets.map(widget => [widget.name, widget.value]))")


def set_value(page, name: str, value) -> None:
    page.evaluate(
        "([name, value]) => { const w = node.widgets.find(w => w.name === name); w.value = value; "
        "w.callback?.(value) }",
        [name, value],
    )


def load(page, name: str, steps: int | None = None) -> dict:
    """A template as the page's browser of templates opens it, in view."""
    workflow = page.evaluate(
        "async path => (await fetch(path)).json()", f"/api/workflow_templates/{PACK}/{quote(name)}.json"
    )
    for node in workflow["nodes"]:
        if steps and node["type"] == "EtaInversion":
            node["widgets_values"][0] = steps
    page.evaluate("async workflow => { await app.loadGraphData(workflow) }", workflow)
    page.evaluate(
        "() => { app.canvas.ds.scale = 0.6; app.canvas.ds.offset = [200, 130]; app.canvas.setDirty(true, "
        "true) }"
    )
    settle(page)
    page.evaluate(f"{TRACKER}.checkState()")  # undo goes back to here
    return workflow


def run(page) -> None:
    """Queued from the page, to its end."""
    page.evaluate(
        """async () => {
            window.ended = null;
            const end = event => { window.ended = event.type + ' ' + JSON.stringify(event.detail) };
            for (const kind of ['execution_success', 'execution_error', 'execution_interrupted'])
                app.api.addEventListener(kind, end, { once: true });
            await app.queuePrompt(0, 1);
        }"""
    )
    asks = "document.querySelector('.eta-approve.eta-waits .eta-yes')"
    while page.wait_for_function(f"window.ended ?? Boolean({asks})", timeout=RUN_MS).json_value() is True:
        show(page, "asked")
        page.evaluate(f"{asks}.click()")
        page.wait_for_function(f"!{asks}")
    assert page.evaluate("window.ended").startswith("execution_success"), page.evaluate("window.ended")
    settle(page)


def covered(page) -> list[tuple[str, str]]:
    """Titles of nodes that lie over each other."""
    boxes = page.evaluate(
        "app.graph.nodes.map(n => [n.title, n.pos[0], n.pos[1] - 30, n.pos[0] + n.size[0], n.pos[1] + "
        "n.size[1]])"
    )
    return [
        (title, other)
        for i, (title, left, top, right, bottom) in enumerate(boxes)
        for other, left2, top2, right2, bottom2 in boxes[:i]
        if left2 < right and left < right2 and top2 + 1 < bottom and top + 1 < bottom2
    ]


def take(page, kind: str) -> None:
    """The first node of a kind as `node`."""
    page.evaluate("kind => { window.node = app.graph.nodes.find(node => node.comfyClass === kind) }", kind)


def prompt_of(page, kind: str) -> dict:
    """Inputs of the first node of a kind in the prompt that the page would queue."""
    graph = page.evaluate("async () => (await app.graphToPrompt()).output")
    return next(node["inputs"] for node in graph.values() if node["class_type"] == kind)


def test_every_node_is_there_by_its_name(classic):
    titles = classic.evaluate(
        "kinds => kinds.map(kind => LiteGraph.registered_node_types[kind]?.title)", list(NODES)
    )
    assert titles == [node["display_name"] for node in NODES.values()]


def test_the_search_shows_the_pack(page):
    page.evaluate("app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    field = page.locator(".comfy-vue-node-search-container input, input[placeholder='Add a node...']").first
    field.fill("Eta S")
    options = page.get_by_role("option")
    for name in ("Eta Sampler", "Eta Schedule"):
        options.filter(has_text=name).first.wait_for()
    offered = " ".join(options.all_inner_texts())
    show(page, "search")
    page.keyboard.press("Escape")
    assert "Eta Sampler" in offered and "Eta Schedule" in offered


def need_family(page, name: str) -> None:
    """Skips where the host is older than a template's family. The template's note must name the host."""
    oldest = FAMILIES.get(name, "0.3.75")
    stats = page.evaluate("async () => (await fetch('/system_stats')).json()")
    version = stats["system"]["comfyui_version"]
    if [int(part) for part in version.split(".")] < [int(part) for part in oldest.split(".")]:
        text = (ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8")
        (note,) = (node for node in json.loads(text)["nodes"] if node["type"] == "MarkdownNote")
        assert f"ComfyUI {oldest} or newer" in note["widgets_values"][0]
        pytest.skip(f"{name} needs ComfyUI {oldest}, and says so; this is {version}")


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_loads_whole_and_is_the_same_when_saved_and_loaded_again(page, name):
    need_family(page, name)
    workflow = load(page, name)
    if name == MAIN:
        show(page, "template")
    assert not covered(page)
    assert not page.evaluate(
        "app.graph.nodes.filter(n => n.has_errors || !LiteGraph.registered_node_types[n.type]).map(n => "
        "n.type)"
    )
    saved, graph, again, graph_again = page.evaluate(
        """async () => {
            const text = () => JSON.stringify(app.graph.serialize());
            const prompt = async () => (await app.graphToPrompt()).output;
            const [saved, graph] = [text(), await prompt()];
            await app.loadGraphData(JSON.parse(saved));
            return [JSON.parse(saved), graph, JSON.parse(text()), await prompt()];
        }"""
    )
    assert len(graph) == len([node for node in workflow["nodes"] if node["type"] != "MarkdownNote"])
    assert graph_again == graph and again["links"] == saved["links"]
    kept, before, after = (
        {n["id"]: n.get("widgets_values") for n in each["nodes"]} for each in (workflow, saved, again)
    )
    assert before == after
    for node_id, given in kept.items():
        assert not given or before[node_id][: len(given)] == given


# The part as small as the pictures here (EtaCrop would enlarge it to what a real model likes), few steps and
# trials: what an edit shows is looked at in tests/host/test_workflow.py.
QUICKER = """for (const [kind, name, value] of [
    ['EtaCrop', 'megapixels', 0.01], ['EtaInversion', 'steps', 6], ['EtaTune', 'trials', 4],
])
    for (const node of app.graph.nodes.filter(node => node.comfyClass === kind))
        node.widgets.find(widget => widget.name === name).value = value;"""


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_runs_as_it_is_loaded_and_no_node_covers_another_then(classic, vue, name, request):
    """For the second kind of nodes the server has kept what the first made, unless their prompts differ."""
    need_family(classic, name)
    if name == JUDGED:
        request.getfixturevalue("whole_pictures")
    for page in (classic, vue):
        load(page, name)
        page.evaluate(QUICKER)
        run(page)
        show(page, name)
        assert not covered(page)


# -- the curve


def point(page, i: int) -> tuple[float, float]:
    box = page.locator(".eta-curve circle").nth(i).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_dragged_point_arrives_in_the_prompt_and_can_be_undone(page):
    add(page, "EtaSchedule")
    before = values(page)
    x, y = point(page, 0)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 30, y - 20, steps=4)
    page.mouse.move(x - 60, y - 40, steps=4)
    page.mouse.up()
    settle(page)
    show(page, "curve")
    after = values(page)
    assert after["preset"] == "custom" and after["power"] == 1
    (t1, eta1), (t2, eta2) = parse_curve(after["curve"])
    assert 0.7 < t1 < 0.95 and 0.2 < eta1 < 0.6 and (t2, eta2) == (1.0, 0.7)
    assert prompt_of(page, "EtaSchedule") == {name: after[name] for name in NODES["EtaSchedule"]["inputs"]}
    page.keyboard.press("Control+z")
    page.wait_for_function(
        "preset => app.graph.nodes.find(n => n.comfyClass === 'EtaSchedule')?.widgets[0].value === preset",
        arg=before["preset"],
    )
    take(page, "EtaSchedule")
    assert values(page) == before


def test_a_node_removed_while_its_point_is_held_leaves_the_pages_undo_at_work(page):
    add(page, "EtaSchedule")
    page.mouse.move(*point(page, 0))
    page.mouse.down()
    page.mouse.move(300, 300, steps=3)
    page.evaluate("app.graph.remove(node)")
    page.mouse.up()
    assert page.evaluate("app.extensionManager.workflow.activeWorkflow.changeTracker.changeCount") == 0


def listed(page) -> list[str]:
    return page.evaluate(
        "async () => (await (await app.api.fetchApi('/object_info/LoadImage')).json())"
        ".LoadImage.input.required.image[0]"
    )


def test_a_photograph_that_a_template_names_is_brought_when_it_is_opened(page, base):
    """Nothing is written before; what is there is left as it is."""
    kept = {name: (base / "input" / name).read_bytes() for name in SHIPPED}
    page.evaluate("app.graph.clear()")
    for name in SHIPPED:
        (base / "input" / name).unlink()
    try:
        load(page, "Gallery of variants")
        assert [name for name in listed(page) if name in SHIPPED] == ["eta_cat.webp"]
        (base / "input" / "eta_cat.webp").write_bytes(kept["eta_cat.webp"])
        load(page, "A batch of pictures")
        load(page, "Only inside my mask")
        take(page, "LoadImage")
        assert values(page)["image"] == "eta_coffee_masked.webp"
        assert "eta_coffee_masked.webp" in page.evaluate("node.widgets[0].options.values")
        for name in ("eta_coffee.webp", "eta_coffee_masked.webp"):
            shipped = ROOT / "web" / "pictures" / name
            assert (base / "input" / name).read_bytes() == shipped.read_bytes()
        assert (base / "input" / "eta_cat.webp").read_bytes() == kept["eta_cat.webp"]
    finally:
        for name, content in kept.items():
            (base / "input" / name).write_bytes(content)


def test_the_points_of_linear_stay_in_its_own_fields(page):
    add(page, "EtaSchedule")
    set_value(page, "preset", "linear")
    x, y = point(page, 1)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y - 30, steps=4)
    page.mouse.up()
    settle(page)
    after = values(page)
    assert (after["preset"], after["curve"], after["end_t"]) == ("linear", "", 1) and after["end_eta"] > 0.5


def test_the_curve_by_keys_and_double_click(page):
    add(page, "EtaSchedule")
    set_value(page, "preset", "custom")
    set_value(page, "curve", "0.2:0.1, 0.8:0.5")
    page.locator(".eta-curve circle").nth(1).focus()
    for key in ("ArrowUp", "ArrowUp", "Shift+ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    assert values(page)["curve"] == "0.2:0.1, 0.71:0.52"
    assert "0.71" in page.locator(".eta-curve .readout").text_content()
    (x1, y1), (x2, y2) = point(page, 0), point(page, 1)
    page.mouse.dblclick((x1 + x2) / 2, (y1 + y2) / 2 - 15)
    settle(page)
    assert len(parse_curve(values(page)["curve"])) == 3
    page.locator(".eta-curve circle").nth(1).focus()
    page.keyboard.press("Delete")
    assert values(page)["curve"] == "0.2:0.1, 0.71:0.52"


@pytest.mark.parametrize(
    "curve, index", [("0.5:0.1, 0.505:0.2, 0.51:0.3", 1), ("0:0, 0.004:0.5, 1:0.123", 0)]
)
def test_a_point_with_no_room_moves_in_eta_alone_and_leaves_the_others_as_they_were(page, curve, index):
    add(page, "EtaSchedule")
    set_value(page, "preset", "custom")
    set_value(page, "curve", curve)
    page.locator(".eta-curve circle").nth(index).focus()
    for key in ("Shift+ArrowUp", "ArrowLeft", "ArrowRight"):
        page.keyboard.press(key)
    before, after = parse_curve(curve), parse_curve(values(page)["curve"])
    assert EtaSchedule(after)
    assert after[index] == (before[index][0], pytest.approx(before[index][1] + 0.1))
    assert after[:index] + after[index + 1 :] == before[:index] + before[index + 1 :]


def test_a_field_changed_by_hand_moves_the_curve(page):
    add(page, "EtaSchedule")
    set_value(page, "preset", "constant")
    set_value(page, "end_eta", 0.9)
    assert page.locator(".eta-curve circle").nth(0).get_attribute("aria-label") == "t 1, eta 0.9"
    set_value(page, "preset", "custom")
    set_value(page, "curve", "nonsense")
    assert page.locator(".eta-curve circle").count() == 0 and page.locator(".eta-curve .problem").count() == 1


CURVES = [
    {"preset": "paper_strong"},
    {"preset": "paper_gentle"},
    {"preset": "flow_strong"},
    {"preset": "flow_gentle"},
    {"preset": "constant", "end_eta": 0.3},
    {"preset": "linear", "start_t": 0.2, "start_eta": 0.1, "end_t": 0.9, "end_eta": 0.6},
    {"preset": "cosine", "start_t": 0.2, "start_eta": 0.1, "end_t": 0.9, "end_eta": 0.6},
    {"preset": "custom", "curve": "0.1:0.3; 0.5:0, 0.75:1", "power": 2.5},
    {"preset": "custom", "start_t": 0.5, "end_eta": 0.8, "power": 0.3},
]


def test_the_page_draws_the_nodes_own_curve(classic):
    """Against the schedules of Python, on the same fields; and the paper's grid of times."""
    fields = {
        "preset": "linear",
        "start_t": 0.0,
        "start_eta": 0.0,
        "end_t": 1.0,
        "end_eta": 0.4,
        "power": 1.0,
        "curve": "",
    }
    module = f"/extensions/{PACK}/js/shared/eta_curve.js"
    times = [i / 40 for i in range(41)]
    for changes in CURVES:
        all_fields = fields | changes
        drawn = classic.evaluate(
            "async ([module, fields, times]) => { const m = await import(module); const c = "
            "m.curveOf(fields); return times.map(t => m.etaAt(c, t)) }",
            [module, all_fields, times],
        )
        assert drawn == pytest.approx([schedule(**all_fields)(t) for t in times], abs=1e-9), changes
    for steps in (1, 7, 50, 999):
        drawn = classic.evaluate(
            "async ([module, n]) => (await import(module)).stepTimes(n)", [module, steps]
        )
        assert drawn == pytest.approx(list(ddim_grid(steps, [1.0 + i for i in range(1000)]).times[:0:-1]))


def schedule(preset, start_t, start_eta, end_t, end_eta, power, curve) -> EtaSchedule:
    ends = ((start_t, start_eta), (end_t, end_eta))
    return {
        "paper_strong": EtaSchedule(((0.6, 0.0), (1.0, 0.7))),
        "paper_gentle": EtaSchedule(((0.3, 0.0), (1.0, 0.2))),
        "flow_strong": flow_strong(),
        "flow_gentle": flow_gentle(),
        "constant": EtaSchedule((ends[1],)),
        "linear": EtaSchedule(ends),
        "cosine": EtaSchedule(ends, shape="cosine"),
        "custom": EtaSchedule(parse_curve(curve) if curve else ends, power),
    }[preset]


# -- words and masks


REGIONS = [
    dict(threshold=0.4, grow=0, blur=0.0, invert=False),
    dict(threshold=0.4, grow=5, blur=0.0, invert=False),
    dict(threshold=0.6, grow=-2, blur=1.5, invert=True),
    dict(threshold=0.0, grow=3, blur=2.0, invert=False),
    dict(threshold=0.9, auto_threshold=True, grow=2, blur=0.0, invert=False),
]


@pytest.mark.parametrize("combine", masks.COMBINE)
def test_the_page_makes_the_nodes_own_region(classic, combine):
    """Grow, blur, invert and combine of eta_core.masks, on the same numbers."""
    random = np.random.default_rng(3)
    maps, mask = random.random((2, 6, 9)), random.random((48, 72))
    soft = masks.join_phrases([torch.from_numpy(each)[None] for each in maps], [1.0, 0.5])
    planes = [{"width": 9, "height": 6, "values": each.ravel().tolist()} for each in maps]
    for settings in REGIONS:
        level = masks.otsu(soft) if settings.get("auto_threshold") else settings["threshold"]
        whole = masks.enlarge(masks.threshold(soft, level), (48, 72), hard=level > 0)
        wanted = masks.blur(masks.dilate(whole, settings["grow"]), settings["blur"])
        wanted = masks.combine(
            1 - wanted if settings["invert"] else wanted, torch.from_numpy(mask)[None], combine
        )
        drawn = classic.evaluate(
            """async ([module, planes, settings, mask]) => {
                const m = await import(module);
                const floats = (values) => Float32Array.from(values);
                const plane = ({ width, height, values }) => ({ width, height, values: floats(values) });
                const maps = new Map(planes.map((each, i) => ['ab'[i], plane(each)]));
                const soft = m.join(maps, m.parsePhrases('a, (b:0.5)'));
                const size = { width: 72, height: 48 };
                const drawn = { ...size, scale: 1, mask: plane({ ...size, values: mask }) };
                return [...m.regionOf(soft, settings, drawn).values];
            }""",
            [
                f"/extensions/{PACK}/js/shared/region.js",
                planes,
                settings | {"combine": combine},
                mask.ravel().tolist(),
            ],
        )
        assert np.abs(np.array(drawn).reshape(48, 72) - wanted[0].numpy()).max() < 1e-5, settings


def test_words_are_offered_before_the_first_run_and_clicked_into_the_field(page):
    load(page, "Two edits at once")
    take(page, "AttentionMask")
    chips = page.locator(".eta-chips button")
    assert chips.all_inner_texts() == ["a", "photo", "of", "cat"]
    assert chips.nth(3).get_attribute("aria-pressed") == "true"
    chips.nth(1).click()
    assert values(page)["words"] == "cat, photo"
    chips.nth(3).click()
    assert values(page)["words"] == "photo"
    chips.nth(0).click()
    chips.nth(1).click(modifiers=["Shift"])
    assert values(page)["words"] == "photo, a photo"
    assert prompt_of(page, "AttentionMask")["words"] == "photo, a photo"


def test_a_workflow_is_run_from_the_page_and_its_previews_are_live(page, address):
    load(page, "Two edits at once", steps=4)
    take(page, "AttentionMask")
    set_value(page, "refine", False)  # in pictures this small nothing of the refined map is above 0.8
    page.evaluate(
        """() => {
            const preview = LiteGraph.createNode('MaskPreview');
            preview.pos = [node.pos[0], 2000];
            app.graph.add(preview);
            node.connect(0, preview, 0);
        }"""
    )
    run(page)
    line = page.locator(".eta-attention .eta-line")
    previewed = "document.querySelector('.eta-attention .eta-line').textContent.includes('%')"
    page.wait_for_function(previewed, timeout=10_000)
    show(page, "run")

    def covered() -> float:
        return float(re.search(r"([\d.]+) %", line.text_content())[1])

    mask = page.evaluate(
        """async () => {
            const node = app.graph.nodes.find(node => node.type === 'MaskPreview');
            const images = app.nodeOutputs[node.id].images;
            const canvas = document.createElement('canvas'); const image = new Image();
            image.src = '/view?' + new URLSearchParams(images[0]); await image.decode();
            canvas.width = image.width; canvas.height = image.height;
            const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);
            const data = context.getImageData(0, 0, image.width, image.height).data;
            const total = data.filter((_, i) => i % 4 === 0).reduce((sum, value) => sum + value, 0);
            return total / 255 / image.width / image.height;
        }"""
    )
    first = covered()
    assert 2 < first < 98 and first == pytest.approx(100 * mask, abs=0.5)  # the server's own mask
    queued = page.evaluate(
        "async () => (await fetch('/history')).json().then(all => Object.keys(all).length)"
    )
    set_value(page, "threshold", 0.8)
    settle(page)
    smaller = covered()
    set_value(page, "grow", 24)
    settle(page)
    assert smaller < first and smaller < covered()
    page.locator(".eta-chips button").nth(1).click()
    settle(page)
    assert "%" in line.text_content() and values(page)["words"] == "cat, photo"
    assert (
        page.evaluate("async () => (await fetch('/history')).json().then(all => Object.keys(all).length)")
        == queued
    )

    show_again(page)
    page.wait_for_function(previewed, timeout=10_000)
    assert page.locator(".eta-frame").is_visible()
    page.evaluate("app.graph.getNodeById(4).widgets[0].value = 'a dog, under the moon'")
    take(page, "AttentionMask")
    page.evaluate("node.onConnectionsChange()")
    settle(page)
    assert page.locator(".eta-chips button").all_inner_texts() == ["a", "dog", "under", "the", "moon"]
    smallest = covered()
    set_value(page, "threshold", 0.99)
    settle(page)
    assert covered() < smallest
    connect_number(page, "AttentionMask", "threshold")  # its own field no longer counts, the run's value does
    settle(page)
    assert covered() > smallest


def test_what_comes_before_the_answer_to_the_request_is_shown_again_too(page):
    def late(route):
        answer = route.fetch()
        page.wait_for_function(
            "window.ended", timeout=RUN_MS
        )  # every event of the run comes before the answer
        route.fulfill(response=answer)

    load(page, MAIN, steps=4)
    run(page)  # so that all of it is in the server's cache
    load(page, MAIN, steps=4)
    page.route("**/api/prompt", late)
    run(page)
    page.unroute("**/api/prompt")
    take(page, "AttentionMask")
    set_value(page, "threshold", 0.8)
    show_again(page)
    page.wait_for_function(
        "document.querySelector('.eta-attention .eta-line').textContent.includes('%')", timeout=10_000
    )
    load(page, MAIN)
    assert "run once" in page.locator(".eta-attention .eta-line").text_content()  # another workflow's nodes


def test_words_that_come_by_a_link_are_shown_as_the_run_used_them(page):
    load(page, MAIN, steps=4)
    run(page)
    page.wait_for_function(
        "document.querySelector('.eta-attention .eta-line').textContent.includes('%')", timeout=10_000
    )
    pressed = page.locator(".eta-chips button[aria-pressed='true']")
    assert pressed.all_inner_texts() == ["cat"] and pressed.first.is_disabled()


def show_again(page) -> None:
    """The nodes made anew, as undo and redo do."""
    page.evaluate(f"async () => {{ {TRACKER}.checkState(); await {TRACKER}.undo(); await {TRACKER}.redo() }}")


def connect_number(page, kind: str, name: str) -> None:
    """A field that comes by a link."""
    page.evaluate(
        """([kind, name]) => {
            const node = app.graph.nodes.find(node => node.comfyClass === kind);
            const number = LiteGraph.createNode('PrimitiveFloat');
            app.graph.add(number);
            number.connect(0, node, node.inputs.findIndex(input => input.name === name));
        }""",
        [kind, name],
    )
    settle(page)


def test_a_curve_whose_fields_come_by_a_link_is_not_drawn(page):
    add(page, "EtaSchedule")
    connect_number(page, "EtaSchedule", "end_eta")
    assert "end_eta" in page.locator(".eta-curve .problem").text_content()
    assert page.locator(".eta-curve circle").count() == 0


def test_a_mask_put_into_a_subgraph_reports_no_error(page):
    load(page, MAIN)
    page.evaluate(
        "app.canvas.graph.convertToSubgraph(new Set(app.graph.nodes.filter(n => n.comfyClass === "
        "'AttentionMask')))"
    )
    settle(page)


def test_the_steps_that_were_taken_are_drawn_on_the_curve(page):
    # what the server keeps from a run is not sent again
    steps = {"classic nodes": 6, "Nodes 2.0": 7}[page.name]
    load(page, MAIN, steps)
    take(page, "EtaInversion")
    set_value(page, "scheduler", "karras")
    take(page, "EtaSchedule")
    set_value(page, "preset", "paper_strong")
    take(page, "EtaSampler")
    set_value(page, "start", 1.0)
    run(page)
    taken = page.evaluate("app.nodeOutputs[app.graph.nodes.find(n => n.type === 'EtaSampler').id].eta_taken")
    assert len(taken) == steps and taken[-1][1] == 0
    assert page.locator(".eta-curve .step").count() == sum(eta > 0 for _, eta in taken)
    left, right = (float(page.locator(".eta-curve .step").nth(i).get_attribute("x1")) for i in (0, 1))
    ends = [float(page.locator(".eta-curve .grid").first.get_attribute(name)) for name in ("x1", "x2")]
    place = [ends[0] + (1 - time) * (ends[1] - ends[0]) for time, _ in taken]
    assert (left, right) == pytest.approx(place[:2])


def test_before_and_after_are_compared(page, base):
    with Image.open(base / "input" / "eta_cat.webp") as picture:
        side = picture.width
    load(page, MAIN, steps=4)
    take(page, "EtaCompare")
    page.evaluate(
        "() => { app.canvas.ds.offset = [300 - node.pos[0], 150 - node.pos[1]]; app.canvas.ds.scale = 1; "
        "app.canvas.setDirty(true, true) }"
    )
    run(page)
    page.wait_for_function(
        f"document.querySelector('.eta-frame img')?.naturalWidth === {side}", timeout=10_000
    )
    tabs = page.locator(".eta-tabs button")
    assert tabs.all_inner_texts() == ["Before / after", "Difference", "Reconstruction", "Eta"]
    over = page.locator(".eta-frame img").nth(1)
    slider = page.locator(".eta-below input")
    slider.fill("20")
    narrow = over.evaluate("image => image.style.clipPath")
    slider.fill("80")
    assert narrow != over.evaluate("image => image.style.clipPath")
    show(page, "compare")
    for i, width in ((1, side), (2, side), (3, 512)):
        tabs.nth(i).click()
        page.wait_for_function(
            f"document.querySelector('.eta-frame img').naturalWidth === {width}", timeout=5_000
        )
        show(page, f"compare {i}")
        assert not over.is_visible() and not slider.is_visible()


def test_a_warning_is_a_toast_and_reaches_no_other_page(page):
    page.evaluate(
        """() => {
            window.elsewhere = [];
            const other = new WebSocket(`ws://${location.host}/ws?clientId=another`);
            const kind = (data) => typeof data === 'string' ? JSON.parse(data).type : 'bytes';
            other.onmessage = ({ data }) => elsewhere.push(kind(data));
        }"""
    )
    page.wait_for_function("elsewhere.length", timeout=5_000)
    load(page, MAIN, steps=4)
    take(page, "AttentionMask")
    set_value(page, "grow", {"classic nodes": -256, "Nodes 2.0": -255}[page.name])
    run(page)
    toast = page.locator(".p-toast-message, li[role=alert]", has_text="the mask is empty")
    toast.first.wait_for(timeout=10_000)
    show(page, "toast")
    assert "Attention Mask" in toast.first.inner_text()
    assert set(page.evaluate("elsewhere")) <= {"status", "feature_flags"}


def wait_for_title(page, kind: str, names: dict) -> None:
    """Until new nodes of a kind bear the title that a language gives them."""
    page.wait_for_function(
        "([kind, title]) => LiteGraph.createNode(kind).title === title",
        arg=[kind, names[kind]["display_name"]],
    )


def test_the_page_speaks_japanese(page):
    page.evaluate("app.extensionManager.setting.set('Comfy.Locale', 'ja')")
    try:
        wait_for_title(page, "EtaSchedule", JAPANESE)
        add(page, "EtaSchedule")
        assert page.evaluate("node.title") == JAPANESE["EtaSchedule"]["display_name"]
        assert "ノイズ" in page.locator(".eta-curve").inner_text()
        show(page, "japanese")
    finally:
        page.evaluate("app.extensionManager.setting.set('Comfy.Locale', 'en')")
        wait_for_title(page, "EtaSchedule", NODES)


def test_every_language_of_the_widgets_says_the_same_things(classic):
    keys = classic.evaluate(f"async () => (await import('/extensions/{PACK}/js/shared/words.js')).KEYS")
    assert set(keys) == {"en", "ja"} and all(each == keys["en"] for each in keys.values())


def test_a_page_opened_in_japanese_has_the_packs_words(browser, address):
    with opened(browser, address, Comfy_Locale="ja") as page:
        wait_for_title(page, "EtaSampler", JAPANESE)
        with page.expect_response("**/settings/Comfy.Locale"):
            page.evaluate("app.extensionManager.setting.set('Comfy.Locale', 'en')")
        settle(page)
        assert not [text for text in page.errors if "eta-inversion" in text]


def test_a_removed_node_leaves_nothing_behind(page):
    for kind in ("EtaSchedule", "AttentionMask", "EtaCompare"):
        add(page, kind)
        page.evaluate("app.graph.remove(node)")
    settle(page)
    assert page.locator(".eta-curve, .eta-attention, .eta-compare").count() == 0
