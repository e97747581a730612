"""The review's server, asked without a link, from foreign pages, and for what is not its own."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

import pytest

from pilot.review import server
from pilot.review.desk import Desk
from pilot.review.store import Store
from tests.pilot.reviewed import make_run
from tests.pilot.test_review_page import served


class Client:
    def __init__(self, address: str):
        self.host = urlsplit(address).netloc
        self.cookie = ""

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, dict, dict]:
        """Status, JSON or {}, and headers. A body makes it a POST of this page's own."""
        connection = http.client.HTTPConnection(self.host, timeout=20)
        said = {"Cookie": self.cookie} if self.cookie else {}
        if body is not None:
            said |= {"Origin": f"http://{self.host}", "Content-Type": "application/json"}
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", path, content, said)
        answer = connection.getresponse()
        found = answer.read()
        kind = answer.headers.get_content_type()
        connection.close()
        return answer.status, json.loads(found) if kind == "application/json" else {}, dict(answer.headers)

    def enter(self, token: str) -> dict:
        status, _, headers = self.ask("/api/enter", {"token": token})
        assert status == 200
        self.cookie = headers["Set-Cookie"].partition(";")[0]
        return headers


@pytest.fixture(scope="module")
def review(tmp_path_factory):
    """A run of three, its store, and the address of its page."""
    folder = make_run(tmp_path_factory.mktemp("served"), ("review", "review", "reject"), size=16)
    (folder.parent / "outside.png").write_bytes(b"outside")
    store = Store(folder)
    with served(Desk(folder, store), store) as address:
        yield folder, store, address


@pytest.fixture
def client(review) -> Client:
    _, store, address = review
    found = Client(address)
    found.enter(store.add_reviewer("Anna", "reviewer"))
    return found


EVERYTHING = [
    ("/api/next", None),
    ("/api/vote", {}),
    ("/api/undo", {}),
    (f"/picture/{1:012x}-auto/source", None),
    ("/nothing", None),
]


@pytest.mark.parametrize(("path", "body"), EVERYTHING)
def test_nothing_without_a_link(review, path, body):
    _, store, address = review
    stranger = Client(address)
    assert stranger.ask(path, body)[0] == 401
    stranger.cookie = f"eta_review_{store.run[:8]}={'0' * 64}"
    assert stranger.ask(path, body)[0] == 401


@pytest.mark.parametrize("token", ("0" * 64, "", "x", None, ["a"], "0" * 100_000))
def test_a_made_up_link_is_refused(review, token):
    status, _, headers = Client(review[2]).ask("/api/enter", {"token": token})
    assert status in (400, 401, 413) and "Set-Cookie" not in headers


def test_a_link_taken_back_ends_what_it_began(review):
    _, store, address = review
    ben = Client(address)
    ben.enter(store.add_reviewer("Ben", "reviewer"))
    assert ben.ask("/api/next")[0] == 200
    store.remove_reviewer("Ben")
    assert ben.ask("/api/next")[0] == 401


def test_the_cookie_is_out_of_reach(review):
    _, store, address = review
    cookie = Client(address).enter(store.add_reviewer("Cleo", "reviewer"))["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))


@pytest.mark.parametrize(
    "origin", ("http://evil.example", "null", "", "http://127.0.0.1:1", "https://127.0.0.1.evil.example")
)
@pytest.mark.parametrize("path", ("/api/enter", "/api/vote", "/api/undo"))
def test_a_foreign_page_decides_nothing(client, path, origin):
    status, found, _ = client.ask(path, {}, Origin=origin)
    assert status == 403 and "another page" in found["error"]


def test_a_form_of_a_foreign_page_is_no_vote(client):
    assert client.ask("/api/undo", b"{}", Content_Type="text/plain")[0] == 415


@pytest.mark.parametrize(
    "path",
    (
        "/../outside.png",
        "/picture/../outside.png",
        "/picture/..%2f..%2foutside.png/source",
        "/picture/%2e%2e/outside.png",
        f"/picture/{1:012x}-auto/../../run.json",
        f"/picture/{1:012x}-auto/..%2f..%2frun.json",
        f"/picture/{1:012x}-auto/source.png",
        f"/picture/{1:012x}-auto/heatmap",
        f"/picture/{3:012x}-auto/source",
        "/review.sqlite",
        "/audit.jsonl",
        "/page/review.js",
    ),
)
def test_only_pictures_up_for_review_leave_and_by_name_alone(client, path):
    assert client.ask(path)[0] == 404


def test_a_row_that_points_outside_gives_nothing_away(tmp_path):
    folder = make_run(tmp_path / "run", ("review",), size=16)
    (tmp_path / "outside.png").write_bytes(b"outside")
    rows = folder / "results.jsonl"
    row = json.loads(rows.read_text())
    row["files"]["mask"] = "../outside.png"
    rows.write_text(json.dumps(row) + "\n")
    store = Store(folder)
    with served(Desk(folder, store), store) as address:
        client = Client(address)
        client.enter(store.add_reviewer("Anna", "reviewer"))
        assert client.ask(f"/picture/{1:012x}-auto/edited")[0] == 200
        assert client.ask(f"/picture/{1:012x}-auto/mask")[0] == 404


@pytest.mark.parametrize("path", ("/", "/review.js", "/api/next", f"/picture/{1:012x}-auto/source"))
def test_every_answer_is_locked_down(client, path):
    status, _, headers = client.ask(path)
    assert status == 200 and "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")


def test_the_figures_come_with_the_answer_to_the_vote(client):
    _, turn, _ = client.ask("/api/next")
    item = turn["item"]
    assert "22.5" not in json.dumps(turn) and not {"verdict", "figures", "reasons"} & set(item)
    ballot = {"item": item["key"], "binding": item["binding"], "action": "approve", "seconds": 3}
    status, found, _ = client.ask("/api/vote", ballot)
    assert (
        status == 200 and found["verdict"] == "review" and ["background PSNR", "22.50 dB"] in found["figures"]
    )
    assert client.ask("/api/vote", ballot)[0] == 409
    assert client.ask("/api/undo", {})[1] == {"item": item["key"]}


@pytest.mark.parametrize(
    "body",
    (b"", b"{", b"[]", b"\xff", b'{"item": 1}', b"[" * 10_000, b'{"item": "a", "extra": 1}', b"x" * 70_000),
)
def test_what_is_no_vote_is_refused_in_words(client, body):
    status, found, _ = client.ask("/api/vote", body)
    assert status in (400, 413) and found["error"]


def test_a_vote_on_what_is_not_there_changes_nothing(client):
    status, found, _ = client.ask(
        "/api/vote", {"item": "../x", "binding": "y", "action": "approve", "seconds": 1}
    )
    assert status == 409 and "not up for review" in found["error"]


def test_it_says_who_can_reach_it():
    assert "this machine alone" in server._who_can_reach("127.0.0.1")
    assert "everybody who can reach this machine" in server._who_can_reach("0.0.0.0")
