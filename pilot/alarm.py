"""The alarm of a run: too many of the last items failed, so the run pauses until a person says to go on.

alarm.json in the run's folder holds every ring: {"id", "time", "failed", "of", "limit", "last", "items",
"command", "continued"}. A row that was finished after the n-th ring was continued says so (`after_alarm`: n),
so that the rows alone tell where the window begins, whenever the program was killed.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from eta_core.plain_json import read_json

from . import journal
from .answers import read
from .policy import Alarm
from .review import audit

FILE = "alarm.json"
COMMAND_SECONDS = 30.0
MOST_NAMES = 1000  # of items, in what the command gets
PAUSED = 3  # exit status


class AlarmError(Exception):
    """Why the alarm of a run cannot be read, heard or ended."""


class Continued(BaseModel):
    model_config = ConfigDict(extra="forbid")
    time: str
    who: str


class Ring(BaseModel):
    """failed: of the last `of` items; more than `limit` ring. items: the names of those that failed.

    command: how the user's command ended; "" while there is no end known. continued: who said to go on.
    """

    model_config = ConfigDict(extra="forbid")
    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    time: str
    failed: int
    of: int
    limit: int
    counts: list[Literal["review", "reject", "error"]]
    items: list[str]
    command: str = ""
    continued: Continued | None = None


class Rings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rings: list[Ring] = []


class Watch:
    """The alarm of a run that is at work: `saw` each row in order of finishing, then ask whether it `rings`.

    When what ran has ended, `tell` runs the user's command. rules: None for a policy without an alarm.
    command: argv. Raises AlarmError where alarm.json cannot be read.
    """

    def __init__(
        self, folder: Path, rules: Alarm | None, command: Sequence[str] = (), facts: dict | None = None
    ):
        self._folder, self._rules, self._command, self._facts = folder, rules, list(command), facts or {}
        self._rings = load(folder)
        self._window: list[dict] = []
        if self.rings:
            self._log()
        elif rules is not None:
            for row in journal.each(folder):  # a kill may have come before the ring was written
                if row.get("after_alarm", 0) == len(self._rings):
                    self.saw(row)

    @property
    def rings(self) -> Ring | None:
        """Why the run is paused; None while it is not."""
        return _unended(self._rings)

    def mark(self) -> dict[str, int]:
        """What a row gets before it is recorded: how many alarms were ended before it."""
        ended = sum(one.continued is not None for one in self._rings)
        return {"after_alarm": ended} if ended else {}

    def saw(self, row: dict) -> None:
        """A row that was just recorded. It may ring."""
        if self._rules is None or self.rings is not None:
            return
        self._window = [*self._window, row][-self._rules.last :]
        failed = [one for one in self._window if journal.outcome(one) in self._rules.counts]
        if len(failed) <= self._rules.failures:
            return
        ring = Ring(
            id=uuid.uuid4().hex,
            time=audit.now(),
            failed=len(failed),
            of=len(self._window),
            limit=self._rules.failures,
            counts=list(self._rules.counts),
            items=[one.get("name", "") for one in failed],
        )
        self._rings.append(ring)
        self._save()
        self._log()

    def go_on(self, who: str) -> None:
        """End the pause. Raises AlarmError where there is none."""
        ring = self.rings
        if ring is None:
            raise AlarmError("--continue: the run is not paused; leave it out")
        entry = {"action": "continue", "who": who, "role": "operator", "alarm": ring.id}
        audit.append_once(self._folder, entry)
        ring.continued = Continued(time=audit.now(), who=who)
        self._save()
        self._window = []

    def tell(self) -> None:
        """Run the user's command for a ring, unless a program before this one did."""
        ring = self.rings
        if ring is not None and self._command and not ring.command:
            ring.command = _run(self._command, self._folder, ring, self._facts)
            self._save()

    def _log(self) -> None:
        """The audit log's line, unless a program before this one wrote it."""
        ring = self.rings
        assert ring is not None
        entry = {"action": "alarm", "who": "", "role": "", "alarm": ring.id, "failed": ring.failed}
        entry |= {"of": ring.of, "limit": ring.limit, "counts": ring.counts, "items": ring.items}
        audit.append_once(self._folder, entry)

    def _save(self) -> None:
        text = Rings(rings=self._rings).model_dump_json(indent=1)
        journal.write(self._folder / FILE, text.encode())


def load(folder: Path) -> list[Ring]:
    """The rings of a run, oldest first. Raises AlarmError."""
    try:
        return read(Rings, read_json((folder / FILE).read_bytes(), "it")).rings
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise AlarmError(
            f"{folder / FILE} is damaged ({error}): put a whole one back, or use another --out"
        ) from None


def paused(folder: Path) -> Ring | None:
    """Why a run is paused; None where it is not. Raises AlarmError."""
    return _unended(load(folder))


def _unended(rings: Sequence[Ring]) -> Ring | None:
    """The last ring, unless a person has said to go on."""
    return rings[-1] if rings and rings[-1].continued is None else None


def words(ring: Ring) -> str:
    """A ring in a sentence."""
    kinds = " or ".join(ring.counts)
    return (
        f"{ring.failed} of the last {ring.of} items came out as {kinds}; the policy allows {ring.limit}. "
        f"Alarm at {ring.time[:16].replace('T', ' ')} UTC."
    )


def say_paused(ring: Ring) -> int:
    """Tell the user why the run is paused -> the exit status."""
    lines = [f"pilot: paused. {words(ring)}", f"The items: {names(ring.items)}"]
    lines += [f"--on-alarm {ring.command}."] if ring.command else []
    lines += ["When the cause is found, go on by the same command with --continue."]
    print("\n".join(lines), file=sys.stderr)
    return PAUSED


def parse(command: str) -> list[str]:
    """The words of --on-alarm, as a POSIX shell splits them; no shell ever sees them. Raises AlarmError."""
    try:
        found = shlex.split(command)
    except ValueError as error:
        raise AlarmError(f"--on-alarm {command!r} cannot be split into words: {error}") from None
    if not found or shutil.which(found[0]) is None:
        raise AlarmError(
            f"--on-alarm {command!r}: there is no program {''.join(found[:1])!r}; name one in full"
        )
    return found


def _run(command: list[str], folder: Path, ring: Ring, facts: dict) -> str:
    """How the user's command ended. It gets the facts as JSON on its input, and in its environment."""
    told = {"run": str(folder.resolve())} | facts | ring.model_dump(exclude={"command", "continued"})
    told["items"] = told["items"][:MOST_NAMES]
    names = ("id", "run", "policy", "failed", "of", "limit", "time")
    environ = {f"ETA_ALARM_{name.upper()}": str(told[name]) for name in names if name in told}
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            env={**os.environ, **environ},
            start_new_session=True,  # so that what it has started ends with it
        )
    except (OSError, ValueError) as error:
        return f"could not be started: {error}"
    try:
        process.communicate(json.dumps(told).encode(), COMMAND_SECONDS)
    except subprocess.TimeoutExpired:
        _kill(process)
        return f"had not ended after {COMMAND_SECONDS:g} s, and was killed"
    except BaseException:
        _kill(process)
        raise
    return f"ended with status {process.returncode}"


def _kill(process: subprocess.Popen) -> None:
    if os.name == "nt":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def names(items: Iterable[str], most: int = 20) -> str:
    items = list(items)
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
