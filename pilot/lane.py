"""One server's work: jobs go in, what became of them comes out. A lane reads no file and writes none."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from eta_core.evidence.report import Report, report_of_json

from . import models, workflow
from .answers import Entry
from .graph import Graph
from .pictures import PictureError, png, whole
from .server import BadAnswer, Refused, Server, Unreachable

POLL_SECONDS = 0.25
LET_GO_SECONDS = 60
MOST_LOSSES = 2  # of an item after it was seen running, and of its pictures
INTERRUPTED = "interrupted on the server"
PICTURES = ((workflow.EDITED, "edited"), (workflow.MASK, "mask"), (workflow.HEATMAP, "heatmap"))


@dataclass(frozen=True)
class Patience:
    """How long a run waits, and for how many items at once.

    timeout: seconds for an item. window: items on a server at a time. patience: seconds without any server.
    """

    timeout: float = 900.0
    window: int = 2
    patience: float = 600.0


@dataclass(frozen=True)
class Job:
    """An item, ready for any server.

    pictures: PNG files by the names they have on the server. size: width and height of the result, where the
    workflow leaves the picture's size. full_size: the heatmap is that of a small copy.
    """

    key: str
    name: str
    prompt_id: str
    graph: Graph
    pictures: Mapping[str, bytes]
    size: tuple[int, int] | None
    full_size: bool


@dataclass(frozen=True)
class Made:
    """pictures: PNG files by what they show. seconds: on the server, where it says so."""

    key: str
    report: Report
    pictures: Mapping[str, bytes]
    seconds: float | None


@dataclass(frozen=True)
class Failed:
    """took: {"seconds"} where the server has worked on it. refused: it would not take it."""

    key: str
    error: str
    refused: bool = False
    took: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Lost:
    """The server has it no more. begun: it was seen running. spoilt: the server's cache stands in its way."""

    key: str
    begun: bool = False
    spoilt: bool = False


Outcome = Made | Failed | Lost


@dataclass(frozen=True)
class Turn:
    """What a lane has to say. away, stuck: why the server is so; else empty.

    begun: keys seen running; where the server went away before one was, of the first, which may have begun.
    """

    outcomes: Sequence[Outcome]
    begun: frozenset[str] = frozenset()
    away: str = ""
    stuck: str = ""


class Stuck(Exception):
    """The server answers, but does not work."""


@dataclass
class Flight:
    """A job on the server.

    started, stopped: when it was first seen running, and when it was told to stop. adopted: an earlier run of
    the pilot queued it. missed: how often its pictures did not come.
    """

    job: Job
    adopted: bool = False
    started: float | None = None
    stopped: float | None = None
    missed: int = 0


class Lane:
    """Drives one server. Every turn it is told which jobs it holds, so that they can be taken from it."""

    def __init__(self, server: Server, limits: Patience):
        self._server, self._limits = server, limits
        self._new: list[Job] = []
        self._flights: dict[str, Flight] = {}
        self._strays: set[str] = set()  # ids of jobs that were taken away while the server was
        self._stuck: float | None = None
        self._away = False

    @property
    def name(self) -> str:
        """The server's address, as it may be shown."""
        return self._server.address

    # --- about the server -------------------------------------------------------------------------

    def object_info(self) -> dict:
        """Raises Unreachable or Refused."""
        return self._server.object_info()

    def about(self, names: Iterable[str], folders: Iterable[Path], known: dict) -> tuple[dict, dict]:
        """The server's versions, and the weights `names` that are on the lane's machine.

        folders: models folders to look in. known: what was found before. Raises Unreachable or Refused.
        """
        system = self._server.stats()
        roots = [*folders, *(models.roots_of(system.argv) if self._server.is_local else [])]
        versions = system.model_dump(include={"comfyui_version", "pytorch_version", "os"})
        return versions, models.described(names, roots, known)

    def known(self) -> set[str]:
        """Ids of what is queued, runs or was done lately. Raises Unreachable or Refused."""
        return set.union(*self._server.queue(), self._server.recent())

    def check(self, graph: Graph, folders: Iterable[Path], weights: dict) -> None:
        """Whether the server can run a graph, with these weights where the lane's machine has them.

        Raises WorkflowError or ModelsError where it cannot, and Unreachable or Refused.
        """
        workflow.check_models(graph, self._server.object_info())
        _, found = self.about(weights, folders, weights)
        models.check({name: about for name, about in found.items() if about}, weights)

    # --- the work ---------------------------------------------------------------------------------

    def turn(self, jobs: Sequence[Job], keys: Collection[str], finish: bool = False) -> Turn:
        """Queue `jobs`, and look once at all that the lane holds.

        keys: of every job it is to hold; others are dropped. finish: let what runs end, and give back the
        rest.
        """
        if not jobs:
            time.sleep(POLL_SECONDS)
        outcomes: list[Outcome] = []
        away = stuck = ""
        self._new += jobs
        self._hold(keys, outcomes)
        try:
            if finish:
                self._give_back(outcomes)
            self._launch(outcomes)
            self._look(outcomes)
        except Unreachable as error:
            away = str(error)
        except Stuck as error:
            stuck = str(error)
        begun = [flight.job.key for flight in self._flights.values() if flight.started is not None]
        self._away = bool(away)
        if away and not begun:
            begun = [flight.job.key for flight in self._flights.values()][:1]
        return Turn(outcomes, frozenset(begun), away, stuck)

    def stop(self) -> list[Outcome]:
        """Take back and interrupt everything -> what was finished all the same."""
        outcomes: list[Outcome] = []
        with contextlib.suppress(Unreachable, Refused):
            self._end(outcomes)
        return outcomes

    def _hold(self, keys: Collection[str], outcomes: list[Outcome]) -> None:
        gone = {prompt_id for prompt_id, flight in self._flights.items() if flight.job.key not in keys}
        self._strays |= gone
        for prompt_id in gone:
            del self._flights[prompt_id]
        self._new = [job for job in self._new if job.key in keys]
        held = {flight.job.key for flight in self._flights.values()} | {job.key for job in self._new}
        outcomes += [Lost(key) for key in keys if key not in held]  # of a worker that was started anew

    # --- onto the server --------------------------------------------------------------------------

    def _launch(self, outcomes: list[Outcome]) -> None:
        while self._new:
            job = self._new[0]
            try:
                prompt_id, adopted = self._queue(job)
            except Refused as error:
                outcomes.append(Failed(job.key, str(error), refused=True))
            else:
                self._strays.discard(prompt_id)
                self._flights[prompt_id] = Flight(replace(job, graph={}, pictures={}), adopted)
            self._new.pop(0)

    def _queue(self, job: Job) -> tuple[str, bool]:
        """Its id on the server, and whether it was there already."""
        if self._is_known(job.prompt_id):
            return job.prompt_id, True
        for name, content in job.pictures.items():
            self._server.upload(name, content)
        prompt_id = self._server.submit(job.prompt_id, job.graph)
        if prompt_id in self._flights:
            raise BadAnswer(f"the server gave it the id of another item ({prompt_id[:80]})")
        return prompt_id, False

    def _is_known(self, prompt_id: str) -> bool:
        return (
            any(prompt_id in ids for ids in self._server.queue())
            or self._server.history(prompt_id) is not None
        )

    # --- off the server ---------------------------------------------------------------------------

    def _look(self, outcomes: list[Outcome]) -> None:
        if not (self._flights or self._strays or self._away):
            return
        running, waiting = self._server.queue()
        self._clear_strays(running | waiting)
        self._check_moving(bool(waiting) and not running)
        for prompt_id, flight in list(self._flights.items()):
            if prompt_id in running:
                self._watch(prompt_id, flight)
            elif prompt_id not in waiting:
                self._land(prompt_id, flight, outcomes)

    def _clear_strays(self, there: set[str]) -> None:
        for prompt_id in self._strays - there:
            with contextlib.suppress(Refused):
                self._server.forget(prompt_id)
        self._strays &= there
        if self._strays:
            self._server.cancel(list(self._strays))

    def _check_moving(self, stands: bool) -> None:
        """Raises Stuck where the server's queue has stood still for the time of an item."""
        now = time.monotonic()
        self._stuck = (self._stuck or now) if stands else None
        if self._stuck is not None and now - self._stuck > self._limits.timeout:
            raise Stuck(
                f"the server has not begun anything that waits in its queue for {self._limits.timeout:g} s"
            )

    def _watch(self, prompt_id: str, flight: Flight) -> None:
        now = time.monotonic()
        flight.started = flight.started or now
        if now - flight.started > self._limits.timeout:
            self._server.cancel([prompt_id])
            flight.stopped = flight.stopped or now
        if flight.stopped is not None and now - flight.stopped > LET_GO_SECONDS:
            raise Stuck(
                f"the server does not let go of {flight.job.name}, which was stopped after "
                f"{self._limits.timeout:g} s"
            )

    def _land(self, prompt_id: str, flight: Flight, outcomes: list[Outcome]) -> None:
        found = self._outcome(prompt_id, flight)
        if found is not None:
            outcomes.append(found)
            self._drop(prompt_id)

    def _outcome(self, prompt_id: str, flight: Flight) -> Outcome | None:
        """What became of a job that is not in the queue any more; None where its pictures are yet to come."""
        key = flight.job.key
        try:
            entry = self._server.history(prompt_id)
        except BadAnswer as error:
            return Failed(key, str(error))
        if entry is None:  # it was cleared away, or the server was started anew
            return Lost(key, flight.started is not None)
        if _is_stale(entry):
            return Lost(key, spoilt=True)
        problem, seconds = _problem(entry), _seconds(entry)
        if problem == INTERRUPTED and flight.adopted and flight.stopped is None:  # by the run that queued it
            return Lost(key)
        if problem and flight.stopped is not None:
            problem = f"stopped after {self._limits.timeout:g} s (--timeout)"
        if problem:
            return Failed(key, problem, took={"seconds": seconds})
        try:
            return self._made(flight.job, entry, seconds)
        except (PictureError, BadAnswer, ValueError) as error:
            problem = f"the server's result cannot be used: {error}"
        except Refused:
            return Lost(key, begun=True, spoilt=True)
        except Unreachable as error:
            flight.missed += 1
            if flight.missed < MOST_LOSSES:
                return None
            problem = f"its pictures do not come, {MOST_LOSSES} times: {error}"
        return Failed(key, problem, took={"seconds": seconds})

    def _made(self, job: Job, entry: Entry, seconds: float | None) -> Made:
        """Pictures and figures of a finished graph.

        Raises PictureError or ValueError where they are not what the graph makes.
        """
        pictures: dict[str, bytes] = {}
        for node_id, name in PICTURES:
            images = entry.output(node_id).images
            for i, image in enumerate(images if name == "edited" else images[:1]):
                title = f"edited_{i + 1}" if i else name
                # at full size the words are looked for on a small copy
                size = None if name == "heatmap" and job.full_size else job.size
                pictures[title] = png(whole(self._server.view(image), size, title))
        report = report_of_json(str((entry.output(workflow.FIGURES).text or [""])[0]))
        edited = sum(name.startswith("edited") for name in pictures)
        if edited != len(report.pictures):
            raise ValueError(f"it has {edited} edited pictures and the figures of {len(report.pictures)}")
        return Made(job.key, report, pictures, seconds)

    def _drop(self, prompt_id: str) -> None:
        del self._flights[prompt_id]
        with contextlib.suppress(Unreachable, Refused):
            self._server.forget(prompt_id)

    # --- back from the server ---------------------------------------------------------------------

    def _give_back(self, outcomes: list[Outcome]) -> None:
        """Everything that does not run yet."""
        outcomes += [Lost(job.key) for job in self._new]
        self._new.clear()
        _, waiting = self._server.queue()
        if ours := waiting & set(self._flights):
            self._server.take_back(list(ours))

    def _end(self, outcomes: list[Outcome]) -> None:
        until = time.monotonic() + LET_GO_SECONDS
        ours = set(self._flights) | self._strays
        self._server.cancel(list(ours))
        while self._server.queue()[0] & ours and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            self._server.cancel(list(ours))
        for prompt_id, flight in list(self._flights.items()):
            entry = self._server.history(prompt_id)
            if entry is not None and not _problem(entry):
                self._land(prompt_id, flight, outcomes)
            else:
                self._server.forget(prompt_id)


class Handle(Protocol):
    """A lane somewhere. name: of its server, as it may be shown."""

    name: str

    def call(self, method: str, *given: Any) -> Future:
        """Begin a lane's method; calls are done one after another. Unreachable: the lane is not there."""
        ...


class LaneThread:
    """A lane on a thread of its own, since a request may take a minute."""

    def __init__(self, lane: Lane):
        self.name = lane.name
        self._lane, self._calls = lane, SimpleQueue()
        # a daemon, so that a server that hangs does not keep the program
        threading.Thread(target=self._work, name=f"lane {self.name}", daemon=True).start()

    def call(self, method: str, *given: Any) -> Future:
        done = Future()
        self._calls.put((done, method, given))
        return done

    def _work(self) -> None:
        while True:
            done, method, given = self._calls.get()
            try:
                done.set_result(getattr(self._lane, method)(*given))
            except BaseException as error:
                done.set_exception(error)


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
