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
import hashlib
import io
import json
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eta_core import files

from . import (
    alarm,
    cluster,
    items,
    journal,
    models,
    pie_table,
    policy,
    policy_commands,
    report,
    servers,
    trust,
    workflow,
)
from .compare import commands as comparing
from .compare.comparison import CompareError
from .lane import Handle, Lane, LaneThread, Patience
from .policy import PilotPolicy, PolicyError, Rules
from .privacy import shown_setting, shown_values
from .review import audit, commands
from .review.desk import AGAIN
from .review.store import ReviewError
from .run import Forms, Pilot, PilotError, Task
from .server import SECONDS, Refused, Server, Unreachable
from .workflow import Clip, WorkflowError

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = ROOT / "example_workflows"
MAIN = WORKFLOWS / "Change one thing in a photo.json"
ADDRESS = "http://127.0.0.1:8188"
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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # a name that the log cannot spell must not stop a run
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
    parser = argparse.ArgumentParser(
        prog="pilot",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")
    run_parser = parsers.add_parser("run", help="edit, measure and judge every item", allow_abbrev=False)
    _about_items(run_parser)
    run_parser.add_argument(
        "--workflow",
        type=Path,
        default=MAIN,
        help=f"saved by ComfyUI's page or exported for its API; default: {MAIN.stem}",
    )
    run_parser.add_argument(
        "--mask",
        choices=("auto", "given", "both", "none"),
        default="auto",
        help=(
            "auto: the workflow's own; given: the item's takes its place; both: each item twice; none. The "
            "figures take the item's where it has one"
        ),
    )
    run_parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.input=VALUE",
        help=(
            "a node's type, title or id; VALUE may hold {source}, {target}, {words}, {target_words}, "
            "{picture}, {mask}, {seed}"
        ),
    )
    run_parser.add_argument(
        "--edited",
        default="",
        metavar="NODE",
        help="title or id of the node whose picture is the edit, where there are several",
    )
    run_parser.add_argument(
        "--full-size",
        action="store_true",
        help=(
            "edit the part around the region and put it back into the whole picture; the part has the area "
            "of a square of --max-side"
        ),
    )
    run_parser.add_argument(
        "--operator",
        default="",
        metavar="NAME",
        help="who runs the edits: written down, and kept from approving them",
    )
    run_parser.add_argument(
        "--require-rights",
        action="store_true",
        help="an item without consent and rights, or with rights that have ended, is not run",
    )
    run_parser.add_argument(
        "--on-alarm",
        default="",
        metavar="COMMAND",
        help=(
            "run once when the policy's alarm has paused the run, without a shell: it gets the facts as JSON "
            f"on its input and as ETA_ALARM_..., and {alarm.COMMAND_SECONDS:g} s"
        ),
    )
    run_parser.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="go on with a run that its alarm paused; the count begins anew",
    )
    run_parser.add_argument(
        "--unchecked",
        action="store_true",
        help="run although the policy does not list all weights; the report says so",
    )
    comparing.about_models(run_parser)
    run_parser.add_argument("--retry-errors", action="store_true", help="do the items that failed once more")
    run_parser.set_defaults(command=_run)
    report_parser = parsers.add_parser(
        "report", help="write report.html of a run once more", allow_abbrev=False
    )
    report_parser.add_argument("out", type=Path, metavar="DIR")
    report_parser.add_argument(
        "--show", type=int, default=report.SHOWN, help="worst cases with pictures; default: %(default)s"
    )
    report_parser.add_argument("--db", default="", metavar="URL", help="of the reviews, as in pilot review")
    report_parser.set_defaults(command=_report)
    picture_parser = parsers.add_parser(
        "verify-picture",
        help="what an edited picture says of its making; status 1 where its credentials do not hold",
        allow_abbrev=False,
    )
    picture_parser.add_argument("picture", type=Path, metavar="FILE")
    picture_parser.set_defaults(command=_verify_picture)
    pie_parser = parsers.add_parser("pie", help="PIE-Bench's table, a run for each row", allow_abbrev=False)
    _about_items(pie_parser)
    pie_parser.add_argument(
        "--checkpoint", required=True, help="its name on the server; the published rows are SD1.4's"
    )
    pie_parser.add_argument("--steps", type=int, default=50, help="default: %(default)s, as published")
    pie_parser.add_argument(
        "--rows",
        nargs="*",
        default=[],
        metavar="ROW",
        help="only these: " + ", ".join(f'"{name}"' for name in pie_table.ROWS),
    )
    pie_parser.set_defaults(command=_pie)
    policy_commands.add(parsers)
    comparing.add(parsers)
    commands.add(parsers)
    return parser


def _about_items(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("items", type=Path, metavar="ITEMS")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--server",
        action="append",
        metavar="ADDRESS",
        help=f"of a ComfyUI; give it once for each of several; default: {ADDRESS}",
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
        tasks = {task.key for task in _tasks(listed, options.mask)}
        lanes = _lanes(options, _limits(options))
        return comparing.run(
            options,
            servers.asked(lanes, "object_info")[0],
            tasks,
            lambda *weights: _check_weights(options, lanes, *weights),
            lambda *run: _run_one(options, listed, *run),
        )
    if options.baseline:
        raise PilotError(
            f"--baseline {options.baseline} needs the models to be compared: name each with --model"
        )
    ring = _run_one(options, listed, options.out, options.workflow, options.set, options.go_on)
    if next(journal.each(options.out), None):
        _report(options)
    return 0 if ring is None else alarm.say_paused(ring)


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


def _run_one(
    options: argparse.Namespace,
    listed: list[items.Item],
    out: Path,
    path: Path,
    changes: list[str],
    go_on: bool,
) -> alarm.Ring | None:
    return _pilot(
        options,
        listed,
        out,
        path,
        changes,
        options.mask,
        options.edited,
        options.retry_errors,
        options.full_size,
        Says(
            options.operator.strip(),
            options.require_rights,
            options.unchecked,
            go_on,
            alarm.parse(options.on_alarm) if options.on_alarm else [],
        ),
    )


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


@dataclass(frozen=True)
class Says:
    """Who runs a run, and what this person asks for besides its settings.

    go_on: end the alarm's pause. on_alarm: argv of a command.
    """

    operator: str = ""
    require_rights: bool = False
    unchecked: bool = False
    go_on: bool = False
    on_alarm: Sequence[str] = ()


def _pilot(
    options: argparse.Namespace,
    listed: list[items.Item],
    out: Path,
    path: Path,
    changes: list[str],
    mask: str,
    edited: str = "",
    retry: bool = False,
    full_size: bool = False,
    says: Says | None = None,
) -> alarm.Ring | None:
    """Run the items -> why the run is paused, or None. says: None where no policy's alarm, rights and models
    are to be heeded, as in a benchmark.
    """
    limits, rules = _limits(options), policy.load(options.policy)  # before they become the folder's settings
    before = journal.load(out)
    is_old = bool(before) and "policy_version" not in before["settings"]
    if is_old:  # before policies by use: its settings stay as they are
        rules = PilotPolicy(rules.name, Rules(limits=rules.told["limits"]), rules.path)
    heeds, says = says is not None, says or Says()
    if says.on_alarm and is_old:
        raise PolicyError(f"--on-alarm: the run in {out} is older than alarms: use another --out")
    if says.on_alarm and rules.rules.alarm is None:
        raise PolicyError(f"--on-alarm: the policy {rules.name} has no alarm{_how_to_edit(rules)}")
    paused = alarm.paused(out)
    if paused and not says.go_on:
        with journal.Journal(out):
            watch = alarm.Watch(out, rules.rules.alarm, says.on_alarm, _facts(rules))
            watch.tell()
            return watch.rings
    if says.go_on and not paused:
        raise alarm.AlarmError(f"--continue: no alarm paused the run in {out}; leave it out")
    lanes = _lanes(options, limits)
    infos = servers.asked(lanes, "object_info")
    graph = workflow.override(workflow.read(path, infos[0]), changes)
    masks = ("auto", "given") if mask == "both" else (mask,)
    tasks = _tasks(listed, mask)
    clip = Clip(options.clip, options.clip_vision)
    side = options.max_side if full_size else None
    forms = Forms(graph, clip, edited, side)
    # a workflow that takes no item stops here
    example = workflow.form(graph, masks[0], False, clip, edited, side)
    warnings = servers.check_nodes(lanes, infos, example.graph)
    about = servers.described(
        before or {}, lanes, workflow.models_of(example.graph), options.models, warnings
    )
    about["models_checked"] = trust.check(
        rules, about["models"], says.unchecked or not heeds, (before or {}).get("models_checked")
    )
    settings = {
        "workflow": path.name,
        "workflow_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "set": [shown_setting(change) for change in changes],
        "edited": edited,
        "seed": options.seed,
        "max_side": options.max_side,
        "policy": rules.name,
        "clip": [options.clip, options.clip_vision],
    } | {
        name: True
        for name, is_set in (("full_size", full_size), ("require_rights", says.require_rights))
        if is_set
    }
    if is_old:
        settings["limits"] = _old_limits(before or {}, rules)
    else:
        settings["policy_version"] = rules.version
    with journal.Journal(out) as book:
        run = journal.settle(out, settings)
        if not is_old:
            run["rules"] = rules.told
        given = (out, rules.rules.alarm if heeds else None, says.on_alarm, _facts(rules))
        watch = alarm.Watch(*given)
        if says.go_on:
            watch.go_on(says.operator)
        if retry and not watch.rings:
            book.drop_errors()
            watch = alarm.Watch(*given)  # what is dropped counts no more
        nodes = workflow.settings_of(example.graph).items()
        again = options.items.name == AGAIN and "items" in run  # the list is still that of the first run
        if not again:
            run |= {"items": options.items.name, "tasks": len(tasks)}
        run |= {"nodes": {node: shown_values(values) for node, values in nodes}} | about
        for warning in about.get("warnings", []):
            print(f"warning: {warning}: their pictures may differ")
        if says.operator:
            run["operators"] = sorted({*run.get("operators", []), says.operator})
        journal.save(out, run)
        audit.begin_run(out, run, says.operator)
        Pilot(
            lanes,
            book,
            run,
            tasks,
            forms,
            rules.limits,
            options.seed,
            options.max_side,
            limits,
            watch,
            (example.graph, options.models),
            says.operator,
            says.require_rights or (heeds and rules.rules.rights),
        ).run()
        watch.tell()
        return watch.rings


def _old_limits(before: dict, rules: PilotPolicy) -> str:
    """A policy file's limits as an old run.json has them, where they are the same; empty for a name."""
    was = before["settings"].get("limits", "")
    if not rules.path:
        return ""
    same = bool(was) and policy.of_run(before).limits == rules.limits
    return was if same else json.dumps(rules.told["limits"])


def _facts(rules: PilotPolicy) -> dict[str, str]:
    return {"policy": rules.name, "policy_version": rules.version}


def _how_to_edit(rules: PilotPolicy) -> str:
    if rules.path:
        return f': add "alarm": {{"last": 20, "failures": 5}} to {rules.path}'
    return f"; copy it, python pilot policy copy {rules.name} FILE, and give it one"


def _tasks(listed: list[items.Item], mask: str) -> list[Task]:
    """Each item with the masks it is to be run with. Raises PilotError where none has the mask asked for."""
    given = [item for item in listed if item.mask]
    if mask == "given" and not given:
        raise PilotError("--mask given: no item has a mask; give the items one, or use --mask auto")
    if mask == "both" and len(given) < len(listed):
        print(f"{len(listed) - len(given)} items have no mask: they are run by --mask auto alone")
    return [Task(item, which) for item in listed for which in _masks(item, mask)]


def _masks(item: items.Item, mask: str) -> tuple[str, ...]:
    """What an item is run with under --mask."""
    if item.use_mask:
        return (item.use_mask,)
    if mask == "both":
        return ("auto", "given") if item.mask else ("auto",)
    return (mask,)


def _limits(options: argparse.Namespace) -> Patience:
    if options.window < 1 or options.timeout <= 0 or options.max_side < 64:
        raise PilotError("--window must be at least 1, --timeout above 0, --max-side at least 64")
    if not 0 <= options.seed <= items.MAX_SEED:
        raise PilotError(f"--seed is {options.seed}: it must be from 0 to {items.MAX_SEED}")
    return Patience(options.timeout, options.window, options.patience)


def _lanes(options: argparse.Namespace, limits: Patience) -> Sequence[Handle]:
    """A lane for each --server, or for each node of --ray."""
    given = options.server or [ADDRESS]
    seconds = min(SECONDS, limits.timeout)
    if options.ray:
        if len(given) > 1:
            raise PilotError("--ray takes one --server: the address that each node's own has there")
        return cluster.lanes(options.ray, given[0], limits)
    found = [Server(address, seconds) for address in given]
    twice = [address for address, count in Counter(one.address for one in found).items() if count > 1]
    if twice:
        raise PilotError(f"--server names {twice[0]} twice: name each server once")
    return [LaneThread(Lane(server, limits)) for server in found]


def _report(options: argparse.Namespace) -> None:
    print(report.write(options.out, getattr(options, "show", report.SHOWN), getattr(options, "db", "")))


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
        out = options.out / row.folder
        _pilot(options, listed, out, WORKFLOWS / f"{row.workflow}.json", [*common, *row.settings], row.mask)
        report.write(out)
    print(pie_table.write(options.out))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
