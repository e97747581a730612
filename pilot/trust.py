"""Which weights a policy trusts: those whose hash it keeps, since a run of theirs met its rules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from eta_core.plain_json import read_json

from . import alarm, journal, policy
from .policy import PilotPolicy, PolicyError
from .review import audit


def unlisted(found: PilotPolicy, models: Mapping[str, Mapping]) -> dict[str, str]:
    """name -> sha256 of the weights that a policy's list lacks; "" where they could not be hashed.

    Empty for a policy that keeps no list.
    """
    if found.rules.models is None:
        return {}
    known = {one.sha256 for one in found.rules.models}
    hashes = {name: about.get("sha256", "") for name, about in models.items()}
    return {name: sha256 for name, sha256 in hashes.items() if sha256 not in known}


def check(
    found: PilotPolicy, models: Mapping[str, Mapping], unchecked: bool, before: Mapping | None = None
) -> dict:
    """What run.json keeps of it: {"list": whether there is one, "unlisted": names and hashes}.

    before: the same of the run so far; what once ran unlisted stays named, though it was trusted since.
    Raises PolicyError for weights that are not on the list, unless `unchecked`.
    """
    lacks = unlisted(found, models)
    if lacks and not unchecked:
        lines = [
            f"{name}, sha256 {sha256}"
            if sha256
            else f"{name}, which is not on this machine to be hashed (name its folder with --models)"
            for name, sha256 in lacks.items()
        ]
        own = found.path or "FILE"
        raise PolicyError(
            f"the policy {found.name} does not list {'; '.join(lines)}. Check it by a run with --unchecked, "
            f"whose report says so, then: python pilot policy trust {own} --run DIR"
        )
    earlier = before["unlisted"] if before else {}
    return {"list": found.rules.models is not None, "unlisted": earlier | lacks}


def add(name: str, folder: Path, operator: str) -> str:
    """Add the hashes of a run's weights to a policy file -> what to tell the user.

    Raises PolicyError where the run does not meet the policy or its weights were not hashed.
    """
    path = policy.load(name).path
    if path is None:
        raise PolicyError(f"{name} is a template: copy it first, python pilot policy copy {name} FILE")
    with journal.held(path.with_name(f".{path.name}.lock")):  # two at once would lose one's weights
        return _add(name, path, folder, operator)


def _add(name: str, path: Path, folder: Path, operator: str) -> str:
    found = policy.load(name)
    run = journal.load(folder)
    if run is None:
        raise PolicyError(f"{folder} holds no run of a pilot")
    _meets(found, folder, run)
    models = run.get("models", {})
    unhashed = [name for name, about in models.items() if not about.get("sha256")]
    if unhashed or not models:
        raise PolicyError(
            f"{folder} has no sha256 of {', '.join(unhashed) or 'any weights'}: run the same command "
            "once more with --models FOLDER, on a machine that has them"
        )
    new = unlisted(PilotPolicy(found.name, _with_list(found)), models)
    if not new:
        return f"{found.name} lists all weights of {folder} already"
    added = [{"name": name, "sha256": sha256} for name, sha256 in new.items()]
    entry = {"action": "trust", "who": operator, "role": "operator", "policy": found.name}
    audit.append(folder, [entry | {"version": found.version, "models": added}])
    raw = read_json(path.read_text(encoding="utf-8-sig"), "it")
    raw = raw if "limits" in raw else {"limits": raw}
    raw["models"] = [*(raw.get("models") or []), *added]
    journal.write(path, policy.as_text(raw).encode())
    lines = [f"{one['name']}, sha256 {one['sha256']}" for one in added]
    return "\n".join([f"{found.name} now lists:", *lines])


def _with_list(found: PilotPolicy) -> policy.Rules:
    return found.rules.model_copy(update={"models": found.rules.models or []})


def _meets(found: PilotPolicy, folder: Path, run: dict) -> None:
    """Raises PolicyError unless a whole run, judged by these rules, passed often enough without an alarm."""
    settings = run["settings"]
    version = settings.get("policy_version")
    if version != found.version:
        raise PolicyError(
            f"{folder} was judged by version {str(version)[:12]} of {settings.get('policy', 'a policy')}; "
            f"{found.name} is version {found.version[:12]}: run it by these rules first"
        )
    if alarm.load(folder):
        raise PolicyError(f"{folder} had an alarm: find the cause, and run again with another --out")
    outcomes = [journal.outcome(row) for row in journal.each(folder) if not row.get("again_of")]
    if len(outcomes) < run.get("tasks", 0):
        raise PolicyError(f"{folder} has {len(outcomes)} of {run['tasks']} results: run it to its end first")
    wanted = found.rules.trust
    passed = 100 * outcomes.count("pass") / max(1, len(outcomes))
    if len(outcomes) < wanted.items or passed < wanted.passed:
        raise PolicyError(
            f"{folder} passed {passed:.0f} % of {len(outcomes)} items: trust needs {wanted.passed:g} % "
            f"of at least {wanted.items}"
        )
