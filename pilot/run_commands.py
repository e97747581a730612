"""The command line of runs: run, pie."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from . import alarm, cluster, items, journal, pie_table, policy, report, servers, start, trust
from .compare import commands as comparing
from .lane import Handle
from .run import PilotError

WORKFLOWS = Path(__file__).resolve().parent.parent / "example_workflows"
MAIN = WORKFLOWS / "Change one thing in a photo.json"
# what `pie` does not ask for; of a policy only the limits count in a benchmark
PLAIN = {
    "edited": "",
    "full_size": False,
    "operator": "",
    "require_rights": False,
    "on_alarm": "",
    "go_on": False,
    "unchecked": False,
    "retry_errors": False,
    "heeds_policy": False,
}


def add_run(parsers) -> None:
    """The parser of `run`."""
    parser = parsers.add_parser("run", help="edit, measure and judge every item", allow_abbrev=False)
    _about_items(parser)
    parser.add_argument(
        "--workflow",
        type=Path,
        default=MAIN,
        help=f"saved by ComfyUI's page or exported for its API; default: {MAIN.stem}",
    )
    parser.add_argument(
        "--mask",
        choices=("auto", "given", "both", "none"),
        default="auto",
        help=(
            "auto: the workflow's own; given: the item's takes its place; both: each item twice; none. The "
            "figures take the item's where it has one"
        ),
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.input=VALUE",
        help=(
            "a node's type, title or id; VALUE may hold {source}, {target}, {words}, {target_words}, "
            "{picture}, {mask}, {seed}"
        ),
    )
    parser.add_argument(
        "--edited",
        default="",
        metavar="NODE",
        help="title or id of the node whose picture is the edit, where there are several",
    )
    parser.add_argument(
        "--full-size",
        action="store_true",
        help=(
            "edit the part around the region and put it back into the whole picture; the part has the area "
            "of a square of --max-side"
        ),
    )
    parser.add_argument(
        "--operator",
        type=str.strip,
        default="",
        metavar="NAME",
        help="who runs the edits: written down, and kept from approving them",
    )
    parser.add_argument(
        "--require-rights",
        action="store_true",
        help="an item without consent and rights, or with rights that have ended, is not run",
    )
    parser.add_argument(
        "--on-alarm",
        default="",
        metavar="COMMAND",
        help=(
            "run once when the policy's alarm has paused the run, without a shell: it gets the facts as JSON "
            f"on its input and as ETA_ALARM_..., and {alarm.COMMAND_SECONDS:g} s"
        ),
    )
    parser.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="go on with a run that its alarm paused; the count begins anew",
    )
    parser.add_argument(
        "--unchecked",
        action="store_true",
        help="run although the policy does not list all weights; the report says so",
    )
    comparing.about_models(parser)
    parser.add_argument("--retry-errors", action="store_true", help="do the items that failed once more")
    parser.set_defaults(command=_run, heeds_policy=True)


def add_pie(parsers) -> None:
    """The parser of `pie`."""
    parser = parsers.add_parser("pie", help="PIE-Bench's table, a run for each row", allow_abbrev=False)
    _about_items(parser)
    parser.add_argument(
        "--checkpoint", required=True, help="its name on the server; the published rows are SD1.4's"
    )
    parser.add_argument("--steps", type=int, default=50, help="default: %(default)s, as published")
    parser.add_argument(
        "--rows",
        nargs="*",
        default=[],
        metavar="ROW",
        help="only these: " + ", ".join(f'"{name}"' for name in pie_table.ROWS),
    )
    parser.set_defaults(command=_pie, **PLAIN)


def _about_items(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("items", type=Path, metavar="ITEMS")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--server",
        action="append",
        metavar="ADDRESS",
        help=f"of a ComfyUI; give it once for each of several; default: {start.ADDRESS}",
    )
    parser.add_argument(
        "--ray",
        default="",
        metavar="ADDRESS",
        help=(
            "of a Ray cluster whose nodes each have a ComfyUI at --server, or where their environment "
            f"variable {cluster.VARIABLE} says"
        ),
    )
    parser.add_argument("--limit", type=int, help="only the first items")
    parser.add_argument(
        "--seed", type=int, default=0, help="of items without one of their own; default: %(default)s"
    )
    parser.add_argument(
        "--max-side",
        type=int,
        default=1024,
        help="larger pictures are scaled down to this longer side; default: %(default)s",
    )
    parser.add_argument(
        "--policy",
        default="advertising",
        help=f"{', '.join(policy.TEMPLATES)}, or a JSON file; default: %(default)s",
    )
    parser.add_argument(
        "--clip", default="", help="a CLIP with its text projection on the server, for the CLIP figures"
    )
    parser.add_argument("--clip-vision", default="", help="its other half on the server")
    parser.add_argument(
        "--models",
        type=Path,
        action="append",
        default=[],
        help="a models folder on this machine, to hash the files that were used",
    )
    parser.add_argument(
        "--timeout", type=float, default=900, help="seconds for an item; default: %(default)s"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=600,
        help="seconds to wait when every server is away; default: %(default)s",
    )
    parser.add_argument(
        "--window", type=int, default=2, help="items on a server at a time; default: %(default)s"
    )


def _run(options: argparse.Namespace) -> int:
    listed = _listed(options)
    if options.model or options.tried:
        return _run_models(options, listed)
    if options.baseline:
        raise PilotError(
            f"--baseline {options.baseline} needs the models to be compared: name each with --model"
        )
    ring = start.run(options, listed)
    if next(journal.each(options.out), None):
        print(report.write(options.out))
    return 0 if ring is None else alarm.say_paused(ring)


def _run_models(options: argparse.Namespace, listed: list[items.Item]) -> int:
    """A run for each --model and --try, and their comparison -> exit status."""
    keys = {task.key for task in start.tasks(listed, options.mask)}
    lanes = start.lanes_of(options, start.patience(options))
    object_info = servers.asked(lanes, "object_info")[0]

    def check_weights(names: list[str], known: dict) -> None:
        _check_weights(options, lanes, names, known)

    def run_one(out: Path, workflow: Path, changes: list[str], go_on: bool) -> alarm.Ring | None:
        return start.run(_with(options, out=out, workflow=workflow, set=changes, go_on=go_on), listed)

    return comparing.run(options, object_info, keys, check_weights, run_one)


def _check_weights(
    options: argparse.Namespace, lanes: Sequence[Handle], names: list[str], known: dict
) -> None:
    """Raises PolicyError where one of several models could not be run for the policy's list.

    known: what earlier runs' run.json says of weights.
    """
    rules = policy.load(options.policy)
    if rules.rules.models is not None and not options.unchecked:
        about = servers.described({"models": known}, lanes, names, options.models, [])
        trust.check(rules, about["models"], False)


def _pie(options: argparse.Namespace) -> None:
    unknown = [name for name in options.rows if name not in pie_table.ROWS]
    if unknown:
        raise PilotError(f"no row is called {', '.join(unknown)}; the rows are {', '.join(pie_table.ROWS)}")
    listed = _listed(options)
    common = [
        f"CheckpointLoaderSimple.ckpt_name={options.checkpoint}",
        *pie_table.COMMON,
        f"EtaInversion.steps={options.steps}",
    ]
    for name in options.rows or pie_table.ROWS:
        row = pie_table.ROWS[name]
        print(f"--- {name}")
        out, workflow = options.out / row.folder, WORKFLOWS / f"{row.workflow}.json"
        changes = [*common, *row.settings]
        start.run(_with(options, out=out, workflow=workflow, set=changes, mask=row.mask), listed)
        report.write(out)
    print(pie_table.write(options.out))


def _with(options: argparse.Namespace, **changed: object) -> argparse.Namespace:
    return argparse.Namespace(**vars(options) | changed)


def _listed(options: argparse.Namespace) -> list[items.Item]:
    if options.limit is not None and options.limit < 1:
        raise PilotError(f"--limit is {options.limit}: it must be at least 1")
    found = items.load(options.items)
    unread = sorted({column for item in found for column in item.unread})
    if unread:
        print(
            f"columns that are not read: {', '.join(unread)}; those that are: "
            f"{', '.join((*items.REQUIRED, *items.OPTIONAL))}"
        )
    return found[: options.limit]
