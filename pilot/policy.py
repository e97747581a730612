"""Policies: what a use asks of a run, its pictures, the people who look at them, and its models.

A policy is a JSON file; those of POLICIES/*.json are templates. The limits of a template are a name of
eta_core's POLICIES, which is their one home.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from eta_core.evidence import policy as limits_of
from eta_core.evidence.metrics import METRICS
from eta_core.plain_json import read_json

from . import journal

FOLDER = Path(__file__).resolve().parent / "policies"
TEMPLATES = tuple(limits_of.POLICIES)
REASONS = ("background", "missing", "artefact", "brand", "rights", "other")
LONGEST_WINDOW = 10_000
Reason = Literal["background", "missing", "artefact", "brand", "rights", "other"]
Outcome = Literal["review", "reject", "error"]


class PolicyError(Exception):
    """What is wrong with a policy, and how to put it right."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Alarm(_Strict):
    """Rings when, of the `last` items finished, more than `failures` came out as one of `counts`."""

    last: Annotated[int, Field(ge=1, le=LONGEST_WINDOW)]
    failures: Annotated[int, Field(ge=0)]
    counts: Annotated[list[Outcome], Field(min_length=1)] = ["reject", "error"]

    @model_validator(mode="after")
    def _can_ring(self) -> Alarm:
        if self.failures >= self.last:
            raise ValueError(
                f"failures is {self.failures} of the last {self.last}, which are never more: lower it"
            )
        return self


class Trust(_Strict):
    """What a run must show before its models are trusted: finished items, and the percent that passed."""

    items: Annotated[int, Field(ge=1)] = 20
    passed: Annotated[float, Field(ge=0, le=100)] = 80.0


class Weights(_Strict):
    name: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Rules(_Strict):
    """A policy file. What it leaves out is as here.

    limits: a name of eta_core's POLICIES, or what parse_policy reads. eyes: people who see an item. share:
    percent of what passed that people look at too. reasons: of a rejection. marks: what an exported picture
    carries, XMP, or also signed Content Credentials. rights: an item without consent and rights is not run.
    models: weights that passed; None: any may be used.
    """

    limits: str | dict[str, Any]
    eyes: Annotated[int, Field(ge=1, le=2)] = 1
    share: Annotated[float, Field(ge=0, le=100)] = 5.0
    reasons: Annotated[list[Reason], Field(min_length=1)] = list(REASONS)
    marks: Literal["xmp", "c2pa"] = "xmp"
    rights: bool = False
    alarm: Alarm | None = None
    trust: Trust = Trust()
    models: list[Weights] | None = None

    @field_validator("limits", mode="before")
    @classmethod
    def _readable(cls, limits: object) -> object:
        if isinstance(limits, dict):
            limits_of.parse_policy(json.dumps(limits))
        elif not isinstance(limits, str) or limits not in limits_of.POLICIES:
            raise ValueError(f"no limits have this name: write the limits, or one of {', '.join(TEMPLATES)}")
        return limits

    @field_validator("reasons")
    @classmethod
    def _once(cls, reasons: list[str]) -> list[str]:
        if len(set(reasons)) < len(reasons):
            raise ValueError("a reason stands in it twice: write it once")
        return reasons


@dataclass(frozen=True)
class PilotPolicy:
    """Rules under a name. path: of the file, where it is the user's own."""

    name: str
    rules: Rules
    path: Path | None = None

    @cached_property
    def limits(self) -> limits_of.Policy:
        limits = self.rules.limits
        if isinstance(limits, str):
            return limits_of.POLICIES[limits]
        return limits_of.parse_policy(json.dumps(limits)) if limits else {}

    @cached_property
    def told(self) -> dict[str, Any]:
        """The rules with their limits written out, without the models: trusting one more changes no rule."""
        return self.rules.model_dump(exclude={"models"}) | {"limits": limits_of.to_json(self.limits)}

    @cached_property
    def version(self) -> str:
        """sha256 of the rules' canonical JSON: the same for the same rules, however a file is laid out."""
        text = json.dumps(self.told, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def load(name: str) -> PilotPolicy:
    """A template by name, or a file; one that holds limits only gets the other rules of Rules.

    Raises PolicyError.
    """
    own = name not in TEMPLATES
    path = Path(name) if own else FOLDER / f"{name}.json"
    if not path.is_file():
        raise PolicyError(f"--policy {name} is neither {', '.join(TEMPLATES)} nor a file")
    try:
        return PilotPolicy(
            path.name if own else name, _rules(read_json(_text(path), "it")), path if own else None
        )
    except ValueError as error:
        raise PolicyError(f"--policy {name}: {error}") from None


def of_run(run: Mapping[str, Any]) -> PilotPolicy:
    """The policy that a run was judged by, from its run.json; also of a run older than policies by use.

    Raises PolicyError.
    """
    settings = run.get("settings", {})
    name, limits = settings.get("policy", ""), settings.get("limits")
    try:
        if "rules" in run:
            return PilotPolicy(name, _rules(run["rules"]))
        if limits:
            return PilotPolicy(name, _rules(read_json(limits, "it")))
    except ValueError as error:
        raise PolicyError(f"the policy that {journal.RUN} holds cannot be read: {error}") from None
    known = {"limits": name} if name in TEMPLATES else {"limits": {}}  # run.json may be gone
    return PilotPolicy(name, Rules.model_construct(**known))


def copy(name: str, path: Path) -> None:
    """Write a template to edit: limits in figures, and a list of models that is still empty.

    Raises PolicyError where the file is there, or the name is no template's.
    """
    if name not in TEMPLATES:
        raise PolicyError(f"no template is called {name}: they are {', '.join(TEMPLATES)}")
    if path.exists():
        raise PolicyError(f"{path} is there already: give another name, or remove it first")
    journal.write(path, as_text(load(name).told | {"models": []}).encode())


def words(found: PilotPolicy) -> list[str]:
    """A policy in plain words, its version first."""
    rules = found.rules
    lines = [f"{found.name}, version {found.version}"]
    for name, limits in found.limits.items():
        wider = f"; {limits.review} for a person to look at" if limits.review != limits.ok else ""
        lines.append(f"{METRICS[name].label}: {limits.ok} to pass{wider}")
    people = "one person sees" if rules.eyes == 1 else "two people see"
    lines.append(f"review: {people} an item, and {rules.share:g} % of what passed")
    lines.append(f"reasons of a rejection: {', '.join(rules.reasons)}")
    signed = "signed Content Credentials (C2PA) and XMP; no export without a certificate"
    lines.append(f"exported pictures carry {'XMP' if rules.marks == 'xmp' else signed}")
    lines.append(f"consent and rights of an item: {'required' if rules.rights else 'not asked for'}")
    lines.append(f"alarm: {alarm_words(rules.alarm)}")
    lines.append(
        f"weights are trusted after a run of at least {rules.trust.items} items with "
        f"{rules.trust.passed:g} % passed and no alarm"
    )
    listed = rules.models
    if listed is None:
        return [*lines, "the policy keeps no list of models: any may be used"]
    names = "".join(f"\n  {one.name}, sha256 {one.sha256}" for one in listed)
    return [*lines, f"models that passed: {len(listed) or 'none'}{names}"]


def alarm_words(alarm: Alarm | None) -> str:
    if alarm is None:
        return "none"
    kinds = " or ".join(alarm.counts)
    return f"the run pauses when more than {alarm.failures} of the last {alarm.last} items are {kinds}"


def as_text(rules: Mapping[str, Any]) -> str:
    """A policy's JSON for people: a line for each rule, and for each metric and model."""
    lines = []
    for key, value in rules.items():
        if key in ("limits", "models") and isinstance(value, (dict, list)) and value:
            inner = (
                [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()]
                if isinstance(value, dict)
                else [json.dumps(one) for one in value]
            )
            start, end = "{}" if isinstance(value, dict) else "[]"
            text = f"{start}\n    " + ",\n    ".join(inner) + f"\n  {end}"
        else:
            text = json.dumps(value)
        lines.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig")


def _rules(found: object) -> Rules:
    """Raises ValueError, which names the key, its value, and the rule."""
    if not isinstance(found, dict) or not set(found) & set(Rules.model_fields):
        limits_of.parse_policy(json.dumps(found))  # limits only, as files were before
        found = {"limits": found}
    try:
        return Rules.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("str", "dict[str,any]"))[:80]
        if first["type"] == "extra_forbidden":
            raise ValueError(
                f"{where} is no key of a policy: the keys are {', '.join(Rules.model_fields)}"
            ) from None
        if first["type"] == "missing":
            raise ValueError(f"{where} is missing: add it") from None
        why = first["msg"].removeprefix("Value error, ")
        raise ValueError(
            f"{where or 'it'} is {json.dumps(first['input'], default=str)[:120]}: {why}"
        ) from None
