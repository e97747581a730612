"""report.html: the success rate, how much of the rest changed, the time, and the pictures for a person."""

from __future__ import annotations

import heapq
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from eta_core.evidence.metrics import METRICS, Metric, metric_named
from eta_core.evidence.policy import VERDICTS, Policy

from . import alarm, journal, page, pie_table, policy
from .page import Html, tag
from .review import figures
from .review import store as review_store
from .run import duration

SHOWN = 60
OUTCOMES = (*VERDICTS, "error")
MODES = {"auto": "The workflow's own mask", "given": "The given mask", "none": "No mask"}
DRAWN = (
    "background_psnr",
    "background_ms_ssim",
    "background_mean_difference",
    "background_changed_area",
    "changed_area",
    "structure_distance",
    "clip_similarity",
    "clip_directional",
)
TOLD = (
    "background_psnr",
    "background_mean_difference",
    "changed_area",
    "structure_distance",
    "clip_similarity",
)
LISTED = 2000  # results, and errors, in a table
OF_CASES = ("source_prompt", "target_prompt", "words", "files", "reasons", "size", "given_size")
SECONDS = Metric("seconds", "lower", 1)
SCORED = {
    "given": "the item's mask",
    "auto": "the workflow's mask",
    "none": "no mask: the whole picture counts as background",
}


def write(folder: Path, shown: int = SHOWN, database: str = "") -> str:
    """Write report.html into a run's folder; returns a short summary.

    shown: cases with pictures. database: of the reviews, where it is not in the folder.
    """
    rows = _light_rows(folder, shown)
    if not rows:
        raise journal.JournalError(f"{folder} holds no results of a pilot")
    run = journal.load(folder) or {"settings": {}}
    reviews: list[Html | None] = []
    if database or review_store.exists(folder):
        reviews = figures.section(folder, review_store.Store(folder, database))
    text = page_of(folder, run, rows, shown, reviews)
    journal.write(folder / "report.html", text.encode(errors="replace"))  # a name may hold half a character
    lines = [f"{MODES[mode]}: {_in_words(rates(some))}" for mode, some in by_mode(rows).items()]
    return "\n".join([*lines, f"report: {(folder / 'report.html').resolve()}"])


def _light_rows(folder: Path, shown: int) -> list[dict]:
    """Every row, of a million too: what only a case needs is there for the cases that are shown."""
    seen: dict[str, object] = {}
    rows = [_light(journal.filled(row), seen) for row in journal.each(folder)]
    keys = {row["key"] for row in worst_first(rows)[:shown]}
    whole = {row["key"]: journal.filled(row) for row in journal.each(folder) if row["key"] in keys}
    return [whole.get(row["key"], row) for row in rows]


def _light(row: dict, seen: dict[str, object]) -> dict:
    """seen: texts and reasons that other rows have too, kept once."""

    def once(value):
        return seen.setdefault(json.dumps(value), value)

    row["figures"] = [{once(name): value for name, value in one.items()} for one in row["figures"]]
    shared = ("not_measured", "category", "server", "mode", "mask", "scored", "verdict", "status")
    row |= {name: once(row[name]) for name in shared}
    return {once(name): value for name, value in row.items() if name not in OF_CASES}


def page_of(
    folder: Path, run: dict, rows: list[dict], shown: int = SHOWN, reviews: Sequence[object] = ()
) -> Html:
    rules = policy.of_run(run)
    modes = by_mode(rows)
    return page.whole(
        f"Pilot: {folder.resolve().name}",
        _alarm(folder),
        _checked(run),
        _opening(run, rows, rules),
        reviews,
        [_mode(mode, some, rules.limits) for mode, some in modes.items()],
        _pie(modes),
        _servers(run, rows),
        _errors(rows),
        _cases(folder, rows, shown),
        _everything(rows),
        _settings(run),
    )


# --- what the rows say ----------------------------------------------------------------------------


def by_mode(rows: Iterable[dict]) -> dict[str, list[dict]]:
    rows = list(rows)
    return {mode: some for mode in MODES if (some := [row for row in rows if row["mode"] == mode])}


def rates(rows: Iterable[dict]) -> dict[str, int]:
    """How many items came out how, by OUTCOMES."""
    counts = Counter(map(journal.outcome, rows))
    return {name: counts[name] for name in OUTCOMES}


def figure(row: dict, name: str) -> float:
    """An item's figure, the mean of its pictures'; nan where none has it, or it failed."""
    if name == "seconds":
        return math.nan if row.get("seconds") is None else row["seconds"]
    values = [float(picture[name]) for picture in row.get("figures", []) if picture.get(name) is not None]
    return statistics.fmean(values) if values else math.nan


def values_of(rows: Iterable[dict], name: str) -> list[float]:
    """The figure of every item that has it."""
    return [value for row in rows if row["status"] == "ok" and not math.isnan(value := figure(row, name))]


def worst_first(rows: Iterable[dict]) -> list[dict]:
    """Edited items, worst first: rejected, then to review, then passed, each by how much the background
    changed.
    """

    def order(row: dict) -> tuple:
        psnr = figure(row, "background_psnr")
        return (
            -VERDICTS.index(row["verdict"]),
            not math.isnan(psnr),
            psnr if math.isfinite(psnr) else math.inf,
        )

    return sorted((row for row in rows if row["status"] == "ok"), key=order)


# --- what the page shows --------------------------------------------------------------------------


def _alarm(folder: Path) -> list[Html]:
    """What paused the run, and what did so before."""
    rings = alarm.load(folder)
    ended = [one for one in rings if one.continued]
    found = []
    for ring in rings[len(ended) :]:
        command = f" The command of --on-alarm {ring.command}." if ring.command else ""
        found.append(
            tag(
                "div",
                tag("b", "This run is paused by its alarm. "),
                alarm.words(ring),
                " Nothing new is begun until a person says so: the same command with --continue.",
                command,
                tag("p", f"The items: {alarm.names(ring.items)}."),
                class_="warning",
            )
        )
    for ring in ended:
        who = f" by {ring.continued.who}" if ring.continued and ring.continued.who else ""
        found.append(tag("p", f"Paused, and continued{who}: {alarm.words(ring)}", class_="dim"))
    return found


def _checked(run: dict) -> Html | None:
    """Whether the policy knows the weights; nothing for a run older than its list."""
    about = run.get("models_checked")
    if about is None:
        return None
    if not about["list"]:
        return tag("p", "The policy keeps no list of models.", class_="dim")
    if not about["unlisted"]:
        return tag("p", "All weights of this run are on the policy's list.", class_="dim")
    lacks = [f"{name}, {sha256 or 'not hashed'}" for name, sha256 in about["unlisted"].items()]
    return tag(
        "div",
        tag("b", "Run by --unchecked. "),
        f"These weights were not on the policy's list of models that passed: {'; '.join(lacks)}.",
        class_="warning",
    )


def _opening(run: dict, rows: list[dict], rules: policy.PilotPolicy) -> list[Html]:
    finished = sorted(row["finished"][:16].replace("T", " ") for row in rows)
    seconds = sum(values_of(rows, "seconds"))
    limits = "; ".join(
        f"{METRICS[name].label} {limits.ok} to pass"
        + (f", {limits.review} for review" if limits.review != limits.ok else "")
        for name, limits in rules.limits.items()
    )
    blind = not any(name.startswith("clip") for name in rules.limits)
    versioned = "policy_version" in run["settings"]
    return [
        tag(
            "p",
            f"{len(rows)} results of {run.get('items', 'items')} by the workflow "
            f"{run['settings'].get('workflow', '')}, {finished[0]} to {finished[-1]} UTC; "
            f"{duration(seconds)} on the server.",
            class_="dim",
        ),
        tag(
            "p",
            tag("b", "What the verdicts mean. "),
            f"Policy {rules.name}{f', version {rules.version[:12]}' if versioned else ''}: {limits}. "
            f"Alarm: {policy.alarm_words(rules.rules.alarm)}. Error: the item could not be edited. ",
            "In the distributions the full line is the limit to pass, the dashed one that for review. ",
            "Whether a picture shows what its target prompt says is not among these limits: look at the "
            "cases below."
            if blind
            else None,
        ),
    ]


def _mode(mode: str, rows: list[dict], limits: Policy) -> list[object]:
    found = rates(rows)
    tiles = [
        tag("div", tag("b", _percent(count, len(rows))), f"{name} ({count})", class_=f"tile {name}")
        for name, count in found.items()
    ]
    scored = Counter(SCORED[row["scored"]] for row in rows if row["status"] == "ok")
    maskless = sum(mode == "auto" and row.get("mask") == "none" for row in rows)
    return [
        tag("h2", f"{MODES[mode]}: {len(rows)} items"),
        tag("div", tiles, class_="tiles"),
        page.bar(list(found.items())),
        tag(
            "p",
            "Background of the figures: "
            + ", ".join(f"{name} ({count})" for name, count in scored.items())
            + ".",
        )
        if scored
        else None,
        tag("p", f"{maskless} items name no word to change and were edited without a mask.")
        if maskless
        else None,
        tag("div", [_plot(rows, name, limits) for name in (*DRAWN, "seconds")], class_="plots"),
        _figures(rows),
        _not_measured(rows),
        _categories(rows),
    ]


def _plot(rows: list[dict], name: str, policy_limits: Policy) -> Html | None:
    values = values_of(rows, name)
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return None
    metric = _metric(name)
    limits = policy_limits.get(name)
    ends = (
        [
            (kind, end)
            for kind, r in (("pass", limits.ok), ("review", limits.review))
            for end in (r.low, r.high)
        ]
        if limits
        else []
    )
    marks = [(end, kind) for kind, end in ends if math.isfinite(end)]
    infinite = len(values) - len(finite)
    told = f"median {_number(name, statistics.median(values))}" + (
        f"; {infinite} infinite" if infinite else ""
    )
    return tag(
        "div", tag("h3", metric.label), page.histogram(finite, marks, metric.digits), tag("small", told)
    )


def _figures(rows: list[dict]) -> Html | None:
    lines = []
    newer = {name for row in rows for picture in row.get("figures", []) for name in picture} - set(METRICS)
    for name in (*METRICS, *sorted(newer), "seconds"):
        values = sorted(values_of(rows, name))
        if values:
            metric = _metric(name)
            chosen = (statistics.fmean(values), statistics.median(values), values[0], values[-1])
            lines.append(
                [metric.label, metric.better, str(len(values)), *(_number(name, value) for value in chosen)]
            )
    if not lines:
        return None
    return _folded(
        "All figures", page.table(["figure", "better", "items", "mean", "median", "lowest", "highest"], lines)
    )


def _not_measured(rows: list[dict]) -> Html | None:
    reasons: dict[str, list[str]] = {}
    for name, reason in {pair for row in rows for pair in row.get("not_measured", {}).items()}:
        reasons.setdefault(reason, []).append(metric_named(name).label)
    lines = sorted(f"{', '.join(sorted(names))}: {reason}" for reason, names in reasons.items())
    if not lines:
        return None
    hint = "CLIP's figures need --clip and --clip-vision."
    return tag("p", "Not measured, or not for every item: ", "; ".join(lines), ". ", hint, class_="dim")


def _categories(rows: list[dict]) -> list[Html]:
    names = sorted({row["category"] for row in rows})
    if len(names) < 2:
        return []
    lines = []
    for name in names:
        some = [row for row in rows if row["category"] == name]
        medians = [
            _number(what, statistics.median(values)) if (values := values_of(some, what)) else "-"
            for what in ("background_psnr", "changed_area", "seconds")
        ]
        lines.append(
            [
                name or "(none)",
                str(len(some)),
                *(_percent(count, len(some)) for count in rates(some).values()),
                *medians,
            ]
        )
    head = ["category", "items", *OUTCOMES, "background PSNR, dB", "changed area, %", "seconds"]
    return [tag("h2", "By category"), tag("p", "Figures are medians.", class_="dim"), page.table(head, lines)]


def _pie(modes: dict[str, list[dict]]) -> list[Html]:
    lines = [[MODES[mode], *cells] for mode, rows in modes.items() if (cells := pie_table.cells(rows))]
    if not lines:
        return []
    return [
        tag("h2", "By PIE-Bench's conventions"),
        tag("p", pie_table.ABOUT, class_="dim"),
        page.table(["mask of the edit", *pie_table.COLUMNS], lines),
    ]


def _servers(run: dict, rows: list[dict]) -> list[Html]:
    """What each of several servers did, and what is known to differ among them."""
    names = sorted({row["server"] for row in rows if row.get("server")})
    if len(names) < 2:
        return []
    lines = []
    for name in names:
        some = [row for row in rows if row.get("server") == name]
        seconds = values_of(some, "seconds")
        median = _number("seconds", statistics.median(seconds)) if seconds else "-"
        lines.append([name, str(len(some)), str(rates(some)["error"]), median])
    warnings = [tag("p", tag("b", "Warning. "), f"{one}.") for one in run.get("warnings", [])]
    table = page.table(["server", "items", "errors", "seconds an item (median)"], lines)
    return [tag("h2", "By server"), *warnings, table]


def _errors(rows: list[dict]) -> list[Html]:
    failed = [row for row in rows if row["status"] == "error"]
    lines = [[row["name"], MODES[row["mode"]], row["error"]] for row in failed[:LISTED]]
    return (
        [tag("h2", f"Errors: {_of(failed)}"), page.table(["item", "run", "what happened"], lines)]
        if failed
        else []
    )


def _of(rows: Sequence[dict]) -> str:
    """How many there are, and that a table has only the first."""
    return f"{len(rows)}" + (f" (the first {LISTED} are listed)" if len(rows) > LISTED else "")


def _cases(folder: Path, rows: list[dict], shown: int) -> list[object]:
    cases = worst_first(rows)
    if not cases:
        return []
    title = "Worst cases first" if len(cases) <= shown else f"Worst cases first: {shown} of {len(cases)}"
    return [tag("h2", title), [_case(folder, row) for row in cases[:shown]]]


def _case(folder: Path, row: dict) -> Html:
    files = row["files"]
    edited = [name for name in files if name.startswith("edited")]
    titles = {"source": "before"} | {
        name: "after" if len(edited) == 1 else f"after {i + 1}" for i, name in enumerate(edited)
    }
    titles |= {"heatmap": "where the words look", "mask": "mask of the edit"}
    titles |= {"given_mask": "mask of the figures"} if row["mode"] != "given" else {}
    figures = [
        f"{METRICS[name].label} {METRICS[name](value)}"
        for name in TOLD
        if not math.isnan(value := figure(row, name))
    ]
    scaled = (
        ""
        if row["size"] == row["given_size"]
        else f", scaled or cut from {'x'.join(map(str, row['given_size']))}"
    )
    return tag(
        "div",
        tag(
            "h3",
            _verdict(row),
            f" {row['name']} ",
            tag("small", ", ".join(filter(None, (row["category"], MODES[row["mode"]].lower())))),
        ),
        tag(
            "p",
            row["source_prompt"],
            " → ",
            row["target_prompt"],
            tag("span", f" (words: {row['words'] or 'none'})", class_="dim"),
        ),
        tag(
            "div",
            [page.picture(folder, files[name], title) for name, title in titles.items() if name in files],
            class_="pictures",
        ),
        [tag("p", reason) for reason in row["reasons"]],
        tag(
            "p",
            "; ".join(
                [
                    *figures,
                    f"{_number('seconds', figure(row, 'seconds'))} s",
                    f"seed {row['seed']}",
                    f"{'x'.join(map(str, row['size']))} pixels{scaled}",
                ]
            ),
            class_="dim",
        ),
        class_=f"case {row['verdict']}",
    )


def _everything(rows: list[dict]) -> Html:
    lines = [
        [
            str(row["number"]),
            row["name"],
            row["category"],
            row["mode"],
            _verdict(row),
            *(_number(name, figure(row, name)) for name in ("background_psnr", "changed_area", "seconds")),
            str(row.get("seed", "-")),
        ]
        for row in heapq.nsmallest(LISTED, rows, key=lambda row: (row["number"], row["mode"]))
    ]
    head = [
        "",
        "item",
        "category",
        "mask",
        "verdict",
        "background PSNR, dB",
        "changed area, %",
        "seconds",
        "seed",
    ]
    return _folded(f"All results: {_of(rows)}", page.table(head, lines))


def _settings(run: dict) -> list[Html]:
    said = {name: value for name, value in run["settings"].items() if value not in ("", [], ["", ""])}
    lines = [[name, tag("code", json.dumps(value, ensure_ascii=False))] for name, value in said.items()]
    lines += [
        [node, ", ".join(f"{k} {json.dumps(v, ensure_ascii=False)}" for k, v in values.items())]
        for node, values in run.get("nodes", {}).items()
    ]
    hosts = run.get("servers") or {"server": run.get("server", {})}
    lines += [[name, ", ".join(f"{k} {v}" for k, v in about.items())] for name, about in hosts.items()]
    models = [
        [name, f"sha256 {found['sha256']}" if found else "not on this machine, so known by its name only"]
        for name, found in run.get("models", {}).items()
    ]
    return [tag("h2", "Settings and weights"), page.table(["what", "value"], [*lines, *models])]


def _folded(title: str, *content: Html) -> Html:
    return tag("details", tag("summary", title), *content)


def _verdict(row: dict) -> Html:
    return tag("span", journal.outcome(row), class_=f"verdict {journal.outcome(row)}")


def _metric(name: str) -> Metric:
    return SECONDS if name == "seconds" else metric_named(name)


def _number(name: str, value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.{_metric(name).digits}f}"


def _percent(count: int, of: int) -> str:
    return f"{100 * count / of:.0f} %"


def _in_words(found: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in found.items())
