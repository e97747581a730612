"""A run, from its command's options to its end: what is refused, who does the work, what run.json keeps."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import alarm, cluster, items, journal, policy, servers, trust, workflow
from .lane import Handle, Lane, LaneThread, Patience
from .policy import PilotPolicy, PolicyError, Rules
from .privacy import shown_setting, shown_values
from .review import audit
from .review.desk import AGAIN
from .run import Forms, Pilot, PilotError, Task, Work
from .server import SECONDS, Server
from .workflow import Clip

ADDRESS = "http://127.0.0.1:8188"


def run(options: argparse.Namespace, listed: list[items.Item]) -> alarm.Ring | None:
    """Run the items -> why the run is paused, or None.

    options: as `pilot run` has them. Nothing is queued before all of them hold.
    """
    terms = _terms(options)
    if not _may_begin(options):
        return _still_paused(options, terms)
    lanes = lanes_of(options, terms.limits)
    infos = servers.asked(lanes, "object_info")
    work = _work(options, terms, listed, infos[0])
    about = _about_servers(options, terms, lanes, infos, work)
    settings = _settings(options, terms)
    with journal.Journal(options.out) as book:
        before = journal.settle(options.out, settings)
        watch = terms.watch(options.out)
        if options.go_on:
            watch.go_on(options.operator)
        if options.retry_errors and not watch.rings:
            book.drop_errors()
            watch = terms.watch(options.out)  # what is dropped counts no more
        told = _told(before, options, terms, work, about)
        for warning in about.get("warnings", []):
            print(f"warning: {warning}: their pictures may differ")
        journal.save(options.out, told)
        audit.begin_run(options.out, told, options.operator)
        Pilot(lanes, terms.limits, work, book, told, watch).run()
        watch.tell()
        return watch.rings


# --- what holds for a run -------------------------------------------------------------------------


@dataclass(frozen=True)
class Terms:
    """What a run is held to.

    before: the run.json of an earlier call, empty for a new run. is_old: that run is older than policies by
    use, so its settings stay as they are. on_alarm: argv of the user's command. heeds: the policy's alarm,
    rights and models count; in a benchmark only its limits do.
    """

    limits: Patience
    policy: PilotPolicy
    before: dict
    is_old: bool
    on_alarm: Sequence[str]
    heeds: bool

    def watch(self, out: Path) -> alarm.Watch:
        facts = {"policy": self.policy.name, "policy_version": self.policy.version}
        return alarm.Watch(out, self.policy.rules.alarm if self.heeds else None, self.on_alarm, facts)


def _terms(options: argparse.Namespace) -> Terms:
    """Raises PolicyError where --on-alarm could never be run."""
    on_alarm = alarm.parse(options.on_alarm) if options.on_alarm else []
    limits, rules = patience(options), policy.load(options.policy)
    before = journal.load(options.out) or {}
    is_old = bool(before) and "policy_version" not in before["settings"]
    if is_old:
        rules = PilotPolicy(rules.name, Rules(limits=rules.told["limits"]), rules.path)
    if on_alarm and is_old:
        raise PolicyError(f"--on-alarm: the run in {options.out} is older than alarms: use another --out")
    if on_alarm and rules.rules.alarm is None:
        raise PolicyError(f"--on-alarm: the policy {rules.name} has no alarm{_how_to_edit(rules)}")
    return Terms(limits, rules, before, is_old, on_alarm, options.heeds_policy)


def _how_to_edit(rules: PilotPolicy) -> str:
    if rules.path:
        return f': add "alarm": {{"last": 20, "failures": 5}} to {rules.path}'
    return f"; copy it, python pilot policy copy {rules.name} FILE, and give it one"


def patience(options: argparse.Namespace) -> Patience:
    """Raises PilotError for a number that no run can have."""
    if options.window < 1 or options.timeout <= 0 or options.max_side < 64:
        raise PilotError("--window must be at least 1, --timeout above 0, --max-side at least 64")
    if not 0 <= options.seed <= items.MAX_SEED:
        raise PilotError(f"--seed is {options.seed}: it must be from 0 to {items.MAX_SEED}")
    return Patience(options.timeout, options.window, options.patience)


def _may_begin(options: argparse.Namespace) -> bool:
    """False while the run's alarm pauses it. Raises AlarmError where --continue has nothing to end."""
    paused = alarm.paused(options.out) is not None
    if options.go_on and not paused:
        raise alarm.AlarmError(f"--continue: no alarm paused the run in {options.out}; leave it out")
    return options.go_on or not paused


def _still_paused(options: argparse.Namespace, terms: Terms) -> alarm.Ring | None:
    with journal.Journal(options.out):
        watch = terms.watch(options.out)
        watch.tell()
        return watch.rings


# --- what there is to do, and who does it ---------------------------------------------------------


def lanes_of(options: argparse.Namespace, limits: Patience) -> Sequence[Handle]:
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


def tasks(listed: list[items.Item], mask: str) -> list[Task]:
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


def _work(options: argparse.Namespace, terms: Terms, listed: list[items.Item], info: dict) -> Work:
    """Raises WorkflowError for a workflow that takes no item. info: a server's object_info."""
    graph = workflow.override(workflow.read(options.workflow, info), options.set)
    todo = tasks(listed, options.mask)
    clip = Clip(options.clip, options.clip_vision)
    side = options.max_side if options.full_size else None
    mask = "auto" if options.mask == "both" else options.mask
    return Work(
        tasks=todo,
        forms=Forms(graph, clip, options.edited, side),
        example=workflow.form(graph, mask, False, clip, options.edited, side).graph,
        folders=options.models,
        policy=terms.policy.limits,
        seed=options.seed,
        max_side=options.max_side,
        operator=options.operator,
        require_rights=options.require_rights or (terms.heeds and terms.policy.rules.rights),
    )


def _about_servers(
    options: argparse.Namespace, terms: Terms, lanes: Sequence[Handle], infos: list[dict], work: Work
) -> dict:
    """What run.json says of servers and weights. Raises where they cannot do the work, or may not."""
    warnings = servers.check_nodes(lanes, infos, work.example)
    weights = workflow.models_of(work.example)
    about = servers.described(terms.before, lanes, weights, work.folders, warnings)
    may_be_unlisted = options.unchecked or not terms.heeds
    checked = trust.check(terms.policy, about["models"], may_be_unlisted, terms.before.get("models_checked"))
    return about | {"models_checked": checked}


# --- what run.json keeps --------------------------------------------------------------------------


def _settings(options: argparse.Namespace, terms: Terms) -> dict:
    """What must be the same whenever the run goes on."""
    settings = {
        "workflow": options.workflow.name,
        "workflow_sha256": hashlib.sha256(options.workflow.read_bytes()).hexdigest(),
        "set": [shown_setting(change) for change in options.set],
        "edited": options.edited,
        "seed": options.seed,
        "max_side": options.max_side,
        "policy": terms.policy.name,
        "clip": [options.clip, options.clip_vision],
    }
    if options.full_size:
        settings["full_size"] = True
    if options.require_rights:
        settings["require_rights"] = True
    if terms.is_old:
        return settings | {"limits": _old_limits(terms)}
    return settings | {"policy_version": terms.policy.version}


def _old_limits(terms: Terms) -> str:
    """A policy file's limits as an old run.json has them, where they are the same; empty for a name."""
    if not terms.policy.path:
        return ""
    was = terms.before["settings"].get("limits", "")
    same = bool(was) and policy.of_run(terms.before).limits == terms.policy.limits
    return was if same else json.dumps(terms.policy.told["limits"])


def _told(before: dict, options: argparse.Namespace, terms: Terms, work: Work, about: dict) -> dict:
    """run.json as it is from now on: with the rules, the list, the nodes' settings, servers, operators."""
    told = dict(before)
    if not terms.is_old:
        told["rules"] = terms.policy.told
    if options.items.name != AGAIN or "items" not in before:  # what is sent back is still of the first list
        told |= {"items": options.items.name, "tasks": len(work.tasks)}
    nodes = workflow.settings_of(work.example).items()
    told |= {"nodes": {node: shown_values(values) for node, values in nodes}} | about
    if options.operator:
        told["operators"] = sorted({*told.get("operators", []), options.operator})
    return told
