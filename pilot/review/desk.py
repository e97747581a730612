"""Which item a person sees next, and what the votes on an item decide."""

from __future__ import annotations

import hashlib
import io
import json
import statistics
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from .. import alarm, journal, policy
from ..workflow import eta_of
from . import audit, candidates
from .candidates import Candidate
from .store import ACTIONS, LEAD, Conflict, Person, ReviewError, Store, Vote

AGAIN = "again.jsonl"
MASKS = "masks"  # the folder of those that reviewers drew
HELD_SECONDS, LONGEST_LOOK, LONGEST_COMMENT = 180.0, 600.0, 2000
GUESSED_SECONDS = 10.0  # for a look, before there is one
OPEN, SPLIT = "open", "split"  # outcomes besides ACTIONS


def outcome(votes: Iterable[Vote], eyes: int) -> str:
    """What the votes that count decide: one of ACTIONS, OPEN, or SPLIT where a lead has to decide."""
    by_seat = {vote.seat: vote.action for vote in votes}
    if LEAD in by_seat:
        return by_seat[LEAD]
    if len(by_seat) < eyes:
        return OPEN
    return by_seat.popitem()[1] if len(set(by_seat.values())) == 1 else SPLIT


def seat_for(votes: Iterable[Vote], eyes: int, person: Person) -> int | None:
    """The seat in which a person may vote on an item, or None. With two eyes a lead only settles splits."""
    votes = list(votes)
    if person.name in {vote.reviewer for vote in votes}:
        return None
    found = outcome(votes, eyes)
    if person.role == "lead" and eyes > 1:
        return LEAD if found == SPLIT else None
    taken = {vote.seat for vote in votes}
    return next((seat for seat in range(1, eyes + 1) if seat not in taken), None) if found == OPEN else None


def same_person(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()


@dataclass(frozen=True)
class Shown:
    """An item on its way to a person. earlier: for a lead, the votes that disagree."""

    candidate: Candidate
    earlier: tuple[Vote, ...]
    done: int
    left: int
    seconds_left: float
    following: Candidate | None


class Desk:
    """The review of a run's folder, for any number of threads. Each call sees whether the run has changed."""

    def __init__(self, folder: Path, store: Store, eyes: int | None = None, share: float | None = None):
        self._folder, self._store = folder, store
        rules = policy.of_run(journal.load(folder) or {}).rules
        before = {"eyes": rules.eyes, "share": rules.share} | store.settings()
        wanted = {"eyes": eyes, "share": share}
        settings = before | {name: value for name, value in wanted.items() if value is not None}
        if settings["eyes"] not in (1, 2) or not 0 <= settings["share"] <= 100:
            raise ReviewError("--eyes must be 1 or 2, and --share from 0 to 100 percent")
        store.settle(**settings)
        self.eyes, self.share = int(settings["eyes"]), settings["share"]
        self.reasons = rules.reasons
        self._lock = threading.Lock()
        self._held: dict[tuple[str, str], float] = {}  # (item, person) -> since when it is on screen
        self._items: dict[str, Candidate] = {}
        self._seen: object = None
        self.sync()

    # --- what there is ----------------------------------------------------------------------------

    def sync(self) -> None:
        """Read the run where it has changed, and void the decisions on what was rendered again."""
        with self._lock:
            stamp = _stamp(self._folder)
            if stamp != self._seen:
                audit.add_verdicts(self._folder)
                self._chosen = candidates.chosen(self._folder, self.share)
                self._seen = stamp
            run, rows, drawn = self._chosen
            before = self._items
            self._items = {
                row["key"]: candidates.candidate(
                    self._folder, run, row, row["key"] in drawn, before.get(row["key"])
                )
                for row in rows
            }
        for vote in self._store.votes():
            now = self._bound_now(vote.item)
            if now != vote.binding:
                why = (
                    "rendered again, or its policy or settings changed" if now else "not in the run any more"
                )
                try:
                    self._store.end(vote, "void", why=why, now=now)
                except Conflict:  # another program has just done it
                    continue
        self._write_again()

    def _bound_now(self, key: str) -> str:
        """What a decision on an item would be bound to now, whether or not the draw still has it."""
        if key in self._items:
            return self._items[key].binding
        run = journal.load(self._folder)
        for row in journal.each(self._folder) if run else []:
            if run and row["key"] == key and row["status"] == "ok":
                found = candidates.candidate(self._folder, run, journal.filled(row), True)
                if found.row["verdict"] != "reject":
                    self._items[key] = found
                return found.binding
        return ""

    def items(self) -> list[Candidate]:
        return list(self._items.values())

    def item(self, key: str) -> Candidate | None:
        return self._items.get(key)

    def votes(self) -> dict[str, list[Vote]]:
        """The votes that count, by item."""
        found: dict[str, list[Vote]] = {key: [] for key in self._items}
        for vote in self._store.votes():
            found.setdefault(vote.item, []).append(vote)
        return found

    def outcomes(self) -> dict[str, str]:
        votes = self.votes()
        return {key: outcome(votes[key], self.eyes) for key in self._items}

    # --- a person's turn --------------------------------------------------------------------------

    def next(self, person: Person, after: str = "") -> Shown | None:
        """The item for a person, the one after `after`; None where none waits for this person."""
        self.sync()
        votes = self.votes()
        free = [one for one in self.items() if self._may(one, votes[one.key], person)]
        if not free:
            return None
        keys = list(self._items)
        start = keys.index(after) + 1 if after in self._items else 0
        ahead = sorted(free, key=lambda one: (keys.index(one.key) - start) % len(keys))
        with self._lock:
            now = time.monotonic()
            self._held = {pair: at for pair, at in self._held.items() if now - at < HELD_SECONDS}
            spare = [one for one in ahead if self._is_spare(one, votes[one.key], person)] or ahead
            shown = spare[0]
            self._held = {pair: at for pair, at in self._held.items() if pair[1] != person.name}
            self._held[shown.key, person.name] = now
        mine = [vote for some in votes.values() for vote in some if vote.reviewer == person.name]
        pace = statistics.median([vote.seconds for vote in mine] or [GUESSED_SECONDS])
        earlier = tuple(votes[shown.key]) if person.role == "lead" else ()
        following = next((one for one in spare[1:] if one is not shown), None)
        return Shown(shown, earlier, len(mine), len(free), pace * len(free), following)

    def _is_spare(self, one: Candidate, votes: list[Vote], person: Person) -> bool:
        """Whether a vote is wanted beside those of the people who have the item on screen."""
        others = sum(item == one.key and name != person.name for item, name in self._held)
        return others < (1 if outcome(votes, self.eyes) == SPLIT else self.eyes - len(votes))

    def _may(self, one: Candidate, votes: list[Vote], person: Person) -> bool:
        return (
            bool(one.edits)
            and all(one.hashes.values())
            and not same_person(one.row.get("operator", ""), person.name)
            and seat_for(votes, self.eyes, person) is not None
        )

    def eta(self, one: Candidate) -> float | None:
        """What an item was rendered with; None where the workflow has no eta that an item may change."""
        own = one.row.get("eta")
        return own if own is not None else eta_of(self._chosen[0].get("nodes", {}))

    def paused(self) -> bool:
        """Whether the run's alarm rings, so that nothing new comes. Raises ReviewError."""
        try:
            return alarm.paused(self._folder) is not None
        except alarm.AlarmError as error:
            raise ReviewError(str(error)) from None

    def own(self, person: Person) -> int:
        """How many items are kept from a person because this person ran the edit."""
        return sum(same_person(one.row.get("operator", ""), person.name) for one in self.items())

    def vote(
        self,
        person: Person,
        key: str,
        binding: str,
        action: str,
        reason: str = "",
        comment: str = "",
        seconds: float = 0.0,
        eta: float | None = None,
        mask: bytes = b"",
    ) -> Candidate:
        """Record a vote on what the person saw. Raises ReviewError; Conflict where it changed meanwhile."""
        if (
            action not in ACTIONS
            or (action == "reject") != (reason in self.reasons)
            or len(comment) > LONGEST_COMMENT
        ):
            raise ReviewError(
                f"a vote is one of {', '.join(ACTIONS)}; a reject, and only it, has a reason of "
                f"{', '.join(self.reasons)}; a comment has at most {LONGEST_COMMENT} characters"
            )
        self.sync()
        one = self.item(key)
        if one is None:
            raise Conflict("this item is not up for review any more")
        if eta is not None and (action != "again" or self.eta(one) is None or not 0 <= eta <= 1):
            raise ReviewError(
                "an eta from 0 to 1 goes with what is sent back, where the workflow's Eta Schedule reads one"
            )
        if mask and action != "again":
            raise ReviewError("a mask goes with what is sent back")
        if same_person(one.row.get("operator", ""), person.name):
            raise ReviewError("who ran the edit may not decide on it")
        if one.binding != binding:
            raise Conflict("this item was rendered again while you looked at it")
        votes = self.votes()[key]
        seat = seat_for(votes, self.eyes, person)
        if seat is None:
            raise Conflict("this item does not wait for your vote any more")
        with self._lock:
            began = self._held.pop((key, person.name), time.monotonic() - LONGEST_LOOK)
        seconds = round(max(0.0, min(seconds, time.monotonic() - began, LONGEST_LOOK)), 1)
        vote = Vote(
            item=key,
            seat=seat,
            reviewer=person.name,
            role=person.role,
            action=action,
            reason=reason,
            comment=comment.strip(),
            binding=binding,
            seconds=seconds,
            eta=eta,
            mask=self._keep_mask(mask, one) if mask else "",
        )
        self._store.cast(vote, one.row["name"], dict(one.hashes))
        self._write_again()
        return one

    def _keep_mask(self, content: bytes, one: Candidate) -> str:
        """A mask that a reviewer drew, as a file of the run -> its sha256. Raises ReviewError."""
        size = tuple(one.row["size"])
        try:
            with Image.open(io.BytesIO(content), formats=("PNG",)) as opened:
                if opened.size != size:
                    given = f"{opened.width}x{opened.height}"
                    raise ReviewError(f"the mask is {given} pixels, the picture {size[0]}x{size[1]}")
                drawn = opened.convert("L").point([0] * 128 + [255] * 128)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ReviewError(f"the mask is no PNG that can be read: {error}") from None
        if drawn.getbbox() is None:
            raise ReviewError("the mask is empty: paint where the edit may act")
        out = io.BytesIO()
        drawn.save(out, "PNG")
        name = hashlib.sha256(out.getvalue()).hexdigest()
        journal.write(self._folder / MASKS / f"{name}.png", out.getvalue())
        return name

    def undo(self, person: Person) -> str:
        """Take a person's last vote back -> its item. Raises ReviewError where there is none, or too late."""
        votes = self.votes()
        mine = [vote for some in votes.values() for vote in some if vote.reviewer == person.name]
        if not mine:
            raise ReviewError("you have no vote to undo")
        last = max(mine, key=lambda vote: vote.id)
        if last.seat != LEAD and any(vote.seat == LEAD for vote in votes[last.item]):
            raise ReviewError("a lead has decided on this item: ask the lead")
        self._store.end(last, "undo", person)
        self._write_again()
        return last.item

    # --- sent back --------------------------------------------------------------------------------

    def _write_again(self) -> None:
        """again.jsonl: what was sent back, as items that `pilot run` takes, each with a new seed."""
        votes = self.votes()
        lines = [
            _again(one.row, votes[one.key])
            for one in self.items()
            if outcome(votes[one.key], self.eyes) == "again"
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        path = self._folder / AGAIN
        with self._lock:
            if (path.read_bytes() if path.exists() else b"") != text:
                journal.write(path, text)


def _again(row: dict, votes: list[Vote]) -> dict:
    """The item of a row with the last eta and mask asked for, else with another seed.

    Its picture is the run's own copy: it needs no other file.
    """
    said = {
        name: row[name]
        for name in ("name", "source_prompt", "target_prompt", "category", "words")
        if row[name]
    }
    more = ("target_words", "consent", "rights", "rights_until")
    said |= {name: row[name] for name in more if row.get(name)}
    files = {"picture": row["files"]["source"]}
    if "given_mask" in row["files"]:
        files["mask"] = row["files"]["given_mask"]
    seed = int(audit.digest([row["key"], row["seed"]])[:8], 16)
    exact = {"exact_words": True} if "target_words" in row else {}
    etas = [vote.eta for vote in votes if vote.eta is not None]
    masks = [vote.mask for vote in votes if vote.mask]
    changed: dict = {"seed": row["seed"] if etas or masks else seed}
    if etas:
        changed["eta"] = etas[-1]
    if masks:
        files["mask"] = f"{MASKS}/{masks[-1]}.png"
        changed["use_mask"] = "given"
    if not etas and row.get("eta") is not None:
        changed["eta"] = row["eta"]
    return files | said | exact | changed | {"again_of": row["key"]}


def _stamp(folder: Path) -> object:
    """Changes when results.jsonl or run.json does."""
    found = [(folder / name).stat() for name in (journal.RESULTS, journal.RUN) if (folder / name).exists()]
    return [(one.st_mtime_ns, one.st_size, one.st_ino) for one in found]
