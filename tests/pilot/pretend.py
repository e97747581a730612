"""ComfyUI in memory, for what a run does when servers and alarms fail at once: every moment can be chosen."""

from __future__ import annotations

import json
from collections.abc import Callable

from pilot import answers, lane, run
from pilot.server import Unreachable
from tests.attack.broken import INFO, STATS, entry, png

LOOKS = 3  # at the queue, which an item runs


class Pretend:
    """What pilot.server.Server is, for one lane. An item ends when its queue was looked at LOOKS times.

    fails: what each request raises. misses: how many requests go unanswered. begins, runs, submits: called
    before an item begins, at each look at one that runs, and before one is taken. nodes: that it has. begun:
    ids, in order.
    """

    is_local = False

    def __init__(self, address: str):
        self.address, self.nodes = address, dict(INFO)
        self.fails: Exception | None = None
        self.misses = 0
        self.begins: Callable[[Pretend], None] = lambda _: None
        self.runs: Callable[[Pretend], None] = lambda _: None
        self.submits: Callable[[Pretend], None] = lambda _: None
        self.begun: list[str] = []
        self.waiting: list[str] = []
        self.running, self.looked = "", 0
        self._done: dict[str, dict] = {}

    def _answer(self) -> None:
        if self.misses:
            self.misses -= 1
            raise Unreachable(f"{self.address} does not answer")
        if self.fails is not None:
            raise self.fails

    @property
    def held(self) -> list[str]:
        """What runs and waits."""
        return [one for one in (self.running, *self.waiting) if one]

    def restart(self) -> None:
        """It comes back, and knows nothing of before."""
        self.fails, self.running, self.waiting, self._done = None, "", [], {}

    def leave(self) -> None:
        self.fails = Unreachable(f"{self.address} does not answer")

    def object_info(self) -> dict:
        self._answer()
        return self.nodes

    def stats(self) -> answers.System:
        self._answer()
        return answers.read(answers.Stats, STATS).system

    def submit(self, prompt_id: str, graph: dict) -> str:
        self._answer()
        self.submits(self)
        self.waiting.append(prompt_id)
        return prompt_id

    def queue(self) -> tuple[set[str], set[str]]:
        if self.running:
            self.runs(self)
        self._answer()
        self.looked += 1
        if self.running and self.looked > LOOKS:
            self._end(entry())
        if not self.running and self.waiting:
            self.begins(self)
            self._answer()
            self.running, self.looked = self.waiting.pop(0), 0
            self.begun.append(self.running)
        return {self.running} - {""}, set(self.waiting)

    def _end(self, found: dict) -> None:
        self._done[self.running] = found
        self.running = ""

    def history(self, prompt_id: str) -> answers.Entry | None:
        self._answer()
        found = self._done.get(prompt_id)
        return None if found is None else answers.read(answers.Entry, json.loads(json.dumps(found)))

    def recent(self) -> set[str]:
        self._answer()
        return set(self._done)

    def forget(self, prompt_id: str) -> None:
        self._answer()
        self._done.pop(prompt_id, None)

    def take_back(self, prompt_ids: list[str]) -> None:
        self._answer()
        self.waiting = [one for one in self.waiting if one not in prompt_ids]

    def cancel(self, prompt_ids: list[str]) -> None:
        self.take_back(prompt_ids)
        if self.running in prompt_ids:
            self._end(entry(status="error", messages=[["execution_interrupted", {}]]))

    def upload(self, name: str, content: bytes) -> str:
        self._answer()
        return f"eta-pilot/{name} [temp]"

    def view(self, image: answers.Image) -> bytes:
        self._answer()
        return png()


def at_once(monkeypatch) -> None:
    """Let no run wait longer than it must."""
    for module in (lane, run):
        monkeypatch.setattr(module, "POLL_SECONDS", 0.005)
    monkeypatch.setattr(run, "GRACE_SECONDS", 0.1)
