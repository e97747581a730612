"""The command line.

    python pilot run ITEMS --out DIR [--workflow FILE] [--mask auto|given|both|none]
                     [--set NODE.input=VALUE ...] [--full-size]
                     [--model [LABEL=]NAME ... --try NODE.input=VALUE,VALUE --baseline LABEL]
    python pilot compare DIR [DIR ... --out DIR] [--baseline LABEL]
    python pilot report DIR
    python pilot verify-picture FILE
    python pilot pie ITEMS --checkpoint NAME --out DIR
    python pilot reviewers add NAME --role reviewer|lead --run DIR
    python pilot review DIR [--eyes 1|2] [--share PERCENT]
    python pilot verify DIR [--head HASH]
    python pilot export DIR --out FOLDER

ITEMS is a CSV, JSON or JSONL file, or a folder with items.csv, items.json, items.jsonl or PIE-Bench's
mapping_file.json. `run` needs a running ComfyUI with this pack (--server); the same command again goes on
where an earlier one stopped. Every picture, results.jsonl and report.html are in DIR. With --model or --try
each model and setting has a run of its own below DIR, and compare.html sets them side by side.

Exit status: 0, or 1 for an error, 4 where a model is worse than the --baseline, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from eta_core import files
from eta_core.evidence.policy import POLICIES, parse_policy

from . import items, journal, models, pie_table, report, workflow
from .compare import commands as comparing
from .compare.comparison import CompareError
from .privacy import shown_setting, shown_values
from .review import audit, commands
from .review.desk import AGAIN
from .review.store import ReviewError
from .run import Forms, Patience, Pilot, PilotError, Task
from .server import SECONDS, Refused, Server, Unreachable
from .workflow import Clip, WorkflowError

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = ROOT / "example_workflows"
MAIN = WORKFLOWS / "Change one thing in a photo.json"
ADDRESS = "http://127.0.0.1:8188"
STOPS = (
    items.ItemsError,
    journal.JournalError,
    WorkflowError,
    PilotError,
    Unreachable,
    Refused,
    models.ModelsError,
    audit.AuditError,
    ReviewError,
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
    options = _parser().parse_args(arguments)
    try:
        return options.command(options) or 0
    except STOPS as error:
        print(f"pilot: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\npilot: stopped; the same command goes on where this one was", file=sys.stderr)
        return BY_CTRL_C


def _parser() -> argparse.ArgumentParser:
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
    comparing.add(parsers)
    commands.add(parsers)
    return parser


def _about_items(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("items", type=Path, metavar="ITEMS")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--server", default=ADDRESS, help="default: %(default)s")
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
        "--policy", default="advertising", help=f"{', '.join(POLICIES)}, or a JSON file; default: %(default)s"
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
        help="seconds to wait for a server that went away; default: %(default)s",
    )
    parser.add_argument(
        "--window", type=int, default=2, help="items on the server at a time; default: %(default)s"
    )


def _run(options: argparse.Namespace) -> int:
    listed = _listed(options)
    if options.model or options.tried:
        tasks = {task.key for task in _tasks(listed, options.mask)}
        object_info = Server(options.server).object_info()
        return comparing.run(options, object_info, tasks, lambda *run: _run_one(options, listed, *run))
    if options.baseline:
        raise PilotError(
            f"--baseline {options.baseline} needs the models to be compared: name each with --model"
        )
    _run_one(options, listed, options.out, options.workflow, options.set)
    _report(options)
    return 0


def _run_one(
    options: argparse.Namespace, listed: list[items.Item], out: Path, path: Path, changes: list[str]
) -> None:
    _pilot(
        options,
        listed,
        out,
        path,
        changes,
        options.mask,
        options.edited,
        options.retry_errors,
        options.full_size,
        options.operator.strip(),
        options.require_rights,
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
    operator: str = "",
    require_rights: bool = False,
) -> None:
    limits, policy_text = (
        _limits(options),
        _policy_text(options.policy),
    )  # before they become the folder's settings
    policy = parse_policy(policy_text) if policy_text else POLICIES[options.policy]
    server = Server(options.server, min(SECONDS, limits.timeout))
    object_info = server.object_info()
    graph = workflow.override(workflow.read(path, object_info), changes)
    masks = ("auto", "given") if mask == "both" else (mask,)
    tasks = _tasks(listed, mask)
    clip = Clip(options.clip, options.clip_vision)
    side = options.max_side if full_size else None
    forms = Forms(graph, clip, edited, side)
    # a workflow that takes no item stops here
    example = workflow.form(graph, masks[0], False, clip, edited, side)
    workflow.check_models(example.graph, object_info)
    settings = {
        "workflow": path.name,
        "workflow_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "set": [shown_setting(change) for change in changes],
        "edited": edited,
        "seed": options.seed,
        "max_side": options.max_side,
        "policy": Path(options.policy).name,
        "limits": policy_text,
        "clip": [options.clip, options.clip_vision],
    } | {
        name: True
        for name, is_set in (("full_size", full_size), ("require_rights", require_rights))
        if is_set
    }
    with journal.Journal(out) as book:
        run = journal.settle(out, settings)
        if retry:
            book.drop_errors()
        nodes = workflow.settings_of(example.graph).items()
        again = options.items.name == AGAIN and "items" in run  # the list is still that of the first run
        run |= {
            "items": run["items"] if again else options.items.name,
            "nodes": {node: shown_values(values) for node, values in nodes},
        }
        _describe(run, server, example, options.models)
        if operator:
            run["operators"] = sorted({*run.get("operators", []), operator})
        journal.save(out, run)
        audit.begin_run(out, run, operator)
        Pilot(
            server,
            book,
            run,
            tasks,
            forms,
            policy,
            options.seed,
            options.max_side,
            limits,
            operator,
            require_rights,
        ).run()


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


def _describe(run: dict, server: Server, example: workflow.Form, folders: list[Path]) -> None:
    """The server, and the weights that are on this machine. Refuses weights other than the run began with."""
    system = server.stats()
    run["server"] = system.model_dump(include={"comfyui_version", "pytorch_version", "os"})
    roots = [*folders, *(models.roots_of(system.argv) if server.is_local else [])]
    before = run.get("models", {})
    run["models"] = models.described(workflow.models_of(example.graph), roots, before)
    models.check(run["models"], before)


def _policy_text(name: str) -> str:
    """A policy file's JSON, however it is laid out; empty for one of POLICIES."""
    if name in POLICIES:
        return ""
    path = Path(name)
    if not path.is_file():
        raise PilotError(f"--policy {name} is neither {', '.join(POLICIES)} nor a file")
    try:
        text = path.read_text(encoding="utf-8-sig")
        parse_policy(text)
    except ValueError as error:
        raise PilotError(f"--policy {name}: {error}") from None
    return json.dumps(json.loads(text))


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
