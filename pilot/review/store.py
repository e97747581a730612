"""Who reviews, and what they decided: SQLite in the run's folder, or PostgreSQL for a team.

Every change is written with its line of the audit log in one transaction. The line then goes to the log,
once, even where the program is killed in between.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import (
    Float,
    String,
    Text,
    UniqueConstraint,
    create_engine,
    delete,
    event,
    select,
)
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from .. import journal
from . import audit

FILE = "review.sqlite"
ROLES = ("reviewer", "lead")
ACTIONS = ("approve", "reject", "again")
LEAD = 3  # the seat of a lead, after the first and the second
MOST_EYES = 2
LONGEST_NAME = 80


class ReviewError(Exception):
    """Why something of the review cannot be done, and what can."""


class Conflict(ReviewError):
    """Somebody else, or another tab, was faster."""


class Base(DeclarativeBase):
    pass


class Reviewer(Base):
    """token: sha256 of the secret in the link. removed: when the link was taken back; "" while it works."""

    __tablename__ = "reviewer"
    __table_args__ = (UniqueConstraint("run", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    run: Mapped[str] = mapped_column(String(32), index=True)
    name: Mapped[str] = mapped_column(String(LONGEST_NAME))
    role: Mapped[str] = mapped_column(String(16))
    token: Mapped[str] = mapped_column(String(64), unique=True)
    removed: Mapped[str] = mapped_column(String(40), default="")


class Vote(Base):
    """A vote on an item. seat: first, second, or LEAD; empty, as `live` is, when it does not count any more.

    ended: "", "undo" or "void". binding: what it was bound to, see candidates. seconds: on screen.
    eta, mask: for `again`, what to render it with (mask: sha256 of its file); without both, the seed changes.
    """

    __tablename__ = "vote"
    __table_args__ = (
        UniqueConstraint("run", "item", "seat"),
        UniqueConstraint("run", "item", "reviewer", "live"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    run: Mapped[str] = mapped_column(String(32), index=True)
    item: Mapped[str] = mapped_column(String(64))
    seat: Mapped[int | None]
    live: Mapped[bool | None]
    reviewer: Mapped[str] = mapped_column(String(LONGEST_NAME))
    role: Mapped[str] = mapped_column(String(16))
    action: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(16), default="")
    comment: Mapped[str] = mapped_column(Text, default="")
    binding: Mapped[str] = mapped_column(String(64))
    seconds: Mapped[float] = mapped_column(Float, default=0.0)
    eta: Mapped[float | None] = mapped_column(Float, default=None)
    mask: Mapped[str] = mapped_column(String(64), default="")
    cast: Mapped[str] = mapped_column(String(40))
    ended: Mapped[str] = mapped_column(String(8), default="")


class Setting(Base):
    __tablename__ = "setting"
    run: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    value: Mapped[float]


class Event(Base):
    """A line that is still to be written to the audit log. uid: tells whether it already was."""

    __tablename__ = "event"
    id: Mapped[int] = mapped_column(primary_key=True)
    run: Mapped[str] = mapped_column(String(32), index=True)
    uid: Mapped[str] = mapped_column(String(32))
    entry: Mapped[str] = mapped_column(Text)


@dataclass(frozen=True)
class Person:
    name: str
    role: str


class Store:
    """The reviews of one run. url: a database of SQLAlchemy's; without it, FILE in the folder.

    Raises ReviewError where the database cannot be used, JournalError where the folder holds no run.
    """

    def __init__(self, folder: Path, url: str = ""):
        run = journal.load(folder)
        if run is None:
            raise journal.JournalError(f"{folder} holds no run of a pilot: there is nothing to review")
        self.folder, self.run = folder, run["id"]
        self._engine = _engine(url or f"sqlite:///{(folder / FILE).resolve()}")
        with _told():
            Base.metadata.create_all(self._engine)
        self.drain()

    def close(self) -> None:
        self._engine.dispose()

    # --- people -----------------------------------------------------------------------------------

    def add_reviewer(self, name: str, role: str) -> str:
        """A new reviewer, or a new link for one -> the link's secret, which is kept nowhere."""
        if not name.strip() or name != name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
            raise ReviewError(
                f"{name!r} is no name: 1 to {LONGEST_NAME} printable characters, no space around"
            )
        if role not in ROLES:
            raise ReviewError(f"{role!r} is no role: {', '.join(ROLES)}")
        token = secrets.token_hex(32)
        with self._writing() as session:
            found = self._reviewer(session, name) or Reviewer(run=self.run, name=name)
            found.role, found.token, found.removed = role, token_hash(token), ""
            session.add(found)
            self._log(session, {"action": "reviewer", "who": name, "role": role, "link": "given"})
        return token

    def remove_reviewer(self, name: str) -> None:
        """Takes the link back; what the person decided stays."""
        with self._writing() as session:
            found = self._reviewer(session, name)
            if found is None or found.removed:
                raise ReviewError(f"nobody called {name} reviews this run")
            found.removed = audit.now()
            self._log(session, {"action": "reviewer", "who": name, "role": found.role, "link": "taken back"})

    def reviewers(self) -> list[Person]:
        with self._reading() as session:
            found = session.scalars(select(Reviewer).where(Reviewer.run == self.run, Reviewer.removed == ""))
            return [Person(one.name, one.role) for one in found]

    def who(self, token: str) -> Person | None:
        """Whose secret this is."""
        with self._reading() as session:
            asked = select(Reviewer).where(Reviewer.token == token_hash(token), Reviewer.run == self.run)
            found = session.scalar(asked.where(Reviewer.removed == ""))
            return found and Person(found.name, found.role)

    def _reviewer(self, session: Session, name: str) -> Reviewer | None:
        return session.scalar(select(Reviewer).where(Reviewer.run == self.run, Reviewer.name == name))

    # --- settings ---------------------------------------------------------------------------------

    def settings(self) -> dict[str, float]:
        """eyes: how many people see an item. share: percent of what passed that is drawn."""
        with self._reading() as session:
            return {s.name: s.value for s in session.scalars(select(Setting).where(Setting.run == self.run))}

    def settle(self, **wanted: float) -> None:
        """Sets eyes and share. Raises ReviewError where votes were cast by other eyes."""
        before = self.settings()
        if before == before | wanted:
            return
        if "eyes" in wanted and wanted["eyes"] != before.get("eyes") and self.votes():
            raise ReviewError(
                f"votes were cast with --eyes {before['eyes']:g}: keep to it to the end of this run"
            )
        with self._writing() as session:
            for name, value in wanted.items():
                session.merge(Setting(run=self.run, name=name, value=value))
            self._log(session, {"action": "settings", "who": "", "role": ""} | before | wanted)

    # --- votes ------------------------------------------------------------------------------------

    def votes(self, every: bool = False) -> list[Vote]:
        """The votes that count, oldest first; with `every`, those undone and void as well."""
        asked = select(Vote).where(Vote.run == self.run).order_by(Vote.id)
        with self._reading() as session:
            return list(session.scalars(asked if every else asked.where(Vote.live.is_(True))))

    def cast(self, vote: Vote, name: str, hashes: dict[str, str]) -> None:
        """Record a vote. name, hashes: the item's name and files, for the log. Raises Conflict."""
        vote.run, vote.live, vote.cast, vote.ended = self.run, True, audit.now(), ""
        said = {"item": vote.item, "name": name, "vote": vote.action, "seat": vote.seat}
        if vote.reason:
            said["reason"] = vote.reason
        if vote.comment:
            said["comment"] = vote.comment
        if vote.eta is not None:
            said["eta"] = vote.eta
        if vote.mask:
            said["mask"] = vote.mask
        bound = {"seconds": vote.seconds, "binding": vote.binding, "files": hashes}
        try:
            with self._writing() as session:
                session.add(vote)
                self._log(session, {"action": "vote", "who": vote.reviewer, "role": vote.role} | said | bound)
        except IntegrityError:
            raise Conflict("somebody else has just decided this item") from None

    def end(self, vote: Vote, how: str, by: Person | None = None, **why: str) -> None:
        """Takes a vote out: how is "undo" or "void". Raises Conflict where it does not count any more."""
        with self._writing() as session:
            found = session.get(Vote, vote.id)
            if found is None or not found.live:
                raise Conflict("this vote does not count any more")
            found.seat = found.live = None
            found.ended = how
            who = {"who": by.name, "role": by.role} if by else {"who": "", "role": ""}
            told = {"item": vote.item, "vote": vote.action, "of": vote.reviewer, "binding": vote.binding}
            self._log(session, {"action": how} | who | told | why)

    def log(self, entry: dict) -> str:
        """A line of the audit log that changes nothing else -> the log's head."""
        with self._writing() as session:
            self._log(session, entry)
        return audit.head(self.folder)

    # --- the way to the log -----------------------------------------------------------------------

    def _log(self, session: Session, entry: dict) -> None:
        session.add(Event(run=self.run, uid=uuid.uuid4().hex, entry=json.dumps(entry)))

    def drain(self) -> None:
        """Write the lines that wait to the audit log, each once."""
        with _told(), audit.locked(self.folder), Session(self._engine) as session, session.begin():
            waiting = list(session.scalars(select(Event).where(Event.run == self.run).order_by(Event.id)))
            if not waiting:
                return
            path = self.folder / audit.LOG
            written = path.read_bytes() if path.exists() else b""
            new = [one for one in waiting if one.uid.encode() not in written]
            if new:
                lines = [json.loads(one.entry) | {"uid": one.uid} for one in new]
                audit.append_locked(self.folder, lines)
            session.execute(delete(Event).where(Event.id.in_([one.id for one in waiting])))

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with _told(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session
        self.drain()

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        with _told(), Session(self._engine, expire_on_commit=False) as session:
            yield session


def token_hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def exists(folder: Path) -> bool:
    return (folder / FILE).exists()


def _engine(url: str) -> Engine:
    try:
        kind = make_url(url).get_backend_name()
        if kind not in ("sqlite", "postgresql"):
            raise ReviewError(f"--db is of {kind}: it must be postgresql+psycopg:// or sqlite:///")
        engine = create_engine(url, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise ReviewError(
            f'--db needs the Python package {error.name}: python -m pip install "psycopg[binary]"'
        ) from None
    except (ArgumentError, ValueError):  # its text may hold a password
        raise ReviewError(
            "--db is no address of a database: write it like postgresql+psycopg://user@host/name"
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _set_up(connection, _) -> None:
    """SQLite for several programs: readers beside one writer, who waits for its turn."""
    connection.isolation_level = None  # SQLAlchemy's BEGIN is the only one
    for pragma in ("busy_timeout = 30000", "journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")


@contextmanager
def _told() -> Iterator[None]:
    """A database's error in one line, without the address, which may hold a password."""
    try:
        yield
    except IntegrityError:
        raise
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise ReviewError(f"the database of the reviews cannot be used: {said}") from None
