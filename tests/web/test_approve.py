"""EtaApprove on the page: approved, picked, redrawn, rejected, cancelled, timed out, asked again."""

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from devtools.browser import READY, opened, settle, show

SIDE, HOLE = 96, (16, 24, 40, 56)  # left, top, right, bottom of the mask


@pytest.fixture(scope="module")
def pictures(base):
    """Three pictures of the input folder: a source with a mask in its alpha, and two edits of it."""
    for i, colour in enumerate(((40, 90, 160), (200, 80, 60), (60, 170, 90))):
        picture = Image.new("RGBA", (SIDE, SIDE), (*colour, 255))
        if i == 0:
            picture.paste((40, 90, 160, 0), HOLE)
        picture.save(base / "input" / f"approve_{i}.png")


def graph(prefix: str, seconds: float = 600, **settings) -> dict:
    inputs = dict(before=["1", 0], after=["4", 0], mask=["1", 1], time_limit=seconds, **settings)
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "approve_0.png"}},
        "2": {"class_type": "LoadImage", "inputs": {"image": "approve_1.png"}},
        "3": {"class_type": "LoadImage", "inputs": {"image": "approve_2.png"}},
        "4": {"class_type": "ImageBatch", "inputs": {"image1": ["2", 0], "image2": ["3", 0]}},
        "5": {"class_type": "EtaApprove", "inputs": inputs},
        "6": {
            "class_type": "SaveImage",
            "inputs": {"images": ["5", 0], "filename_prefix": f"{prefix}/image"},
        },
        "7": {"class_type": "MaskToImage", "inputs": {"mask": ["5", 1]}},
        "8": {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": f"{prefix}/mask"}},
        "9": {"class_type": "PreviewAny", "inputs": {"source": ["5", 3]}},
    }


@pytest.fixture
def prefix(request, page, base, pictures):
    """A folder of the output for this test alone. What a failed test leaves open is closed: the next
    question would wait behind it.
    """
    yield f"{request.node.originalname}_{page.name.replace(' ', '_')}"[:80]
    for cancel in button(page.locator("[role=dialog]:visible"), "Cancel").all():
        cancel.click()
    if page.locator(".eta-approve.eta-waits").count():
        page.evaluate("app.api.interrupt()")
        page.wait_for_selector(".eta-approve:not(.eta-waits)")


def button(dialog, text: str):
    """By the text alone: an icon's glyph may be a part of the button's name."""
    return dialog.locator("button").filter(has_text=re.compile(rf"^\s*{text}\s*$"))


def begin(page, prefix: str, **settings) -> None:
    """Queue from the page, until the question is there."""
    page.evaluate("given => app.loadApiJson(given, 'approve')", graph(prefix, **settings))
    settle(page)
    page.evaluate(
        """async () => {
            window.ended = null;
            const end = event => { window.ended = event.type };
            for (const kind of ['execution_success', 'execution_error', 'execution_interrupted'])
                app.api.addEventListener(kind, end, { once: true });
            await app.queuePrompt(0, 1);
        }"""
    )
    page.wait_for_selector(".eta-approve.eta-waits")


def ended(page, how: str = "execution_success") -> str:
    """What stands on the node after the run."""
    page.wait_for_function("window.ended", timeout=60_000)
    assert page.evaluate("window.ended") == how
    page.wait_for_selector(".eta-approve:not(.eta-waits)")
    return page.locator(".eta-approve .eta-line").inner_text()


def press(page, *keys: str) -> None:
    page.locator(".eta-approve").focus()
    for key in keys:
        page.keyboard.press(key)


def saved(base, prefix: str, name: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted((base / "output" / prefix).glob(f"{name}_*.png"))]


def test_approved_by_a_key_everything_goes_on_unchanged(page, base, prefix):
    begin(page, prefix)
    settle(page)
    show(page, "approve")
    press(page, "m")
    page.wait_for_function("document.querySelector('.eta-approve canvas').width === 96")
    show(page, "approve region")
    press(page, "a")
    assert "2 of 2" in ended(page)
    found = saved(base, prefix, "image")
    assert [tuple(picture[0, 0]) for picture in found] == [(200, 80, 60), (60, 170, 90)]
    left, top, right, bottom = HOLE
    wanted = np.zeros((SIDE, SIDE), np.uint8)
    wanted[top:bottom, left:right] = 255
    assert all((mask[..., 0] == wanted).all() for mask in saved(base, prefix, "mask"))


def test_space_shows_the_picture_before_while_it_is_held(page, prefix):
    begin(page, prefix)
    source = "new URL(document.querySelector('.eta-approve img').src).searchParams.get('filename')"
    press(page)
    after = page.evaluate(source)
    page.keyboard.down(" ")
    before = page.evaluate(source)
    page.keyboard.up(" ")
    assert before != after == page.evaluate(source)
    press(page, "r")
    ended(page)


def test_some_of_a_batch(page, base, prefix):
    begin(page, prefix)
    press(page, "x", "ArrowRight", "a")
    assert "1 of 2" in ended(page)
    assert [tuple(picture[0, 0]) for picture in saved(base, prefix, "image")] == [(60, 170, 90)]


def test_none_picked_is_no_approval(page, base, prefix):
    begin(page, prefix)
    press(page, "x", "ArrowRight", "x", "a")
    assert page.locator(".eta-approve.eta-waits").count() == 1
    press(page, "r")
    assert "rejected by a person" in ended(page)
    assert not (base / "output" / prefix).exists()


def test_a_rejected_picture_does_not_go_on_and_nothing_pops_up(page, base, prefix):
    begin(page, prefix)
    page.locator(".eta-approve .eta-no").click()
    assert "rejected by a person" in ended(page)
    assert not (base / "output" / prefix).exists()
    assert page.locator("[role=dialog]:visible").count() == 0


def test_the_region_is_redrawn_in_the_hosts_mask_editor(page, base, prefix):
    begin(page, prefix)
    press(page, "ArrowRight", "e")
    editor = page.locator("[role=dialog]").filter(has=page.locator("canvas"))
    editor.wait_for()
    button(editor, "Clear").click()
    settle(page)
    area = page.locator("[role=dialog] canvas").last.bounding_box()
    x, y = area["x"] + area["width"] * 0.75, area["y"] + area["height"] * 0.75
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 4, y + 4, steps=3)
    page.mouse.up()
    show(page, "approve mask editor")
    button(editor, "Save").click()
    editor.wait_for(state="detached")
    page.wait_for_function(
        "document.querySelector('.eta-approve .eta-line').textContent === 'region redrawn'"
    )
    show(page, "approve redrawn")
    press(page, "a")
    assert "1 region redrawn" in ended(page)
    first, second = (mask[..., 0] > 127 for mask in saved(base, prefix, "mask"))
    left, top, right, bottom = HOLE
    assert first[top:bottom, left:right].all() and first.sum() == (right - left) * (bottom - top)
    assert second.any() and not second[top:bottom, left:right].any()
    rows, columns = np.nonzero(second)
    assert abs(rows.mean() / SIDE - 0.75) < 0.1 and abs(columns.mean() / SIDE - 0.75) < 0.1


def test_cancel_works_while_it_waits(page, base, prefix):
    begin(page, prefix)
    page.evaluate("app.api.interrupt()")
    assert "without an answer" in ended(page, "execution_interrupted")
    assert not (base / "output" / prefix).exists()


@pytest.mark.parametrize(("without", "there"), [("reject", 0), ("approve", 2)])
def test_the_time_limit_ends_it_by_the_setting(page, base, prefix, without, there):
    begin(page, prefix + without, seconds=1, without_answer=without)
    page.wait_for_function("window.ended", timeout=60_000)
    page.wait_for_selector(".eta-approve:not(.eta-waits)")
    assert "nobody answered within 1 s" in page.locator(".eta-approve .eta-line").inner_text()
    assert len(saved(base, prefix + without, "image")) == there


def ask(address: str, path: str, given: dict | None = None) -> tuple[int, object]:
    body = None if given is None else json.dumps(given).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(address + path, body)) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


ROUTE = "/eta-inversion/approvals"


def test_only_a_whole_answer_with_the_token_counts(page, address, base, prefix):
    begin(page, prefix)
    client = page.evaluate("app.api.clientId")
    assert ask(address, f"{ROUTE}?client=somebody") == (200, [])
    (question,) = ask(address, f"{ROUTE}?client={client}")[1]
    token = question["token"]
    outside = {"filename": "../../custom_nodes/x.png", "subfolder": ""}
    for wrong, status in (
        ({"token": "x", "chosen": [0]}, 404),
        ({"token": token, "chosen": [2]}, 400),
        ({"token": token, "chosen": [-1]}, 400),
        ({"token": token, "chosen": "all"}, 400),
        ({"token": token}, 400),
        ({"token": token, "chosen": [0], "masks": {"0": outside}}, 400),
        ({"token": token, "chosen": [0], "masks": {"0": {"filename": "missing.png"}}}, 400),
        ([], 400),
    ):
        assert ask(address, ROUTE, wrong)[0] == status, wrong
    assert page.locator(".eta-approve.eta-waits").count() == 1
    assert ask(address, ROUTE, {"token": token, "chosen": [0]})[0] == 200
    assert "1 of 2" in ended(page)
    assert ask(address, ROUTE, {"token": token, "chosen": [0]})[0] == 404


def test_a_run_without_a_page_ends_by_the_setting_at_once(address, base, pictures):
    for without, there in (("reject", 0), ("approve", 2)):
        given = {"prompt": graph(f"script_{without}", without_answer=without)}
        prompt = ask(address, "/prompt", given)[1]["prompt_id"]
        until = time.monotonic() + 60
        while not (entry := ask(address, f"/history/{prompt}")[1]):
            assert time.monotonic() < until
            time.sleep(0.1)
        (said,) = entry[prompt]["outputs"]["5"]["eta_approve"]
        assert said["decision"] == without and "no page waits" in said["reason"]
        assert len(saved(base, f"script_{without}", "image")) == there


@pytest.mark.parametrize("held", [False, True], ids=["", "the socket is the last to open"])
def test_the_question_is_still_there_after_the_page_was_loaded_again(browser, address, base, pictures, held):
    name = f"again_{held}"
    with opened(browser, address) as page:
        page.name = "classic nodes"
        begin(page, name)
        workflow = page.evaluate("app.graph.serialize()")
        waiting: list[Callable[[], None]] = []
        if held:
            page.route_web_socket(re.compile(r"/ws\b"), lambda socket: hold_back(socket, waiting))
        page.reload()
        page.wait_for_function(READY, timeout=120_000)
        page.evaluate("async workflow => { await app.loadGraphData(workflow) }", workflow)
        if held:
            assert page.evaluate("app.api.clientId") is None
            for send in waiting:
                send()
        page.wait_for_selector(".eta-approve.eta-waits")
        press(page, "a")
        page.wait_for_selector(".eta-approve:not(.eta-waits)")
        until = time.monotonic() + 60
        while len(saved(base, name, "image")) < 2:
            assert time.monotonic() < until
            time.sleep(0.1)


def hold_back(socket, waiting: list[Callable[[], None]]) -> None:
    """Keep what the server says to the page, as a slow server does."""
    server = socket.connect_to_server()
    server.on_message(lambda message: waiting.append(lambda: socket.send(message)))


def test_it_asks_in_japanese(browser, address, pictures):
    with opened(browser, address, Comfy_Locale="ja") as page:
        page.name = "Japanese"
        try:
            begin(page, "japanese")
            settle(page)
            show(page, "approve")
            assert page.locator(".eta-approve .eta-yes").inner_text() == "承認 (A)"
            press(page, "r")
            assert "却下" in ended(page)
        finally:
            page.evaluate("app.extensionManager.setting.set('Comfy.Locale', 'en')")
