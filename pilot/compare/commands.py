"""The command line of comparisons: what `run` takes for them, and `compare`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from .. import alarm, journal, report
from ..workflow import Clip
from . import contenders, folders, page, words
from .comparison import CompareError, Comparison, Contender

REGRESSION = 4  # exit status
Run = Callable[[Path, Path, list[str], bool], alarm.Ring | None]  # folder, workflow, changes, go on
CheckWeights = Callable[[list[str], dict], None]  # their names, and what run.json files say of them


def add(parsers) -> None:
    """The parser of `compare`."""
    parser = parsers.add_parser(
        "compare", help="write compare.html once more, or of runs made one by one", allow_abbrev=False
    )
    parser.add_argument(
        "runs", nargs="+", metavar="[LABEL=]DIR", help="a comparison's folder, or the folders of runs"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="for compare.html of several folders")
    _about_baseline(parser)
    parser.set_defaults(command=_compare)


def about_models(parser: argparse.ArgumentParser) -> None:
    """What `run` takes."""
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="[LABEL=]NAME",
        help=(
            "a checkpoint's name on the server, put into the workflow's loader, or a workflow's .json; with "
            "several, each is run and they are compared"
        ),
    )
    parser.add_argument(
        "--try",
        dest="tried",
        action="append",
        default=[],
        metavar="NODE.input=VALUE,VALUE",
        help="run each model at each of these values, and recommend one",
    )
    _about_baseline(parser)


def _about_baseline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--baseline",
        default="",
        metavar="LABEL",
        help=f"hold the others against this model; exit status {REGRESSION} where one is worse",
    )


def run(
    options: argparse.Namespace,
    object_info: dict,
    keys: Collection[str],
    check_weights: CheckWeights,
    run_one: Run,
) -> int:
    """A run for each model and setting, then the comparison -> exit status.

    object_info: the server's. keys: of the items' rows. Nothing is queued before all models fit and the
    policy lists them. Raises CompareError, WorkflowError, AlarmError, and what check_weights and run_one do.
    A run that is paused pauses the rest.
    """
    named = [contenders.named(text) for text in options.model or [str(options.workflow)]]
    plans = contenders.plan(named, options.tried, options.workflow, options.set, options.out, object_info)
    folders.check_labels([one.contender for one in plans], options.baseline)
    if len(plans) < 2:
        raise CompareError(
            "one model at one setting: there is nothing to compare it with; name a second --model"
        )
    mask = "auto" if options.mask == "both" else options.mask
    clip = Clip(options.clip, options.clip_vision)
    side = options.max_side if options.full_size else None
    weights = contenders.check(plans, mask, clip, options.edited, side, object_info)
    folders.check_out(options.out)
    paused = [one for one in plans if alarm.paused(one.contender.folder)]
    if options.go_on and not paused:
        raise alarm.AlarmError(f"--continue: no alarm paused a run in {options.out}; leave it out")
    known = {}
    for one in plans:
        folders.check_folder(one.contender, keys)
        known |= (journal.load(one.contender.folder) or {}).get("models", {})
    check_weights(weights, known)
    folders.save_plan(options.out, [one.contender for one in plans], options.baseline)
    for number, one in enumerate(plans, 1):
        print(f"--- {number} of {len(plans)}: {one.contender.name}", flush=True)
        try:
            go_on = options.go_on and one in paused
            ring = run_one(one.contender.folder, one.workflow, list(one.changes), go_on)
        except BaseException:
            print(f"pilot: the comparison ends in the run of {one.contender.name}", file=sys.stderr)
            raise
        report.write(one.contender.folder)
        if ring is not None:
            print(f"pilot: the comparison waits in the run of {one.contender.name}", file=sys.stderr)
            return alarm.say_paused(ring)
    return _write_comparison(options.out, [one.contender for one in plans], options.baseline)


def _compare(options: argparse.Namespace) -> int:
    """Of one comparison's folder, or of the folders of runs, whose names are their labels."""
    first = Path(options.runs[0])
    if len(options.runs) == 1 and not (first / journal.RUN).exists():
        found, baseline = folders.plan_of(first)
        out = options.out or first
    else:
        if options.out is None:
            raise CompareError("several runs are compared in a folder of its own: name it with --out")
        named = [_labelled(text) for text in options.runs]
        found, baseline = [Contender(label, "", folder) for label, folder in named], ""
        out = options.out
        folders.check_out(out)
    baseline = options.baseline or baseline
    folders.check_labels(found, baseline)
    return _write_comparison(out, found, baseline)


def _labelled(text: str) -> tuple[str, Path]:
    """LABEL=DIR, or DIR, whose name is the label."""
    label, equals, folder = text.partition("=")
    if equals and not Path(text).exists():
        return label.strip(), Path(folder)
    return Path(text).resolve().name, Path(text)


def _write_comparison(out: Path, found: list[Contender], baseline: str) -> int:
    """compare.json and compare.html -> the exit status."""
    comparison = Comparison(folders.read_entries(found), baseline)
    folders.save(out, comparison)
    page.write(out, comparison)
    print("\n".join([words.headline(comparison), *words.sentences(comparison)]))
    print(f"comparison: {(out / folders.PAGE).resolve()}")
    return REGRESSION if comparison.regressions else 0
