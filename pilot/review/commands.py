"""The command line of the review: reviewers, review, verify, export."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .. import items
from . import audit, export, server
from .desk import Desk
from .store import ROLES, ReviewError, Store

HERE, PORT = "127.0.0.1", 8190


def add(parsers) -> None:
    """The parsers of these commands, beside those of the run."""
    people = parsers.add_parser("reviewers", help="who reviews a run: a secret link each", allow_abbrev=False)
    which = people.add_subparsers(required=True, metavar="add|remove|list")
    new = which.add_parser(
        "add", help="prints a secret link; for a known name, a new one", allow_abbrev=False
    )
    new.add_argument("name", metavar="NAME")
    new.add_argument("--role", choices=ROLES, default="reviewer", help="a lead settles disagreements")
    new.add_argument("--address", default=f"http://{HERE}:{PORT}", help="of the page; default: %(default)s")
    new.set_defaults(command=_add)
    gone = which.add_parser("remove", help="takes a link back", allow_abbrev=False)
    gone.add_argument("name", metavar="NAME")
    gone.set_defaults(command=_remove)
    listed = which.add_parser("list", help="names and roles", allow_abbrev=False)
    listed.set_defaults(command=_list)
    for parser in (new, gone, listed):
        parser.add_argument("--run", type=Path, required=True, metavar="DIR")
        _about_store(parser)
    review = parsers.add_parser("review", help="the page where people review a run", allow_abbrev=False)
    review.add_argument("run", type=Path, metavar="DIR")
    review.add_argument(
        "--eyes", type=int, choices=(1, 2), help="people who see an item; default: the policy's"
    )
    review.add_argument(
        "--share",
        type=float,
        metavar="PERCENT",
        help="of what passed, drawn to check the policy; default: the policy's",
    )
    review.add_argument(
        "--listen", default=HERE, metavar="ADDRESS", help="default: %(default)s, this machine alone"
    )
    review.add_argument("--port", type=int, default=PORT, help="default: %(default)s; 0: a free one")
    _about_store(review)
    review.set_defaults(command=_review)
    check = parsers.add_parser("verify", help="whether the audit log was changed", allow_abbrev=False)
    check.add_argument("run", type=Path, metavar="DIR")
    check.add_argument("--head", default="", metavar="HASH", help="as an export printed it, kept elsewhere")
    check.set_defaults(command=_verify)
    out = parsers.add_parser(
        "export", help="the approved pictures, a list, a contact sheet", allow_abbrev=False
    )
    out.add_argument("run", type=Path, metavar="DIR")
    out.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    out.add_argument(
        "--with-passed",
        action="store_true",
        help="also what the policy passed and the draw left out: no person saw it",
    )
    out.add_argument(
        "--items",
        type=Path,
        help="the run's list: pictures keep what the photographs' own files carry (colour profile, EXIF)",
    )
    _about_store(out)
    out.set_defaults(command=_export)


def _about_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--db",
        default="",
        metavar="URL",
        help="postgresql+psycopg://user@host/name for a team; default: review.sqlite in DIR",
    )


def _add(options: argparse.Namespace) -> None:
    token = Store(options.run, options.db).add_reviewer(options.name, options.role)
    print(
        f"{options.name}, {options.role}. The link is the key: give it to nobody else, it is shown only now."
    )
    print(f"{options.address.rstrip('/')}/#{token}")


def _remove(options: argparse.Namespace) -> None:
    Store(options.run, options.db).remove_reviewer(options.name)
    print(f"{options.name}'s link does not work any more; what {options.name} decided stays")


def _list(options: argparse.Namespace) -> None:
    people = Store(options.run, options.db).reviewers()
    print("\n".join(f"{one.name}, {one.role}" for one in people) or "nobody reviews this run yet")


def _review(options: argparse.Namespace) -> None:
    store = Store(options.run, options.db)
    desk = Desk(options.run, store, options.eyes, options.share)
    if not store.reviewers():
        raise ReviewError(f"nobody may review yet: python pilot reviewers add NAME --run {options.run}")
    server.serve(desk, store, options.listen, options.port)


def _verify(options: argparse.Namespace) -> None:
    found = audit.verify(options.run, options.head.strip().lower())
    for finding in found.findings:
        print(finding)
    if not found.findings:
        print(f"{found.lines} lines, each follows the one before. Head: {found.head}")
    if found.covered:
        later = found.lines - found.covered
        print(
            f"Line {found.covered} has the head given: nothing up to it was cut off or rewritten."
            + (f" It says nothing about the {later} lines after it." if later else "")
        )
    elif not options.head:
        print(audit.BLIND)
    if found.findings:
        sys.stdout.flush()
        raise audit.AuditError(f"the audit log is not as it was written: {len(found.findings)} findings")


def _export(options: argparse.Namespace) -> None:
    store = Store(options.run, options.db)
    listed = [] if options.items is None else items.load(options.items)
    photographs = {item.key: item.folder / item.picture for item in listed}
    print(export.write(Desk(options.run, store), store, options.out, options.with_passed, photographs))
