"""A team's reviews in PostgreSQL, by the code that keeps them in SQLite. Debian: apt install postgresql."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from devtools.server import free_port
from pilot.review import audit
from pilot.review.desk import Desk
from pilot.review.store import Person, ReviewError, Store
from tests.pilot.reviewed import make_run, race

FOUND = [
    *map(Path, filter(None, [shutil.which("initdb")])),
    *Path("/usr/lib/postgresql").glob("*/bin/initdb"),
]


@pytest.fixture(scope="module")
def database():
    """The address of a PostgreSQL of our own, which root's own rules make run as Debian's user postgres."""
    if not FOUND:
        pytest.skip("no PostgreSQL found (apt install postgresql): --db postgresql+psycopg:// is not tested")
    pytest.importorskip(
        "psycopg", reason="psycopg is not installed: --db postgresql+psycopg:// is not tested"
    )
    programs, port = FOUND[-1].parent, free_port()
    folder = Path(tempfile.mkdtemp(prefix="eta-postgresql-"))  # pytest's own folders are closed to others
    as_user = []
    if os.geteuid() == 0:
        as_user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres")
    data = folder / "data"
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"

    def call(*command: object) -> None:
        subprocess.run([*as_user, *map(str, command)], check=True, cwd=folder, stdout=subprocess.DEVNULL)

    call(programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync")
    call(programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start")
    try:
        yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    finally:
        call(programs / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder)


def test_several_servers_share_one_database_and_no_seat(tmp_path, database):
    runs = [make_run(tmp_path / name, ["review"] * 6, size=8) for name in ("one", "other")]
    stores = [Store(runs[0], database) for _ in range(3)]
    token = stores[0].add_reviewer("Anna", "lead")
    assert stores[1].who(token) == Person("Anna", "lead") and Store(runs[1], database).who(token) is None
    desks = [Desk(runs[0], store) for store in stores]
    won, lost, failed = race(desks)
    assert not failed and len(won) == len(set(won)) == 6 and len(lost) == 12
    assert not (runs[0] / "review.sqlite").exists()
    found = audit.verify(runs[0])
    assert (
        found.findings == () and found.lines == 1 + 6 + 1 + 1 + 6
    )  # run, verdicts, reviewer, settings, votes
    other = Desk(runs[1], Store(runs[1], database))
    assert set(other.outcomes().values()) == {"open"}


def test_undo_and_void(tmp_path, database):
    folder = make_run(tmp_path, ("review",), size=8)
    desk, anna = Desk(folder, Store(folder, database)), Person("Anna", "reviewer")
    for _ in range(2):
        one = desk.items()[0]
        desk.vote(anna, one.key, one.binding, "approve")
        desk.undo(anna)
    assert set(desk.outcomes().values()) == {"open"}


def test_a_database_that_is_away_is_told_without_its_password(tmp_path):
    pytest.importorskip(
        "psycopg", reason="psycopg is not installed: --db postgresql+psycopg:// is not tested"
    )
    make_run(tmp_path, ("review",), size=8)
    with pytest.raises(ReviewError, match="cannot be used") as told:
        Store(tmp_path, f"postgresql+psycopg://me:hunter2@127.0.0.1:{free_port()}/x")
    assert "hunter2" not in str(told.value)


def test_a_missing_psycopg_is_named(tmp_path, monkeypatch):
    make_run(tmp_path, ("review",), size=8)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ReviewError, match=r'python -m pip install "psycopg\[binary\]"'):
        Store(tmp_path, "postgresql+psycopg://me@127.0.0.1/x")
