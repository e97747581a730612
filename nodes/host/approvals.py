"""A person's answer in the middle of a run: asked on the page, and waited for.

A question ends by its answer, by Cancel, by its time, or at once where no page waits for the run. The page
that queued the run is the only one that is told the question's token, and an answer needs it.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import numpy as np
import torch
from aiohttp import web
from comfy.model_management import throw_exception_if_processing_interrupted
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from server import PromptServer
from torch import Tensor

from ...eta_core.plain_json import read_json
from .folders import uploaded_path
from .messages import listened

ASKED, ENDED = "eta-inversion.approve", "eta-inversion.approve-end"  # heard by web/js/approve.js
ROUTE = "/eta-inversion/approvals"
POLL_SECONDS = 0.1

# How a question ends.
ANSWERED, NOBODY, LATE = "answered", "nobody", "late"


@dataclass(frozen=True)
class Answer:
    """chosen: numbers of the pictures that go on. masks: redrawn regions [H, W] by the picture's number."""

    how: str
    chosen: tuple[int, ...] = ()
    masks: dict[int, Tensor] = field(default_factory=dict)


@dataclass
class _Question:
    shown: dict
    client: str
    count: int
    size: tuple[int, int]
    ends: float | None
    given: Event = field(default_factory=Event)
    answer: Answer | None = None

    def told(self) -> dict:
        """What the page needs to show it, also after it was loaded anew."""
        left = None if self.ends is None else max(0.0, self.ends - time.monotonic())
        return self.shown | {"seconds": left}


_open: dict[str, _Question] = {}


def ask(shown: dict, count: int, size: tuple[int, int], seconds: float, node_id: str | None) -> Answer:
    """The answer to a question about `count` pictures of `size` (height, width).

    shown: what the page's widget gets. seconds: how long an answer is waited for, 0 for ever. Cancel is heard
    while it waits.
    """
    server = listened()
    client = None if server is None else server.client_id
    if server is None or client not in server.sockets:
        return Answer(NOBODY)
    token = uuid.uuid4().hex
    ends = time.monotonic() + seconds if seconds else None
    question = _Question(shown | {"token": token, "node": node_id}, str(client), count, size, ends)
    _open[token] = question
    server.send_sync(ASKED, question.told(), client)
    try:
        while not question.given.wait(POLL_SECONDS):
            throw_exception_if_processing_interrupted()
            if ends is not None and time.monotonic() > ends:
                break
    finally:
        del _open[token]
        server.send_sync(ENDED, {"token": token, "node": node_id}, client)
    return question.answer or Answer(LATE)


# --- what the page says ---------------------------------------------------------------------------


class Saved(BaseModel):
    """A file in the host's input folder, as the page names it."""

    model_config = ConfigDict(extra="ignore")
    filename: str
    subfolder: str = ""


class Given(BaseModel):
    model_config = ConfigDict(extra="forbid")
    token: str
    chosen: list[int] = Field(max_length=4096)
    masks: dict[int, Saved] = {}


def _take(text: str) -> None:
    """Raises KeyError where the question is over, and ValueError for what is no answer to it."""
    given = Given.model_validate(read_json(text, "the answer"))
    question = _open[given.token]
    for name, numbers in (("chosen", given.chosen), ("masks", given.masks)):
        wrong = [number for number in numbers if not 0 <= number < question.count]
        if wrong:
            raise ValueError(f"{name} names picture {wrong[0]}: there are {question.count}, counted from 0")
    masks = {
        number: _mask(uploaded_path(it.subfolder, it.filename), question.size)
        for number, it in given.masks.items()
    }
    question.answer = Answer(ANSWERED, tuple(sorted(set(given.chosen))), masks)
    question.given.set()


def _mask(path: Path, size: tuple[int, int]) -> Tensor:
    """What the host's mask editor left transparent, [H, W] in 0..1."""
    with Image.open(path) as picture:
        if (picture.height, picture.width) != size:
            raise ValueError(
                f"the redrawn mask is {picture.width}x{picture.height} pixels, the picture "
                f"{size[1]}x{size[0]}: draw it on the picture that was shown"
            )
        alpha = np.asarray(picture.convert("RGBA").getchannel("A"), np.float32) / 255
    return torch.from_numpy(1 - alpha)


async def _answer(request: web.Request) -> web.Response:
    try:
        _take(await request.text())
    except KeyError:
        return web.json_response({"error": "the question is over"}, status=404)
    except (ValueError, OSError) as error:
        return web.json_response({"error": str(error)}, status=400)
    return web.json_response({})


async def _waiting(request: web.Request) -> web.Response:
    client = request.query.get("client", "")
    return web.json_response([question.told() for question in _open.values() if question.client == client])


def _serve() -> None:
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.routes.get(ROUTE)(_waiting)
        server.routes.post(ROUTE)(_answer)


_serve()
