"""Items through a running server: a few queued at a time, each recorded as soon as it is done."""

from __future__ import annotations

import contextlib
import json
import math
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timezone
from functools import cache

from eta_core.evidence.policy import Policy, judge, worst
from eta_core.evidence.report import plain, report_of_json

from . import journal, workflow
from .alarm import Watch
from .answers import Entry
from .graph import Graph
from .items import LATER, Item, lacks_rights
from .pictures import PictureError, Prepared, png, prepare, whole
from .review import audit
from .server import FOLDER, BadAnswer, Refused, Server, Unreachable
from .workflow import Clip, Form, WorkflowError

POLL_SECONDS = 0.25
LET_GO_SECONDS = 60
MOST_LOSSES, MOST_TRIES = 2, 5  # of an item: after it was seen running, and at all
PICTURES = "pictures"
INTERRUPTED = "interrupted on the server"


class PilotError(Exception):
    """Why a run cannot go on, and how it can."""


@dataclass(frozen=True)
class Task:
    """An item and the mask it is to be run with, one of workflow.MASKS."""

    item: Item
    mask: str

    @property
    def key(self) -> str:
        return f"{self.item.key}-{self.mask}"


@dataclass(frozen=True)
class Patience:
    """How long a run waits, and for how many items at once.

    timeout: seconds for an item. window: items on the server at a time. patience: seconds without a server.
    """

    timeout: float = 900.0
    window: int = 2
    patience: float = 600.0


@dataclass
class Flight:
    """A task on the server.

    size: width and height of its result, where the workflow leaves the picture's size. started, stopped: when
    it was first seen running, and when it was told to stop. adopted: an earlier run of the pilot queued it.
    """

    task: Task
    row: dict
    size: tuple[int, int] | None = None
    adopted: bool = False
    started: float | None = None
    stopped: float | None = None


class Forms:
    """A workflow's form for each kind of item."""

    def __init__(self, graph: Graph, clip: Clip, edited: str, side: int | None = None):
        self._of = cache(lambda mask, has_mask: workflow.form(graph, mask, has_mask, clip, edited, side))
        self.side = side

    def of(self, task: Task) -> tuple[str, Form]:
        """The mask that is used, and the form. Raises WorkflowError."""
        item = task.item
        if task.mask == "given" and not item.mask:
            raise WorkflowError("the item has no mask: give it one, or run it with --mask auto")
        found = self._of(task.mask, bool(item.mask))
        if workflow.wants_words(found) and not item.words:
            return "none", self._of("none", bool(item.mask))
        return task.mask, found


def say(line: str) -> None:
    print(line, flush=True)  # at once into a log file too


class Pilot:
    """run() works through `tasks`, leaving out those in the journal."""

    def __init__(
        self,
        server: Server,
        book: journal.Journal,
        run: dict,
        tasks: Iterable[Task],
        forms: Forms,
        policy: Policy,
        seed: int,
        max_side: int,
        limits: Patience,
        watch: Watch,
        operator: str = "",
        require_rights: bool = False,
    ):
        self._server, self._book, self._run, self._forms, self._policy = server, book, run, forms, policy
        self._seed, self._max_side, self._limits = seed, max_side, limits
        self._alarm, self._operator, self._require_rights = watch, operator, require_rights
        tasks = list(tasks)
        self._todo = deque(task for task in tasks if task.key not in book.keys)
        self._total, self._done = len(tasks), len(tasks) - len(self._todo)
        self._flights: dict[str, Flight] = {}
        self._losses: Counter[str] = Counter()
        self._tries: Counter[str] = Counter()
        self._renamed: Counter[str] = Counter()
        self._keys = [task.key for task in tasks]
        self._began, self._edits, self._silent, self._stuck = time.monotonic(), 0, None, None

    def run(self) -> None:
        """Work through the tasks, or until the alarm rings and what was queued has ended.

        Raises PilotError where the server stays away or an item is left without a row, and KeyboardInterrupt
        after taking back what was queued.
        """
        try:
            while self._flights or (self._todo and not self._alarm.rings):
                try:
                    self._fill()
                    self._look()
                    self._silent = None
                except Unreachable as error:
                    self._bear(error)
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            with contextlib.suppress(Unreachable, Refused):
                self._take_back()
            raise
        lost = [key for key in self._keys if key not in self._book.keys]
        if lost and not self._alarm.rings:
            raise PilotError(
                f"{len(lost)} items of {self._total} have no result; run the same command again to do them"
            )

    def _bear(self, error: Unreachable) -> None:
        now = time.monotonic()
        if self._silent is None:
            self._silent = now
            say(f"{error}; waiting up to {self._limits.patience:g} s for it")
        if now - self._silent > self._limits.patience:
            raise PilotError(
                f"{error}. Start it, then run the same command again: it goes on where it stopped"
            )

    # --- onto the server --------------------------------------------------------------------------

    def _fill(self) -> None:
        while self._todo and not self._alarm.rings and len(self._flights) < self._limits.window:
            self._launch(self._todo[0])
            self._todo.popleft()

    def _launch(self, task: Task) -> None:
        row = _row(task) | ({"operator": self._operator} if self._operator else {})
        try:
            if task.item.error:
                raise PictureError(task.item.error)
            lacks = lacks_rights(task.item, date.today()) if self._require_rights else ""
            if lacks:
                raise PictureError(lacks)
            used, form = self._forms.of(task)
            prepared = prepare(task.item, self._max_side, self._forms.side is not None)
            row |= self._of_picture(task, prepared) | {"mask": used, "scored": form.scored}
            row["seed"] = self._seed if task.item.seed is None else task.item.seed
            again = f"-{n}" if (n := self._renamed[task.key]) else ""  # past the server's cache
            pictures = {"picture": prepared.picture, "small": prepared.small, "mask": prepared.mask}
            names = {which: f"{self._run['id'][:8]}-{task.key}-{which}{again}.png" for which in pictures}
            files = {which: f"{FOLDER}/{name} [temp]" for which, name in names.items()}
            values = files | dict(zip(("width", "height"), prepared.picture.size))
            graph = form.filled(_values(task.item, row["seed"], values))
            if task.item.eta is not None:
                graph = workflow.with_eta(graph, task.item.eta)
            says = json.dumps([task.key, graph], sort_keys=True)
            prompt_id = str(uuid.uuid5(uuid.UUID(self._run["id"]), says))
            adopted = self._is_known(prompt_id)
            if not adopted:
                for which, picture in pictures.items():
                    if picture:
                        # newer hosts read white in a grey picture as 254 of 255
                        self._server.upload(names[which], png(picture.convert("RGB")))
                prompt_id = self._server.submit(prompt_id, graph)
                if prompt_id in self._flights:
                    raise BadAnswer(f"the server gave it the id of another item ({prompt_id[:80]})")
        except (PictureError, WorkflowError, Refused) as error:
            self._fail(row, str(error))
        else:
            size = prepared.picture.size if form.keeps_size else None
            self._flights[prompt_id] = Flight(task, row, size, adopted)

    def _of_picture(self, task: Task, prepared: Prepared) -> dict:
        pictures = {"source": prepared.picture} | ({"given_mask": prepared.mask} if prepared.mask else {})
        files = {name: self._keep(task, name, png(picture)) for name, picture in pictures.items()}
        return {"size": prepared.picture.size, "given_size": prepared.given, "files": files}

    def _keep(self, task: Task, name: str, content: bytes) -> str:
        path = f"{PICTURES}/{task.key}/{name}.png"
        journal.write(self._book.folder / path, content)
        return path

    def _is_known(self, prompt_id: str) -> bool:
        return (
            any(prompt_id in ids for ids in self._server.queue())
            or self._server.history(prompt_id) is not None
        )

    # --- off the server ---------------------------------------------------------------------------

    def _look(self) -> None:
        if not self._flights:
            return
        running, waiting = self._server.queue()
        self._check_moving(bool(waiting) and not running)
        for prompt_id, flight in list(self._flights.items()):
            if prompt_id in running:
                self._watch(prompt_id, flight)
            elif prompt_id not in waiting:
                self._land(prompt_id, flight)

    def _check_moving(self, stuck: bool) -> None:
        """Raises PilotError where the server's queue has stood still for the time of an item."""
        now = time.monotonic()
        self._stuck = (self._stuck or now) if stuck else None
        if self._stuck is not None and now - self._stuck > self._limits.timeout:
            raise PilotError(
                f"the server has not begun anything that waits in its queue for {self._limits.timeout:g} s. "
                "Restart it, then run the same command again"
            )

    def _watch(self, prompt_id: str, flight: Flight) -> None:
        now = time.monotonic()
        flight.started = flight.started or now
        if now - flight.started > self._limits.timeout:
            self._server.cancel([prompt_id])
            flight.stopped = flight.stopped or now
        if flight.stopped is not None and now - flight.stopped > LET_GO_SECONDS:
            raise PilotError(
                f"the server does not let go of {flight.task.item.name}, which was stopped after "
                f"{self._limits.timeout:g} s. Restart it, then "
                "run the same command again"
            )

    def _land(self, prompt_id: str, flight: Flight) -> None:
        try:
            entry = self._server.history(prompt_id)
        except BadAnswer as error:
            self._fail(flight.row, str(error))
            self._drop(prompt_id)
            return
        if entry is None:  # it was cleared away, or the server was started anew
            self._lose(prompt_id, flight, flight.started is not None)
            return
        self._silent = None
        if _is_stale(entry):
            self._renamed[flight.task.key] += 1
            self._lose(prompt_id, flight, False)
            return
        problem = _problem(entry)
        if problem == INTERRUPTED and flight.adopted and flight.stopped is None:  # by the run that queued it
            self._lose(prompt_id, flight, False)
            return
        try:
            found = {} if problem else self._fetch(flight, entry)
        except (PictureError, BadAnswer, ValueError) as error:
            found, problem = {}, f"the server's result cannot be used: {error}"
        except Unreachable as error:
            self._losses[flight.task.key] += 1
            if self._losses[flight.task.key] < MOST_LOSSES:
                raise
            found, problem = {}, f"its pictures do not come, {MOST_LOSSES} times: {error}"
        except Refused:
            self._renamed[flight.task.key] += 1
            self._lose(prompt_id, flight, True)
            return
        seconds = _seconds(entry)
        if problem:
            if flight.stopped is not None:
                problem = f"stopped after {self._limits.timeout:g} s (--timeout)"
            self._fail(flight.row | {"seconds": seconds}, problem)
        else:
            files = flight.row["files"] | found.pop("files")
            self._succeed(flight.row | found | {"files": files, "seconds": seconds})
        self._drop(prompt_id)

    def _lose(self, prompt_id: str, flight: Flight, costly: bool) -> None:
        """Queue a lost task again, unless it was lost too often; `costly`: after the server had begun it."""
        key = flight.task.key
        self._losses[key] += costly
        self._tries[key] += 1
        if self._losses[key] < MOST_LOSSES and self._tries[key] < MOST_TRIES:
            self._todo.appendleft(flight.task)
        else:
            self._fail(
                flight.row,
                f"the server went away, or lost the item or its pictures, {self._tries[key]} times over this "
                "item",
            )
        self._drop(prompt_id)

    def _drop(self, prompt_id: str) -> None:
        del self._flights[prompt_id]
        with contextlib.suppress(Unreachable, Refused):
            self._server.forget(prompt_id)

    def _fetch(self, flight: Flight, entry: Entry) -> dict:
        """Files and figures of a finished graph.

        Raises PictureError or ValueError where they are not what the graph makes.
        """
        contents: dict[str, bytes] = {}
        for node_id, name in (
            (workflow.EDITED, "edited"),
            (workflow.MASK, "mask"),
            (workflow.HEATMAP, "heatmap"),
        ):
            images = entry.output(node_id).images
            for i, image in enumerate(images if name == "edited" else images[:1]):
                title = f"edited_{i + 1}" if i else name
                # at full size the words are looked for on a small copy
                size = None if name == "heatmap" and self._forms.side is not None else flight.size
                contents[title] = png(whole(self._server.view(image), size, title))
        report = report_of_json(str((entry.output(workflow.FIGURES).text or [""])[0]))
        edited = sum(name.startswith("edited") for name in contents)
        if edited != len(report.pictures):
            raise ValueError(f"it has {edited} edited pictures and the figures of {len(report.pictures)}")
        found = {
            "figures": [plain(picture) for picture in report.pictures],
            "not_measured": dict(report.not_measured),
            "files": {name: self._keep(flight.task, name, content) for name, content in contents.items()},
        }
        try:
            verdicts = judge(report, self._policy)
        except ValueError as error:
            return found | {"verdict": "review", "reasons": [str(error)]}
        reasons = [reason for verdict in verdicts for reason in verdict.reasons]
        return found | {"verdict": worst(verdicts), "reasons": reasons}

    def _take_back(self) -> None:
        """Ends what is on the server; what was finished there is kept."""
        until = time.monotonic() + LET_GO_SECONDS
        self._server.cancel(list(self._flights))
        while self._server.queue()[0] & set(self._flights) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            self._server.cancel(list(self._flights))
        for prompt_id, flight in list(self._flights.items()):
            entry = self._server.history(prompt_id)
            if entry is not None and not _problem(entry) and flight.task.key not in self._book.keys:
                self._land(prompt_id, flight)
            else:
                self._server.forget(prompt_id)

    # --- into the journal -------------------------------------------------------------------------

    def _succeed(self, row: dict) -> None:
        self._edits += 1
        self._record(row | {"status": "ok"})

    def _fail(self, row: dict, error: str) -> None:
        self._record(row | {"status": "error", "error": error})

    def _record(self, row: dict) -> None:
        row |= {"finished": datetime.now(timezone.utc).isoformat(timespec="seconds")} | self._alarm.mark()
        self._book.append(row)
        audit.add_verdicts(self._book.folder, [row])
        self._done += 1
        say(f"[{self._done}/{self._total}] {_told(row)}{self._left()}")
        self._alarm.saw(row)

    def _left(self) -> str:
        if not self._edits or self._done == self._total:
            return ""
        seconds = (time.monotonic() - self._began) / self._edits * (self._total - self._done)
        return f"; about {duration(seconds)} left"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _told(row: dict) -> str:
    name = f"{row['name']} ({row['mode']})"
    if row["status"] == "error":
        return f"error   {name}: {row['error']}"
    psnr = row["figures"][0].get("background_psnr")
    seconds = "" if row["seconds"] is None else f", {row['seconds']:.1f} s"
    return (
        f"{row['verdict']:7} {name}: background {'-' if psnr is None else f'{float(psnr):.1f} dB'}{seconds}"
    )


def _row(task: Task) -> dict:
    item = task.item
    says = ("number", "name", "category", "source_prompt", "target_prompt", "words")
    said = {name: getattr(item, name) for name in says}
    more = {
        name: value for name in ("target_words", *LATER) if (value := getattr(item, name)) not in ("", None)
    }
    return {"key": task.key, "mode": task.mask} | said | more | {"files": {}}


def _values(item: Item, seed: int, picture: dict[str, str | int]) -> dict:
    return picture | {
        "source": item.source_prompt,
        "target": item.target_prompt,
        "words": item.words,
        "target_words": item.target_words,
        "has_words": bool(item.words),
        "seed": seed,
    }


def _is_stale(entry: Entry) -> bool:
    """Whether part of a result came from the server's cache, so that it does not name its pictures or
    figures.
    """
    cached = [data.get("nodes") for event, data in entry.status.messages if event == "execution_cached"]
    nodes = {node for found in cached if isinstance(found, list) for node in found if isinstance(node, str)}
    return bool(nodes.intersection(workflow.SHOWN) - set(entry.outputs))


def _problem(entry: Entry) -> str:
    """Why a graph did not finish; empty where it did."""
    messages = dict(entry.status.messages)
    if "execution_error" in messages:
        error = messages["execution_error"]
        said = str(error.get("exception_message", "")).strip() or error.get("exception_type", "an error")
        return f"{error.get('node_type', 'a node')}: {said}"
    if "execution_interrupted" in messages:
        return INTERRUPTED
    if entry.status.status_str != "success":
        return "the server says no more than that it failed"
    return (
        ""
        if workflow.FIGURES in entry.outputs
        else "the server made no figures: a node of the workflow held the picture back"
    )


def _seconds(entry: Entry) -> float | None:
    """How long the server worked on it, by its own clock in milliseconds; None where it does not say."""
    said = [data.get("timestamp") for _, data in entry.status.messages]
    times = [time for time in said if isinstance(time, (int, float)) and math.isfinite(time)]
    return round((max(times) - min(times)) / 1000, 3) if times else None
