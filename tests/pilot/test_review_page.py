"""The review in a real Chromium, by keys alone: two reviewers and a lead, in English and Japanese."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager

import pytest
from aiohttp import web
from PIL import Image

from devtools.browser import SCREENS
from pilot import items, journal
from pilot.alarm import Watch
from pilot.policy import Alarm
from pilot.review import audit
from pilot.review.desk import AGAIN, Desk
from pilot.review.server import application
from pilot.review.store import Store
from tests.pilot.reviewed import make_run
from tests.web.conftest import browser, chromium  # noqa: F401 (fixtures)


@contextmanager
def served(desk: Desk, store: Store):
    """The real server on a free port, in a thread -> its address."""
    loop, ready, addresses = asyncio.new_event_loop(), threading.Event(), []

    async def start() -> web.AppRunner:
        runner = web.AppRunner(application(desk, store))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        addresses.append("http://{}:{}".format(*runner.addresses[0]))
        return runner

    def work() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield addresses[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)


BLUE = [120, 110, 195]  # the disc after the edit; before, it is grey, 150


class Person:
    """Somebody at a page of their own, with a keyboard."""

    def __init__(self, chrome, address: str, token: str, locale: str = "en-GB"):
        self.context = chrome.new_context(viewport={"width": 1366, "height": 768}, locale=locale)
        self.page = self.context.new_page()
        self.errors = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.goto(f"{address}/#{token}")

    def item(self) -> str:
        """The item on screen, by its number; "" where nothing waits."""
        self.page.wait_for_selector("body[data-turn]")
        key = self.page.evaluate("document.body.dataset.item")
        return str(int(key.partition("-")[0], 16)) if key else ""

    def press(self, *keys: str) -> None:
        """Keys that end a turn; returns when the next item is there."""
        self.page.evaluate("delete document.body.dataset.turn")
        for key in keys:
            self.page.keyboard.press(key)
        self.item()

    def show(self, name: str) -> None:
        SCREENS.mkdir(exist_ok=True, parents=True)
        self.page.screenshot(path=SCREENS / f"review {name}.png")


@pytest.fixture(scope="module")
def people(browser, tmp_path_factory):  # noqa: F811
    """A run of six under two pairs of eyes, and Anna, Ben, Lea the lead and Olga, who ran it."""
    folder = make_run(
        tmp_path_factory.mktemp("review"), operator="Olga", size=256, names=["<b>item</b> 1.png"]
    )
    run = journal.load(folder) or {}
    journal.save(folder, run | {"nodes": {"EtaSchedule 4": {"preset": "constant", "end_eta": 1.0}}})
    store = Store(folder)
    desk = Desk(folder, store, eyes=2)
    roles = {"Anna": "reviewer", "Ben": "reviewer", "Lea": "lead", "Olga": "reviewer"}
    tokens = {name: store.add_reviewer(name, role) for name, role in roles.items()}
    with served(desk, store) as address:
        languages = {"Ben": "ja-JP"}
        found = {
            name: Person(browser, address, token, languages.get(name, "en-GB"))
            for name, token in tokens.items()
        }
        yield folder, desk, found
        for person in found.values():
            person.context.close()


def redraw(person: Person) -> None:
    """A new mask: a stroke through the middle of the picture, from a quarter to three quarters."""
    page = person.page
    page.keyboard.press("Tab")
    page.focus("#redraw")
    page.keyboard.press("Enter")
    page.wait_for_selector("#drawing[open]")
    box = page.locator("#drawn").bounding_box()
    page.keyboard.press("c")
    page.keyboard.press("Enter")
    assert page.inner_text("#drawing-title").startswith("何も塗られていません")
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    quarter = min(box["width"], box["height"]) / 4
    page.mouse.move(x - quarter, y)
    page.mouse.down()
    page.mouse.move(x + quarter, y, steps=5)
    page.mouse.up()
    assert page.inner_text("#drawing-title").startswith("編集してよい部分")
    person.show("mask redrawn, Japanese")
    page.keyboard.press("Enter")
    page.wait_for_selector("#drawing", state="hidden")
    assert "描いたマスク" in page.inner_text("#redrawn")
    person.show("send back with a mask, Japanese")


def test_a_run_is_reviewed_by_keys_alone(people):
    folder, desk, found = people
    anna, ben, lea, olga = (found[name] for name in ("Anna", "Ben", "Lea", "Olga"))
    drawn = {str(int(one.key[:12], 16)) for one in desk.items() if one.drawn}
    queue = {"1", "3", "5"} | drawn
    assert len(drawn) == 1 and olga.item() == "" and lea.item() == ""
    assert "were edited by you" in olga.page.inner_text("#message")

    seen = [anna.item()]
    assert (
        anna.page.inner_text("#name") == "<b>item</b> 1.png" and anna.page.query_selector("#name b") is None
    )
    assert anna.page.url.endswith("/")  # the secret left the address
    assert anna.page.evaluate("document.cookie") == ""
    assert "22.5" not in anna.page.content() and "PSNR" not in anna.page.content()
    anna.show("turn, English")
    anna.press("Space")
    seen.append(anna.item())
    anna.press("Space"), seen.append(anna.item())
    anna.press("Space"), seen.append(anna.item())
    assert sorted(seen) == sorted(queue)
    anna.press("Space")
    assert anna.item() == "1"

    anna.press("a")  # 1: approved
    assert "22.5" in anna.page.inner_text("#last")
    anna.press("u")
    assert anna.item() == "1" and anna.page.inner_text("#counted").startswith("0 of 4")
    anna.press("a")
    second = anna.item()
    anna.page.keyboard.press("r")
    anna.page.wait_for_selector("dialog[open]")
    anna.page.keyboard.press("Enter")
    assert "Choose a reason" in anna.page.inner_text("#dialog-keys")
    anna.page.keyboard.press("9")  # more than there are reasons
    assert anna.page.query_selector("[name=reason]:checked") is None
    anna.page.keyboard.press("3")
    anna.page.keyboard.press("Tab")
    anna.page.keyboard.type("a seam, left")
    anna.show("reject, English")
    anna.press("Enter")
    third = anna.item()
    anna.page.keyboard.press("s")
    anna.page.wait_for_selector("dialog[open]")
    assert "it was 1" in anna.page.inner_text("#eta-label")
    anna.page.keyboard.type("2")
    anna.page.keyboard.press("Enter")
    assert "from 0 to 1" in anna.page.inner_text("#dialog-keys")
    anna.page.keyboard.press("Backspace")
    anna.page.keyboard.type("0.4")
    anna.show("send back, English")
    anna.press("Enter")
    anna.press("a")
    assert anna.item() == "" and "3 items wait" not in anna.page.inner_text("#message")

    for _ in range(4):
        here = ben.item()
        assert ben.page.query_selector("#earlier:not([hidden])") is None  # blind
        if here == "1":
            ben.show("turn, Japanese")
        if here == third:
            ben.page.keyboard.press("s")
            redraw(ben)
        ben.press(*(("r", "5", "Enter") if here == "1" else ("Enter",) if here == third else ("a",)))
    assert ben.item() == "" and "判定を待つ画像はありません" in ben.page.inner_text("#message")

    lea.press("Space")
    assert {lea.item(), second} == {"1", second}
    assert "Approve" in lea.page.inner_text("#earlier") and "Rights" in lea.page.inner_text("#earlier")
    assert "Anna" not in lea.page.content() and "Ben" not in lea.page.content()
    lea.show("lead, English")
    lea.press("a")
    assert lea.item() == second and "a seam, left" in lea.page.inner_text("#earlier")
    lea.press("r", "1", "Enter")
    assert lea.item() == ""

    outcomes = {str(int(key[:12], 16)): found for key, found in desk.outcomes().items()}
    fourth = (queue - {"1", second, third}).pop()
    assert outcomes == {"1": "approve", second: "reject", third: "again", fourth: "approve"}
    (again,) = items.load(folder / AGAIN)
    assert (again.eta, again.use_mask, again.again_of) == (0.4, "given", f"{int(third):012x}-auto")
    with Image.open(folder / str(again.mask)) as mask:
        left, top, right, bottom = mask.getbbox()
        assert mask.size == (256, 256) and mask.getextrema() == (0, 255)
    assert (
        abs(left - 64) < 16 and abs(right - 192) < 16 and 8 < bottom - top < 24 and 120 < top < bottom < 136
    )
    lines = [json.loads(line) for line in (folder / audit.LOG).read_bytes().splitlines()]
    votes = [
        (line["who"], line["vote"], line.get("reason", "")) for line in lines if line["action"] == "vote"
    ]
    assert len(votes) == 11 and votes.count(("Lea", "reject", "background")) == 1
    assert audit.verify(folder).findings == ()
    assert [error for person in found.values() for error in person.errors] == []


def test_a_pause_by_the_alarm_is_said_above_the_pictures(browser, tmp_path):  # noqa: F811
    folder = make_run(tmp_path, ("review", "review", "reject"), size=1200)
    store = Store(folder)
    with journal.Journal(folder):
        watch = Watch(folder, Alarm(last=4, failures=0))
    with served(Desk(folder, store), store) as address:
        person = Person(browser, address, store.add_reviewer("Anna", "reviewer"))
        person.item()
        page = person.page
        page.set_viewport_size({"width": 1024, "height": 768})
        assert page.inner_text("#paused").startswith("The run is paused by its alarm")
        assert page.get_attribute("#paused", "role") == "status"
        boxes = [page.locator(name).bounding_box() for name in ("header", "#paused", "main")]
        ends = [round(box["y"] + box["height"]) for box in boxes]
        assert [round(box["y"]) for box in boxes] == [0, *ends[:2]] and ends[-1] == 768  # nothing is covered
        person.show("paused, English")
        page.keyboard.press("l")
        assert "警報" in page.inner_text("#paused")
        person.show("paused, Japanese")
        person.press("a")  # what is there can be decided
        watch.go_on("Olga")
        person.press("a")
        assert not page.is_visible("#paused") and person.item() == ""
        page.keyboard.press("d")  # nothing is shown that could be looked at
        assert not page.is_visible("[aria-keyshortcuts=A]") and page.is_visible("[aria-keyshortcuts=U]")
        (folder / "alarm.json").write_text("{")
        page.reload()
        page.wait_for_selector("#said.shown")
        assert "alarm.json is damaged" in page.inner_text("#said")
        person.context.close()


def test_nobody_decides_on_an_item_whose_pictures_did_not_come(browser, tmp_path):  # noqa: F811
    folder = make_run(tmp_path, ("review", "review", "review"))
    store = Store(folder)
    desk = Desk(folder, store)
    third = desk.items()[2].key
    with served(desk, store) as address:
        person = Person(browser, address, store.add_reviewer("Anna", "reviewer"))
        assert person.item() == "1"
        person.page.route(f"**/picture/{third}/*", lambda route: route.abort())
        person.press("a")
        person.page.keyboard.press("a")
        person.page.wait_for_selector("#said.shown")
        for key in ("a", "r"):
            person.page.keyboard.press(key)
        assert not person.page.is_visible("#dialog")
        person.page.unroute(f"**/picture/{third}/*")
        person.press("Space")
        assert person.item() == "3" and person.page.inner_text("#counted").startswith("2 of 3")
        person.press("a")
        assert person.item() == ""
        person.context.close()


def colours(page, canvas: str) -> list[int]:
    """The colour in the middle of a canvas."""
    return page.evaluate(
        "id => { const c = document.getElementById(id); return [...c.getContext('2d')"
        ".getImageData(c.width / 2, c.height / 2, 1, 1).data].slice(0, 3); }",
        canvas,
    )


def test_the_ways_of_looking(browser, tmp_path):  # noqa: F811
    folder = make_run(tmp_path, ("review",), size=1200)
    store = Store(folder)
    with served(Desk(folder, store), store) as address:
        person = Person(browser, address, store.add_reviewer("Anna", "reviewer"))
        person.item()
        page = person.page
        assert (colours(page, "left"), colours(page, "right")) == ([150, 150, 150], BLUE)
        page.keyboard.down("b")
        assert colours(page, "right") == [150, 150, 150]
        assert page.inner_text("#right-title") == "Before"
        page.keyboard.up("b")
        assert colours(page, "right") == BLUE
        page.keyboard.press("d")
        assert colours(page, "right") == [180, 180, 180]  # four times the largest of 30, 40 and 45
        page.keyboard.press("d")
        plain = page.evaluate("document.getElementById('left').toDataURL()")
        page.keyboard.press("m")
        assert page.evaluate("document.getElementById('left').toDataURL()") != plain
        page.keyboard.press("m"), page.keyboard.press("z")
        assert page.get_attribute("[aria-keyshortcuts=Z]", "aria-pressed") == "true"
        for _ in range(30):
            page.keyboard.press("ArrowUp")
        wall = [200, 179, 150]
        assert (colours(page, "left"), colours(page, "right")) == ([150] * 3, BLUE)
        for _ in range(30):
            page.keyboard.press("ArrowLeft")
        assert (colours(page, "left"), colours(page, "right")) == (wall, wall)  # both moved
        page.keyboard.press("v")
        assert not page.is_visible("#left") and page.is_visible("#right")
        page.keyboard.press("l")
        assert (
            page.inner_text("h1") == "編集のレビュー"
            and page.evaluate("document.documentElement.lang") == "ja"
        )
        for part in ("html", "aside"):
            assert page.evaluate(
                f"(({{scrollHeight: h, clientHeight: c}}) => h <= c)(document.querySelector('{part}'))"
            )
        names = page.evaluate(
            "[...document.querySelectorAll('button, canvas')].filter(e => e.checkVisibility())"
            ".map(e => e.ariaLabel || e.innerText)"
        )
        assert all(names)
        assert person.errors == []
        person.context.close()
