"""Items through running servers: a few queued on each at a time, each recorded as soon as it is done.

The run hands tasks to workers, one for each server, and alone writes the journal and the audit log.
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from functools import cache
from pathlib import Path

from eta_core.evidence.policy import Policy, judge, worst
from eta_core.evidence.report import plain

from . import journal, workflow
from .alarm import Watch
from .graph import Graph
from .items import LATER, Item, lacks_rights
from .lane import (
    LET_GO_SECONDS,
    MOST_LOSSES,
    POLL_SECONDS,
    Failed,
    Handle,
    Job,
    Lost,
    Made,
    Outcome,
    Patience,
    Turn,
)
from .models import ModelsError
from .pictures import PictureError, png, prepare
from .review import audit
from .server import FOLDER, SECONDS, Refused, Unreachable
from .workflow import Clip, Form, WorkflowError

MOST_WRONG = 3  # refusals of a server's
MOST_TRIES = 5  # of an item, with those after which it was not seen running
GRACE_SECONDS = 10  # for a server that is only being started again, before others do its items
TELL_SECONDS = 10  # between two lines about the servers
PICTURES = "pictures"
PYTHONS_OWN = signal.default_int_handler


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


@dataclass(frozen=True)
class Work:
    """What there is to do, and how.

    example: a graph that every server must be able to run. folders: to look for its weights. policy: the
    limits that judge an edit. seed: of items without one of their own.
    """

    tasks: Sequence[Task]
    forms: Forms
    example: Graph
    folders: Sequence[Path]
    policy: Policy
    seed: int
    max_side: int
    operator: str
    require_rights: bool


@dataclass(frozen=True)
class Held:
    """A task that a worker has, and what its row says so far."""

    task: Task
    row: dict
    prompt_id: str


@dataclass
class Worker:
    """One server, as the run sees it.

    held: the tasks that it has, by key. jobs: of these, what its lane does not know yet. begun: keys seen
    running. silent: since when the server is away, until it is back and checked. is_checked: its turn is that
    check. wrong: how often it refused what another has done. retired: it does no more items in this run.
    """

    lane: Handle
    held: dict[str, Held] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    begun: frozenset[str] = frozenset()
    turn: Future | None = None
    silent: float | None = None
    is_checked: bool = False
    wrong: int = 0
    retired: bool = False
    made: int = 0
    failed: int = 0

    @property
    def name(self) -> str:
        return self.lane.name

    def take_turn(self, finish: bool) -> None:
        jobs, self.jobs = self.jobs, []
        self.turn = self.lane.call("turn", jobs, set(self.held), finish)


def say(line: str) -> None:
    print(line, flush=True)  # at once into a log file too


class Pilot:
    """run() works through the tasks, leaving out those in the journal. run: the content of run.json."""

    def __init__(
        self,
        lanes: Sequence[Handle],
        limits: Patience,
        work: Work,
        book: journal.Journal,
        run: dict,
        watch: Watch,
    ):
        self._workers = [Worker(lane) for lane in lanes]
        self._limits, self._work, self._book, self._run, self._alarm = limits, work, book, run, watch
        self._verdicts = audit.Verdicts(book.folder)
        self._keys = [task.key for task in work.tasks]
        self._todo = deque(task for task, key in zip(work.tasks, self._keys) if key not in book.keys)
        self._total, self._done = len(work.tasks), len(work.tasks) - len(self._todo)
        self._losses: Counter[str] = Counter()
        self._tries: Counter[str] = Counter()
        self._renamed: Counter[str] = Counter()
        self._refused: dict[str, Worker] = {}  # who refused an item that another is to try
        self._at: dict[str, Worker] = {}  # what an earlier run left there, by id
        self._closing = False
        self._said: set[str] = set()
        self._began, self._edits = time.monotonic(), 0
        self._told_item = self._told_servers = self._began

    def run(self) -> None:
        """Work through the tasks, or until the alarm rings and what ran has ended.

        Raises KeyboardInterrupt after the second Ctrl-C, when what ran was interrupted. Unless the alarm
        rings, raises it also after the first, when what ran has ended, and PilotError or Refused where no
        server works on or an item is left without a row.
        """
        try:
            with self._closed_by_ctrl_c():
                self._look_for_left()
                while self._is_at_work():
                    self._step()
        except KeyboardInterrupt:
            self._take_back()
            raise
        except (PilotError, Refused) as error:
            if not self._alarm.rings:
                raise
            say(str(error))
        if self._alarm.rings:
            return
        if self._closing:
            raise KeyboardInterrupt
        lost = [key for key in self._keys if key not in self._book.keys]
        if lost:
            raise PilotError(
                f"{len(lost)} items of {self._total} have no result; run the same command again to do them"
            )

    def _may_hand_out(self) -> bool:
        return not (self._closing or self._alarm.rings)

    def _is_at_work(self) -> bool:
        return any(worker.held for worker in self._workers) or bool(self._todo and self._may_hand_out())

    def _step(self) -> None:
        if not self._may_hand_out():
            how = ". Ctrl-C again interrupts it" if self._closing else ""
            self._say_once(f"nothing more is begun; what runs may end{how}")
        workers = self._live()
        for worker in workers:
            if worker.turn is None:
                self._fill(worker)
                worker.take_turn(not self._may_hand_out())
        turns = [worker.turn for worker in workers if worker.turn is not None]
        done, _ = wait(turns, POLL_SECONDS, FIRST_COMPLETED)
        for worker in workers:
            if worker.turn in done:
                heard = self._welcome if worker.is_checked else self._hear
                heard(worker)
        for worker in workers:
            if worker.wrong >= MOST_WRONG and not worker.retired and len(self._live()) > 1:
                self._retire(worker, "it refuses what other servers do")
        self._tell_servers()

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            say(line)

    def _live(self) -> list[Worker]:
        return [worker for worker in self._workers if not worker.retired]

    @contextlib.contextmanager
    def _closed_by_ctrl_c(self) -> Iterator[None]:
        """The first Ctrl-C closes the run, the second raises KeyboardInterrupt as ever."""
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or before is not PYTHONS_OWN:
            yield
            return

        def close(*_: object) -> None:
            signal.signal(signal.SIGINT, PYTHONS_OWN)
            self._closing = True

        signal.signal(signal.SIGINT, close)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, PYTHONS_OWN)

    # --- to a server ------------------------------------------------------------------------------

    def _look_for_left(self) -> None:
        """What an earlier run left on one of several servers is not queued on another."""
        if len(self._workers) == 1 or not self._todo:
            return
        asked = [(worker, worker.lane.call("known")) for worker in self._workers]
        for worker, found in asked:
            with contextlib.suppress(Unreachable, Refused):
                self._at |= dict.fromkeys(found.result(), worker)

    def _fill(self, worker: Worker) -> None:
        while (
            self._todo
            and len(worker.held) < self._limits.window
            and worker.silent is None
            and self._may_hand_out()
            and not self._is_for_others(self._todo[0], worker)
        ):
            self._hand_out(self._todo[0], worker)
            self._todo.popleft()

    def _is_for_others(self, task: Task, worker: Worker) -> bool:
        return (
            bool(self._refused)
            and self._refused.get(task.key) is worker
            and any(one is not worker and one.silent is None for one in self._live())
        )

    def _hand_out(self, task: Task, worker: Worker) -> None:
        operator = self._work.operator
        row = _row(task) | ({"operator": operator} if operator else {})
        try:
            job, about = self._prepared(task)
        except (PictureError, WorkflowError) as error:
            self._fail(row, str(error))
            return
        owner = self._at.pop(job.prompt_id, worker)
        if owner.silent is not None or owner.retired:
            owner = worker
        owner.held[task.key] = Held(task, row | about, job.prompt_id)
        owner.jobs.append(job)

    def _prepared(self, task: Task) -> tuple[Job, dict]:
        """The job, and what the row says of it. Raises PictureError or WorkflowError."""
        item, work = task.item, self._work
        if item.error:
            raise PictureError(item.error)
        lacks = lacks_rights(item, date.today()) if work.require_rights else ""
        if lacks:
            raise PictureError(lacks)
        used, form = work.forms.of(task)
        is_full_size = work.forms.side is not None
        prepared = prepare(item, work.max_side, is_full_size)
        seed = work.seed if item.seed is None else item.seed
        again = f"-{n}" if (n := self._renamed[task.key]) else ""  # past the server's cache
        pictures = {"picture": prepared.picture, "small": prepared.small, "mask": prepared.mask}
        names = {which: f"{self._run['id'][:8]}-{task.key}-{which}{again}.png" for which in pictures}
        files = {which: f"{FOLDER}/{name} [temp]" for which, name in names.items()}
        values = files | dict(zip(("width", "height"), prepared.picture.size))
        graph = form.filled(_values(item, seed, values))
        if item.eta is not None:
            graph = workflow.with_eta(graph, item.eta)
        says = json.dumps([task.key, graph], sort_keys=True)
        prompt_id = str(uuid.uuid5(uuid.UUID(self._run["id"]), says))
        # newer hosts read white in a grey picture as 254 of 255
        uploads = {names[which]: png(one.convert("RGB")) for which, one in pictures.items() if one}
        size = prepared.picture.size if form.keeps_size else None
        job = Job(task.key, item.name, prompt_id, graph, uploads, size, is_full_size)
        contents = {"source": uploads[names["picture"]]}
        if prepared.mask:
            contents["given_mask"] = png(prepared.mask)
        about = {
            "size": prepared.picture.size,
            "given_size": prepared.given,
            "files": {name: self._keep(task, name, content) for name, content in contents.items()},
            "mask": used,
            "scored": form.scored,
            "seed": seed,
        }
        return job, about

    def _keep(self, task: Task, name: str, content: bytes) -> str:
        path = f"{PICTURES}/{task.key}/{name}.png"
        journal.write(self._book.folder / path, content)
        return path

    # --- from a server ----------------------------------------------------------------------------

    def _hear(self, worker: Worker) -> None:
        assert worker.turn is not None
        try:
            turn: Turn = worker.turn.result()
        except Unreachable as error:
            turn = Turn([], worker.begun, away=str(error))
        except Refused as error:
            if len(self._live()) == 1:
                raise
            turn = Turn([], worker.begun, stuck=f"it refuses to work: {error}")
        worker.turn = None
        for outcome in turn.outcomes:
            self._settle(worker, outcome)
        worker.begun = turn.begun
        if turn.stuck:
            self._retire(worker, turn.stuck)
        elif turn.away:
            self._bear(worker, turn.away)
        elif worker.silent is not None:
            needs = (self._work.example, self._work.folders, self._run.get("models", {}))
            worker.turn = worker.lane.call("check", *needs)
            worker.is_checked = True

    def _welcome(self, worker: Worker) -> None:
        """A server that came back gets items again where it still has what the run needs."""
        assert worker.turn is not None
        checked, worker.turn, worker.is_checked = worker.turn, None, False
        try:
            checked.result()
        except Unreachable as error:
            self._bear(worker, str(error))
        except (Refused, WorkflowError, ModelsError, OSError) as error:
            self._retire(worker, f"it came back, but {error}")
        else:
            worker.silent = None
            if len(self._workers) > 1:
                say(f"{worker.name} answers again")

    def _settle(self, worker: Worker, outcome: Outcome) -> None:
        held = worker.held.pop(outcome.key)
        refuser = None if isinstance(outcome, Lost) else self._refused.pop(outcome.key, None)
        if isinstance(outcome, Made):
            if refuser is not None:
                refuser.wrong += 1
            self._succeed(held, outcome, worker)
        elif isinstance(outcome, Failed):
            if outcome.refused and refuser is None and len(self._live()) > 1:
                self._refused[outcome.key] = worker
                self._todo.appendleft(held.task)
            else:
                self._fail(held.row | outcome.took, outcome.error, worker)
        elif self._may_hand_out():
            self._renamed[outcome.key] += outcome.spoilt
            self._lose(held, outcome.begun)

    def _lose(self, held: Held, costly: bool) -> None:
        """Queue a lost task again, unless it was lost too often; `costly`: after a server had begun it."""
        key = held.task.key
        self._losses[key] += costly
        self._tries[key] += 1
        if self._losses[key] < MOST_LOSSES and self._tries[key] < MOST_TRIES:
            self._todo.appendleft(held.task)
        else:
            self._fail(
                held.row,
                f"the server went away, or lost the item or its pictures, {self._tries[key]} times over this "
                "item",
            )

    def _bear(self, worker: Worker, error: str) -> None:
        """Wait for a server that went away: alone with patience, else in case it starts anew."""
        now = time.monotonic()
        if worker.silent is None:
            worker.silent = now
            seconds = self._limits.patience if self._may_hand_out() else GRACE_SECONDS
            others = any(one.silent is None for one in self._live())
            say(f"{error}; {'the others go on' if others else f'waiting up to {seconds:g} s for it'}")
        away = [one.silent for one in self._live() if one.silent is not None]
        if not self._may_hand_out():
            if now - worker.silent > GRACE_SECONDS:
                worker.held, worker.jobs = {}, []  # left there: the run that goes on finds it
        elif len(away) < len(self._live()):
            if now - worker.silent > GRACE_SECONDS:
                self._take_from(worker)
        elif now - max(away) > self._limits.patience:
            raise PilotError(
                f"{error}. Start it, then run the same command again: it goes on where it stopped"
            )

    def _retire(self, worker: Worker, why: str) -> None:
        worker.retired = True
        if not self._live():
            raise PilotError(f"{worker.name}: {why}. Restart it, then run the same command again")
        say(f"{worker.name}: {why}; it gets no more items in this run")
        self._take_from(worker)
        worker.lane.call("turn", [], ())  # what it has yet to begin is not begun

    def _take_from(self, worker: Worker) -> None:
        """A worker's tasks go back. What ran may be to blame."""
        held, worker.held, worker.jobs = worker.held, {}, []
        for key in reversed(held):
            if key in worker.begun:
                self._lose(held[key], True)
            else:
                self._todo.appendleft(held[key].task)

    def _take_back(self) -> None:
        """Ends what is on the servers; what was finished there is kept."""
        busy = [worker for worker in self._live() if worker.held]
        ends = [
            (worker, None if worker.is_checked else worker.turn, worker.lane.call("stop")) for worker in busy
        ]
        wait([end for *_, end in ends], LET_GO_SECONDS + SECONDS)
        for worker, turn, end in ends:
            for found in (turn, end):
                if found is None or not found.done() or found.exception():
                    continue
                outcomes = found.result().outcomes if found is turn else found.result()
                for outcome in outcomes:
                    if not isinstance(outcome, Lost) and outcome.key in worker.held:
                        self._settle(worker, outcome)

    # --- into the journal -------------------------------------------------------------------------

    def _succeed(self, held: Held, made: Made, worker: Worker) -> None:
        files = {name: self._keep(held.task, name, content) for name, content in made.pictures.items()}
        row = held.row | {
            "figures": [plain(picture) for picture in made.report.pictures],
            "not_measured": dict(made.report.not_measured),
            "files": held.row["files"] | files,
            "seconds": made.seconds,
        }
        try:
            verdicts = judge(made.report, self._work.policy)
            reasons = [reason for verdict in verdicts for reason in verdict.reasons]
            row |= {"verdict": worst(verdicts), "reasons": reasons}
        except ValueError as error:
            row |= {"verdict": "review", "reasons": [str(error)]}
        self._edits += 1
        worker.made += 1
        self._record(row | {"status": "ok", "server": worker.name})

    def _fail(self, row: dict, error: str, worker: Worker | None = None) -> None:
        row |= {"status": "error", "error": error}
        if worker is not None:
            worker.failed += 1
            row |= {"server": worker.name}
        self._record(row)

    def _record(self, row: dict) -> None:
        """Write down an item's end, which may ring the alarm."""
        row |= {"finished": datetime.now(timezone.utc).isoformat(timespec="seconds")} | self._alarm.mark()
        self._book.append(row)
        self._verdicts.add(row)
        self._done += 1
        now = time.monotonic()
        few = len(self._workers) == 1 or self._done == self._total or row["status"] == "error"
        if few or now - self._told_item > 1:
            self._told_item = now
            say(f"[{self._done}/{self._total}] {_told(row)}{self._left()}")
        self._alarm.saw(row)

    def _tell_servers(self) -> None:
        now = time.monotonic()
        if len(self._workers) == 1 or now - self._told_servers < TELL_SECONDS:
            return
        self._told_servers = now
        minutes = (now - self._began) / 60
        for one in self._workers:
            state = "retired" if one.retired else "away" if one.silent is not None else "at work"
            rate = f"{(one.made + one.failed) / minutes:.1f} a minute"
            say(f"  {one.name}: {one.made} done, {one.failed} failed, {rate}, {state}")

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
