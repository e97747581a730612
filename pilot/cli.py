"""The command line.

    python pilot run ITEMS --out DIR [--workflow FILE] [--mask auto|given|both|none]
                     [--set NODE.input=VALUE ...] [--full-size]
                     [--policy NAME|FILE] [--on-alarm COMMAND] [--continue] [--unchecked]
                     [--model [LABEL=]NAME ... --try NODE.input=VALUE,VALUE --baseline LABEL]
    python pilot compare DIR [DIR ... --out DIR] [--baseline LABEL]
    python pilot policy copy NAME FILE
    python pilot policy show NAME|FILE
    python pilot policy trust FILE --run DIR
    python pilot report DIR
    python pilot verify-picture FILE
    python pilot pie ITEMS --checkpoint NAME --out DIR
    python pilot reviewers add NAME --role reviewer|lead --run DIR
    python pilot review DIR [--eyes 1|2] [--share PERCENT]
    python pilot verify DIR [--head HASH]
    python pilot export DIR --out FOLDER

ITEMS is a CSV, JSON or JSONL file, or a folder with items.csv, items.json, items.jsonl or PIE-Bench's
mapping_file.json. `run` needs a running ComfyUI with this pack (--server), several, or a Ray cluster of them
(--ray); the same command again goes on where an earlier one stopped. Every picture, results.jsonl and
report.html are in DIR. With --model or --try each model and setting has a run of its own below DIR, and
compare.html sets them side by side.

Exit status: 0 done, 1 an error, 3 paused by the policy's alarm, 4 a model is worse than the --baseline,
130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from eta_core import files

from . import alarm, cluster, items, journal, models, policy_commands, report, run_commands
from .compare import commands as comparing
from .compare.comparison import CompareError
from .policy import PolicyError
from .review import audit
from .review import commands as reviewing
from .review.store import ReviewError
from .run import PilotError
from .server import Refused, Unreachable
from .workflow import WorkflowError

STOPS = (
    cluster.ClusterError,
    items.ItemsError,
    journal.JournalError,
    WorkflowError,
    PilotError,
    Unreachable,
    Refused,
    models.ModelsError,
    audit.AuditError,
    ReviewError,
    PolicyError,
    alarm.AlarmError,
    CompareError,
    OSError,
)
BY_CTRL_C = 130


def main(arguments: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the log cannot spell must not stop a run
        sys.stdout.reconfigure(errors="backslashreplace")
    options = parser().parse_args(arguments)
    try:
        return options.command(options) or 0
    except STOPS as error:
        print(f"pilot: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\npilot: stopped; the same command goes on where this one was", file=sys.stderr)
        return BY_CTRL_C


def parser() -> argparse.ArgumentParser:
    """Each command's options; `command` of what it parses is the function that does it."""
    found = argparse.ArgumentParser(
        prog="pilot",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parsers = found.add_subparsers(required=True, metavar="COMMAND")
    run_commands.add_run(parsers)
    _add_report(parsers)
    _add_verify_picture(parsers)
    run_commands.add_pie(parsers)
    policy_commands.add(parsers)
    comparing.add(parsers)
    reviewing.add(parsers)
    return found


def _add_report(parsers) -> None:
    parser = parsers.add_parser("report", help="write report.html of a run once more", allow_abbrev=False)
    parser.add_argument("out", type=Path, metavar="DIR")
    parser.add_argument(
        "--show", type=int, default=report.SHOWN, help="worst cases with pictures; default: %(default)s"
    )
    parser.add_argument("--db", default="", metavar="URL", help="of the reviews, as in pilot review")
    parser.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> None:
    print(report.write(options.out, options.show, options.db))


def _add_verify_picture(parsers) -> None:
    parser = parsers.add_parser(
        "verify-picture",
        help="what an edited picture says of its making; status 1 where its credentials do not hold",
        allow_abbrev=False,
    )
    parser.add_argument("picture", type=Path, metavar="FILE")
    parser.set_defaults(command=_verify_picture)


def _verify_picture(options: argparse.Namespace) -> None:
    try:
        found = files.read_marks(options.picture.read_bytes())
    except ValueError as error:
        raise PilotError(f"{options.picture.name}: {error}") from None
    print(f"digital source type: {found.source_type or 'none'}")
    for i, line in enumerate(found.credentials):
        print("credentials: " + line if i == 0 else "  " + line)
    if found.is_broken:
        raise PilotError(f"{options.picture.name}: its credentials do not hold")
