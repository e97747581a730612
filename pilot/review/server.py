"""The page's server: who asks is who their secret link says; pictures leave by item and name alone."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from eta_core.evidence.metrics import METRICS
from eta_core.plain_json import read_json

from ..answers import read
from .candidates import Candidate, is_inside
from .desk import LONGEST_COMMENT, OPEN, SPLIT, Desk, Shown, same_person
from .store import Conflict, Person, ReviewError, Store

PAGE = Path(__file__).resolve().parent / "page"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
FILES = {f"/{path.name}": path for path in PAGE.iterdir() if path.suffix in KINDS}
FILES["/"] = FILES.pop("/index.html")
LARGEST = 4 * 1024 * 1024  # bytes of a request, which may hold a mask
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LOOPBACK = ("127.0.0.1", "::1", "localhost")
YEAR = 365 * 24 * 3600

DESK, STORE = web.AppKey("desk", Desk), web.AppKey("store", Store)
# a name of its own where aiohttp has none of this kind yet
PERSON: Any = web.RequestKey("person", Person) if hasattr(web, "RequestKey") else "person"
Model = TypeVar("Model", bound=BaseModel)


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Enter(Asked):
    token: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Ballot(Asked):
    item: Annotated[str, Field(max_length=64)]
    binding: Annotated[str, Field(max_length=64)]
    action: Literal["approve", "reject", "again"]
    reason: Annotated[str, Field(max_length=16)] = ""
    comment: Annotated[str, Field(max_length=LONGEST_COMMENT)] = ""
    eta: Annotated[float, Field(ge=0, le=1, strict=False)] | None = None
    mask: str = ""  # a PNG in base64
    seconds: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False, strict=False)] = 0.0


class Nothing(Asked):
    pass


def application(desk: Desk, store: Store) -> web.Application:
    app = web.Application(client_max_size=LARGEST, middlewares=[_guard])
    app[DESK], app[STORE] = desk, store
    for path in FILES:
        app.router.add_get(path, _file)
    app.router.add_post("/api/enter", _enter)
    app.router.add_get("/api/next", _next)
    app.router.add_post("/api/vote", _vote)
    app.router.add_post("/api/undo", _undo)
    app.router.add_get("/picture/{item}/{name}", _picture)
    return app


def serve(desk: Desk, store: Store, listen: str, port: int) -> None:
    """Serve until Ctrl-C. Raises OSError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((listen, port))
        port = taken.getsockname()[1]
        shown = f"[{listen}]" if ":" in listen else listen
        print(
            f"The review is at http://{shown}:{port}; each person comes in by their own secret link.",
            flush=True,
        )
        print(_who_can_reach(listen), flush=True)
        web.run_app(application(desk, store), sock=taken, print=None, access_log=None, handle_signals=False)


def _who_can_reach(listen: str) -> str:
    if listen in LOOPBACK:
        return "It listens on this machine alone. Ctrl-C ends it; nothing that was decided is lost."
    return (
        f"It listens on {listen}: everybody who can reach this machine over the network can reach it, and "
        "secret links and pictures cross it without encryption. Put it behind a proxy with TLS."
    )


# --- who asks -------------------------------------------------------------------------------------


@web.middleware
async def _guard(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]):
    """Foreign origins, people without a link, and errors, each in words. Every answer carries HEADERS."""
    try:
        if request.method not in ("GET", "HEAD"):
            _check_origin(request)
        if request.path not in FILES and request.path != "/api/enter":
            request[PERSON] = await _person(request)
        response = await handler(request)
    except web.HTTPException as error:
        response = _told(error.status, error.text or error.reason)
    except Conflict as error:
        response = _told(409, str(error))
    except ReviewError as error:
        response = _told(403, str(error))
    response.headers.update(HEADERS)
    return response


def _check_origin(request: web.Request) -> None:
    """A browser names the page that asks: it must be this one."""
    if urlsplit(request.headers.get("Origin", "")).netloc != request.host:
        raise web.HTTPForbidden(text="this comes from another page: open your link again")
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="it must be JSON")


async def _person(request: web.Request) -> Person:
    token = request.cookies.get(_cookie(request), "")
    found = await asyncio.to_thread(request.app[STORE].who, token) if token else None
    if found is None:
        raise web.HTTPUnauthorized(text="open the secret link that you were given")
    return found


def _cookie(request: web.Request) -> str:
    """Browsers do not tell ports apart: the name tells apart the reviews of one machine."""
    return f"eta_review_{request.app[STORE].run[:8]}"


async def _body(request: web.Request, model: type[Model]) -> Model:
    try:
        return read(model, read_json(await request.read(), "the request"))
    except ValueError as error:
        raise web.HTTPBadRequest(text=str(error)) from None


async def _enter(request: web.Request) -> web.Response:
    token = (await _body(request, Enter)).token
    person = await asyncio.to_thread(request.app[STORE].who, token)
    if person is None:
        raise web.HTTPUnauthorized(text="this link is not valid any more: ask for a new one")
    response = web.json_response({"name": person.name})
    secure = request.headers.get("X-Forwarded-Proto", request.scheme) == "https"
    response.set_cookie(
        _cookie(request), token, httponly=True, samesite="Strict", secure=secure, max_age=YEAR, path="/"
    )
    return response


# --- what they get --------------------------------------------------------------------------------


async def _file(request: web.Request) -> web.Response:
    path = FILES[request.path]
    kind = KINDS[path.suffix]
    return web.Response(text=path.read_text(encoding="utf-8"), content_type=kind, charset="utf-8")


async def _next(request: web.Request) -> web.Response:
    desk, person = request.app[DESK], request[PERSON]
    shown = await asyncio.to_thread(desk.next, person, request.query.get("after", ""))
    told: dict = {"name": person.name, "role": person.role, "eyes": desk.eyes, "own": desk.own(person)}
    told |= {"reasons": desk.reasons, "paused": await asyncio.to_thread(desk.paused)}
    told |= {"item": None, "done": 0, "left": 0} if shown is None else _of(desk, shown)
    if shown is None:
        votes = await asyncio.to_thread(desk.votes)
        told["done"] = sum(vote.reviewer == person.name for some in votes.values() for vote in some)
        outcomes = await asyncio.to_thread(desk.outcomes)
        told["others"] = sum(found in (OPEN, SPLIT) for found in outcomes.values())
    return web.json_response(told)


def _of(desk: Desk, shown: Shown) -> dict:
    """An item without its verdict and figures: those come with the answer to the vote."""
    row = shown.candidate.row
    item = {
        name: row[name] for name in ("name", "category", "source_prompt", "target_prompt", "words", "size")
    }
    earlier = [
        {"action": vote.action, "reason": vote.reason, "comment": vote.comment, "eta": vote.eta}
        for vote in shown.earlier
    ]
    following = shown.following
    return {
        "item": item
        | {
            "key": shown.candidate.key,
            "binding": shown.candidate.binding,
            "pictures": _pictures(shown.candidate),
            "eta": desk.eta(shown.candidate),
            "again": bool(row.get("again_of")),
            "earlier": earlier,
        },
        "done": shown.done,
        "left": shown.left,
        "seconds_left": round(shown.seconds_left),
        "following": _pictures(following) if following else {},
    }


def _pictures(one: Candidate) -> dict[str, str]:
    return {name: f"/picture/{one.key}/{name}?v={one.hashes[name][:16]}" for name in one.hashes}


async def _vote(request: web.Request) -> web.Response:
    ballot = await _body(request, Ballot)
    desk, person = request.app[DESK], request[PERSON]
    one = await asyncio.to_thread(desk.vote, person, **_named(ballot))
    row = one.row
    figures = [
        [METRICS[name].label, METRICS[name](float(value))]
        for name, value in (row["figures"] or [{}])[0].items()
        if name in METRICS and value is not None and not name.startswith("pie_")
    ]
    told = {"verdict": row["verdict"], "reasons": row["reasons"], "figures": figures, "name": row["name"]}
    return web.json_response(told)


def _named(ballot: Ballot) -> dict:
    said = ballot.model_dump()
    try:
        mask = base64.b64decode(said.pop("mask"), validate=True)
    except ValueError:
        raise web.HTTPBadRequest(text="the mask is no base64") from None
    return {"key": said.pop("item"), "mask": mask} | said


async def _undo(request: web.Request) -> web.Response:
    await _body(request, Nothing)
    item = await asyncio.to_thread(request.app[DESK].undo, request[PERSON])
    return web.json_response({"item": item})


async def _picture(request: web.Request) -> web.Response:
    """A picture of an item that is up for review, by item and name alone."""
    one = request.app[DESK].item(request.match_info["item"])
    name = request.match_info["name"]
    if one is None or name not in one.hashes:
        raise web.HTTPNotFound(text="there is no such picture")
    if same_person(one.row.get("operator", ""), request[PERSON].name):
        raise web.HTTPForbidden(text="who ran the edit may not decide on it")
    path = request.app[STORE].folder / one.row["files"][name]
    if not is_inside(one.row["files"][name]):
        raise web.HTTPNotFound(text="there is no such picture")
    try:
        content = await asyncio.to_thread(path.read_bytes)
    except OSError:
        raise web.HTTPNotFound(text="there is no such picture any more") from None
    return web.Response(body=content, content_type="image/png")


def _told(status: int, why: str) -> web.Response:
    return web.Response(status=status, text=json.dumps({"error": why}), content_type="application/json")
