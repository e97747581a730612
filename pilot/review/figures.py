"""What the reviews say of a run: success at first and in the end, what it cost, who agrees with whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from .. import journal, page, policy
from ..page import Html, tag
from . import candidates
from .candidates import Candidate
from .desk import OPEN, SPLIT, outcome
from .store import LEAD, Store, Vote

ABOUT = (
    "pass@1: of the items that are decided, those whose first result was approved. pass@k: those of which "
    "one of the results was, after what was sent back was rendered again. What the policy rejected, and "
    "errors, count as not approved. What passed and was not drawn is left out. A look is one vote; its "
    "seconds are those that the item was on screen."
)


@dataclass(frozen=True)
class Reviewed:
    """Results by what was decided, and the votes that count, by item. seconds: of the server, by item."""

    rows: list[dict]
    items: dict[str, Candidate]
    votes: dict[str, list[Vote]]
    eyes: int

    def decided(self, row: dict) -> str:
        """One of ACTIONS, OPEN, SPLIT; "machine" where the policy or an error said no; "": unseen."""
        if row["key"] in self.items:
            return outcome(self.votes.get(row["key"], []), self.eyes)
        return "machine" if row["status"] == "error" or row["verdict"] == "reject" else ""


def read(folder: Path, store: Store) -> Reviewed:
    rules = policy.of_run(journal.load(folder) or {}).rules
    settings = {"eyes": rules.eyes, "share": rules.share} | store.settings()
    items = {one.key: one for one in candidates.of_run(folder, settings["share"])}
    votes: dict[str, list[Vote]] = {}
    for vote in store.votes():
        if vote.item in items and items[vote.item].binding == vote.binding:
            votes.setdefault(vote.item, []).append(vote)
    rows = [journal.filled(row) for row in journal.each(folder)]
    return Reviewed(rows, items, votes, int(settings["eyes"]))


def passes(found: Reviewed) -> tuple[int, int, int, int]:
    """Items decided, approved at the first result, approved at any, and the most results of one item."""
    by_key = {row["key"]: row for row in found.rows}

    def first(row: dict) -> str:
        seen = set()
        while (before := row.get("again_of")) in by_key and before not in seen:
            seen.add(before)
            row = by_key[before]
        return row["key"]

    chains: dict[str, list[dict]] = {}
    for row in found.rows:
        chains.setdefault(first(row), []).append(row)
    decided = at_first = at_last = 0
    longest = 1
    for key, rows in chains.items():
        said = [found.decided(row) for row in rows]
        if not said or any(one in (OPEN, SPLIT, "") for one in said) and "approve" not in said:
            continue
        decided += 1
        at_first += found.decided(by_key[key]) == "approve"
        at_last += "approve" in said
        longest = max(longest, len(rows))
    return decided, at_first, at_last, longest


def agreement(pairs: Iterable[tuple[str, str]]) -> tuple[int, int, float | None]:
    """Equal pairs, pairs, and Cohen's kappa (1: always equal, 0: as chance has it; None: it has none).

    Cohen 1960, "A coefficient of agreement for nominal scales".
    """
    pairs = list(pairs)
    equal = sum(one == other for one, other in pairs)
    if not pairs:
        return 0, 0, None
    ones, others = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    chance = sum(ones[name] * others[name] for name in ones) / len(pairs) ** 2
    return equal, len(pairs), None if chance == 1 else (equal / len(pairs) - chance) / (1 - chance)


def between_people(found: Reviewed) -> dict[str, list[tuple[str, str]]]:
    """The first two votes on each item, by the two people."""
    pairs: dict[str, list[tuple[str, str]]] = {}
    for votes in found.votes.values():
        blind = sorted((vote for vote in votes if vote.seat != LEAD), key=lambda vote: vote.reviewer)
        for one, other in combinations(blind, 2):
            pairs.setdefault(f"{one.reviewer} and {other.reviewer}", []).append((one.action, other.action))
    return pairs


def section(folder: Path, store: Store) -> list[Html | None]:
    """The report's part about the reviews; empty where nobody has voted."""
    found = read(folder, store)
    looks = [vote for votes in found.votes.values() for vote in votes]
    if not looks:
        return []
    decided, at_first, at_last, longest = passes(found)
    said = Counter(found.decided(row) for row in found.rows)
    accepted = said["approve"]
    spent = sum(vote.seconds for vote in looks)
    server = sum(row["seconds"] or 0.0 for row in found.rows)
    per_accepted: Callable[[float, str], str] = lambda value, unit: (  # noqa: E731
        f"{value / accepted:.1f} {unit}".strip() if accepted else "-"
    )
    lines = [
        [
            "decided by people",
            f"{sum(said[name] for name in ('approve', 'reject', 'again'))} of {len(found.items)}",
        ],
        ["approved, rejected, sent back", f"{accepted}, {said['reject']}, {said['again']}"],
        ["waiting for a vote, for a lead", f"{said[OPEN]}, {said[SPLIT]}"],
        ["pass@1", _share(at_first, decided)],
        [
            f"pass@{longest}" if longest > 1 else "pass@k",
            _share(at_last, decided) if longest > 1 else "nothing came back yet",
        ],
        ["looks for each approved picture", per_accepted(len(looks), "")],
        ["seconds of looks for each approved picture", per_accepted(spent, "s")],
        ["seconds of the server for each approved picture", per_accepted(server, "s")],
    ]
    return [
        tag("h2", "Reviews"),
        tag("p", ABOUT, class_="dim"),
        page.table(["what", "value"], lines),
        tag("h3", "Agreement"),
        page.table(["who", "votes alike", "share", "Cohen's kappa"], _agreements(found)),
        _reasons(looks),
    ]


def _agreements(found: Reviewed) -> list[list[str]]:
    """People with each other, and what people decided with what the policy had said."""
    lines = [_line(name, pairs) for name, pairs in sorted(between_people(found).items())]
    for verdict, told in (
        ("pass", "passed by the policy, approved by people"),
        ("review", "for review, approved by people"),
    ):
        said = [
            outcome(votes, found.eyes)
            for key, votes in found.votes.items()
            if found.items[key].row["verdict"] == verdict
        ]
        closed = [one for one in said if one not in (OPEN, SPLIT)]
        if closed:
            approved = sum(one == "approve" for one in closed)
            lines.append([told, f"{approved} of {len(closed)}", _share(approved, len(closed)), "-"])
    return lines


def _line(name: str, pairs: list[tuple[str, str]]) -> list[str]:
    equal, count, kappa = agreement(pairs)
    return [name, f"{equal} of {count}", _share(equal, count), "-" if kappa is None else f"{kappa:.2f}"]


def _reasons(looks: list[Vote]) -> Html | None:
    counted = Counter(vote.reason for vote in looks if vote.reason)
    told = ", ".join(f"{name} {count}" for name, count in counted.most_common())
    return tag("p", f"Reasons of rejections: {told}.") if told else None


def _share(count: int, of: int) -> str:
    return f"{100 * count / of:.0f} % ({count} of {of})" if of else "-"
