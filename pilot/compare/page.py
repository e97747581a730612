"""compare.html: what models did with the same items, plain words first, tables after, then the pictures."""

from __future__ import annotations

import math
import urllib.parse
from pathlib import Path

from .. import journal, page, report
from ..page import Html, tag
from . import folders, words
from .comparison import BETTER, MOST_DECIBELS, SAME, UNSURE, WORSE, Comparison, Entry, Measure
from .paired import LEVEL, Difference

SHOWN = 12
FOREST = 220, 22  # width and height of a difference's drawing
TONE = {WORSE: "reject", BETTER: "pass", SAME: "even", UNSURE: "review"}
HEAT = "background_psnr"


def write(folder: Path, found: Comparison, shown: int = SHOWN) -> None:
    text = page_of(folder, found, shown)
    journal.write(folder / folders.PAGE, text.encode(errors="replace"))  # a name may hold half a character


def page_of(folder: Path, found: Comparison, shown: int = SHOWN) -> Html:
    return page.whole(
        f"Models compared: {folder.resolve().name}",
        _opening(found),
        _unchecked(found),
        _result(found),
        _tiles(folder, found),
        _measures(found),
        _categories(found),
        _settings(found),
        _cases(found, shown),
        _failures(found),
        _about(found),
        style=STYLE,
    )


# --- the result -----------------------------------------------------------------------------------


def _opening(found: Comparison) -> Html:
    runs = [entry.run for entry in found.entries]
    days = sorted(row["finished"][:10] for entry in found.entries for row in entry.rows.values())
    settings = runs[0]["settings"]
    when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
    tried = f", {len(found.entries)} settings in all" if len(found.entries) > len(found.labels) else ""
    return tag(
        "p",
        f"{words.items(len(found.keys))} from the list {runs[0].get('items', '')} through "
        f"{len(found.labels)} {'models' if len(found.labels) > 1 else 'model'}{tried}: the same pictures, "
        f"prompts and seeds. Policy {settings.get('policy', '')}, {when}.",
        class_="dim",
    )


def _unchecked(found: Comparison) -> Html | None:
    names = [e.name for e in found.entries if e.run.get("models_checked", {}).get("unlisted")]
    if not names:
        return None
    said = f"{', '.join(names)}: weights that were not on the policy's list of models that passed."
    return tag("div", tag("b", "Run by --unchecked. "), said, class_="warning")


def _result(found: Comparison) -> Html:
    good = found.base is not None or found.winner
    tone = "reject" if found.regressions else "review" if found.unsure else "pass" if good else "even"
    return tag(
        "section",
        tag("p", words.headline(found), class_="headline"),
        tag("ul", [tag("li", line) for line in words.sentences(found)]),
        _blind(found),
        class_=f"result {tone}",
    )


def _blind(found: Comparison) -> Html | None:
    """What the measures do not see."""
    lines = []
    names = [measure.name for measure in found.measures]
    if not {"clip_directional", "approved"} & set(names):
        lines.append(
            "Nobody measured whether the pictures show what the target prompts say: look at the pictures "
            "below, or run with --clip and --clip-vision, or let people review the runs."
        )
    scored = {row["scored"] for e in found.entries for row in e.rows.values() if row["status"] == "ok"}
    if "auto" in scored:
        lines.append(
            "Items without a mask of their own are measured outside each model's own region. Give them a "
            "mask to measure all models on the same background."
        )
    return tag("p", " ".join(lines), class_="dim") if lines else None


def _tiles(folder: Path, found: Comparison) -> Html:
    return tag("div", [_tile(folder, found, entry) for entry in found.finalists], class_="models")


def _tile(folder: Path, found: Comparison, entry: Entry) -> Html:
    rates = report.rates(entry.rows.values())
    passed = found.interval(entry, _named(found, "success"))
    role = (
        "baseline"
        if entry.label == found.baseline
        else "better choice"
        if found.base is None and found.winner and found.winner[0] is entry
        else ""
    )
    told = [f"{count} {name}" for name, count in rates.items() if count]
    why = words.reason(found, entry.label)
    return tag(
        "div",
        tag("h3", entry.label, tag("span", role, class_="role") if role else None),
        tag("b", f"{100 * passed.middle:.0f} %"),
        tag("span", f" success, {100 * passed.low:.0f} to {100 * passed.high:.0f} %", class_="dim"),
        page.bar(list(rates.items())),
        tag("p", ", ".join(told), "; ", tag("a", "its report", href=_report_of(folder, entry)), class_="dim"),
        tag("p", "Recommended: ", tag("b", entry.contender.setting), f"; {why}", class_="why")
        if why
        else None,
        class_="model",
    )


def _report_of(folder: Path, entry: Entry) -> str:
    return urllib.parse.quote(f"{folders.path_from(folder, entry.contender.folder)}/report.html", safe="/.")


# --- tables ---------------------------------------------------------------------------------------


def _measures(found: Comparison) -> list[Html]:
    if len(found.finalists) < 2:
        return []
    base = found.base
    pairs = [(e, base) for e in found.challengers] if base else _against_first(found)
    head: list[object] = ["", *_names(found)]
    head += [f"{one.label} − {other.label}, with 95 % interval" for one, other in pairs]
    lines = []
    for measure in found.measures:
        middles = {entry: found.middle(entry, measure) for entry in found.finalists}
        cells: list[object] = [
            tag("b", words.capital(measure.label)),
            *(_cell(measure, middles[e], _is_best(found, e, measure)) for e in found.finalists),
        ]
        for one, other in pairs:
            step = found.difference(one, other, measure)
            cells.append(_step(found, one, other, measure, step))
        lines.append(cells)
    return [
        tag("h2", "Side by side"),
        tag(
            "p",
            "Means over all items that have the figure; in bold what is clearly better than all others. "
            "The bar is the interval of the difference, the line in its middle no difference. To the "
            "right is better.",
            class_="dim",
        ),
        page.table(head, lines, class_="measures"),
    ]


def _names(found: Comparison) -> list[Html]:
    return [tag("span", entry.name, class_="name") for entry in found.finalists]


def _against_first(found: Comparison) -> list[tuple[Entry, Entry]]:
    first, *others = found.finalists
    return [(other, first) for other in others]


def _is_best(found: Comparison, entry: Entry, measure: Measure) -> bool:
    return all(found.is_better(entry, other, measure) for other in found.finalists if other is not entry)


def _cell(measure: Measure, value: float, is_best: bool) -> Html:
    return tag("span", measure.text(value), class_="best figure" if is_best else "figure")


def _step(found: Comparison, one: Entry, other: Entry, measure: Measure, step: Difference) -> Html:
    if found.base is not None:
        verdict = found.verdict(one, measure)
        tone, word = (TONE[verdict] if measure.decides else "even"), measure.word(verdict)
        needed = found.needed(one, measure) if measure.decides and verdict == UNSURE else None
        word += f": about {needed} would" if needed else ""
    else:
        better, worse = (found.is_better(a, b, measure) for a, b in ((one, other), (other, one)))
        tone = "pass" if better else "reject" if worse else "even"
        word = "better" if better else "worse" if worse else "no clear difference"
    return tag(
        "div",
        tag(
            "span",
            words.step_text(measure, step).replace(", 95 % interval ", "  (").replace(" to ", " … ")
            + (")" if not math.isnan(step.low) else ""),
            class_="figure",
        ),
        _forest(measure, step, tone),
        tag("span", word, class_=f"verdict {tone}"),
        class_="step",
    )


def _forest(measure: Measure, step: Difference, tone: str) -> Html | None:
    """The interval about 0; its ends are drawn at most at three times the loss that must not be missed."""
    if math.isnan(step.low):
        return None
    width, height = FOREST
    reach = max(
        2 * measure.tolerance, min(3 * measure.tolerance, *sorted(map(abs, (step.low, step.high)))[1:])
    )

    def x(value: float) -> float:
        return width / 2 + max(-1.0, min(1.0, measure.sign * value / reach)) * (width / 2 - 4)

    low, high = sorted(map(x, (step.low, step.high)))
    middle, line = height / 2, {"y1": 2, "y2": height - 2, "class_": "axis"}
    return tag(
        "svg",
        tag("line", x1=0, x2=width, y1=middle, y2=middle, class_="ground"),
        tag("line", x1=width / 2, x2=width / 2, **line),
        tag(
            "rect",
            x=f"{low:.1f}",
            y=middle - 3,
            width=f"{max(2.0, high - low):.1f}",
            height=6,
            rx=3,
            class_=tone,
        ),
        tag("circle", cx=f"{x(step.middle):.1f}", cy=middle, r=5, class_=tone),
        viewBox=f"0 0 {width} {height}",
        class_="forest",
        role="img",
        aria_label=words.step_text(measure, step),
    )


def _categories(found: Comparison) -> list[Html]:
    if len(found.categories) < 2 or len(found.finalists) < 2:
        return []
    level = LEVEL / len(found.categories)
    shown = [m for m in found.deciding if m.name in ("success", "approved", HEAT)]
    lines = []
    for name, keys in found.categories.items():
        cells: list[object] = [name or "(none)", str(len(keys))]
        for entry in found.finalists:
            values = [m.text(found.middle(entry, m, keys)) for m in shown]
            cells.append(tag("span", "  ·  ".join(values), class_="figure"))
        won = found.best(found.finalists, keys, found.deciding, level)
        if won is None:
            cells.append(tag("span", f"no clear difference on {words.items(len(keys))}", class_="dim"))
        else:
            cells.append(tag("span", tag("b", won[0].label), f" {won[1].says}"))
        lines.append(cells)
    head = ["category", tag("span", "items", class_="name"), *_names(found), "suits it best"]
    about = " · ".join(measure.label for measure in shown)
    return [
        tag("h2", "Which model suits which category"),
        tag(
            "p",
            f"{about[:1].upper()}{about[1:]}. A model is named only where it is better than the others by "
            f"more than chance, with the chance of {100 * LEVEL:.0f} % shared among the "
            f"{len(found.categories)} categories.",
            class_="dim",
        ),
        page.table(head, lines, class_="measures"),
    ]


def _settings(found: Comparison) -> list[Html]:
    if len(found.entries) == len(found.labels):
        return []
    lines = []
    for entry in found.entries:
        best, _ = found.recommended[entry.label]
        why = words.reason(found, entry.label) if entry is best else ""
        lines.append(
            [
                entry.label,
                tag("span", entry.contender.setting, class_="setting"),
                *(_cell(m, found.middle(entry, m), False) for m in found.measures),
                tag("span", tag("b", "recommended"), f": {why}") if entry is best and why else "",
            ]
        )
    measures = [tag("span", words.capital(m.label), class_="name") for m in found.measures]
    head = ["model", "setting", *measures, ""]
    return [
        tag("h2", "A setting for each model"),
        page.table(head, lines, class_="measures"),
    ]


# --- items ----------------------------------------------------------------------------------------


def _cases(found: Comparison, shown: int) -> list[object]:
    keys = found.worst_first()
    if not keys or len(found.finalists) < 2:
        return []
    title = (
        "Where they differ most" if found.base is None else f"Where most was lost against {found.base.name}"
    )
    count = f": {shown} of {len(keys)} items" if len(keys) > shown else ""
    return [tag("h2", f"{title}{count}"), [_case(found, key) for key in keys[:shown]]]


def _case(found: Comparison, key: str) -> Html:
    row = next(e.rows[key] for e in found.finalists if e.rows[key]["status"] == "ok")
    before = next(e for e in found.finalists if e.rows[key]["status"] == "ok")
    about = [
        row["category"] and f"category {row['category']}",
        report.MODES[row["mode"]].lower(),
        f"seed {row['seed']}",
    ]
    return tag(
        "div",
        tag(
            "div",
            tag("h3", row["name"]),
            tag("p", row["source_prompt"]),
            tag("p", "→ ", row["target_prompt"]),
            tag("p", tag("small", ", ".join(filter(None, about)))),
        ),
        page.picture(before.contender.folder, row["files"].get("source", "?"), "before"),
        [_after(found, entry, key) for entry in found.finalists],
        class_="case side",
    )


def _after(found: Comparison, entry: Entry, key: str) -> Html:
    row = entry.rows[key]
    outcome = journal.outcome(row)
    shown = [m for m in found.measures if m.name not in ("success", "errors", "approved", "seconds")]
    figures = [f"{m.label} {m.text(value)}" for m in shown if not math.isnan(value := entry.value(key, m))]
    picture = (
        page.picture(entry.contender.folder, row["files"].get("edited", "?"), entry.name)
        if row["status"] == "ok"
        else tag("figure", tag("div", row["error"], class_="gone"), tag("figcaption", entry.name))
    )
    return tag(
        "div",
        picture,
        tag("span", outcome, class_=f"verdict {outcome}"),
        [tag("small", line) for line in figures],
        class_="after",
    )


def _failures(found: Comparison) -> list[Html]:
    keys = found.failed_in_some()
    if not keys:
        return []
    lines = [
        [
            found.entries[0].rows[key]["name"],
            *(
                tag("span", row["error"] if row["status"] == "error" else row["verdict"], class_="dim")
                for entry in found.entries
                for row in [entry.rows[key]]
            ),
        ]
        for key in keys
    ]
    return [
        tag("h2", f"Failed in some runs and not in all: {len(keys)}"),
        page.table(["item", *(entry.name for entry in found.entries)], lines),
    ]


# --- how to read it -------------------------------------------------------------------------------


def _about(found: Comparison) -> list[Html]:
    lines = [
        "Success: the policy passes the item. What it leaves to a person, rejects, or what ends as an "
        "error, is no success.",
        "Approved by people: of the items that were decided in all runs, those whose first result was "
        "approved. What the policy rejected counts as not approved.",
        f"Background: PSNR outside the mask of the figures, at most {MOST_DECIBELS:.0f} dB for an item.",
        "Structure: the distance of DINO's self-similarities, where its weights are on the server; "
        "without them MS-SSIM of the background stands in, which says nothing of the structure inside "
        "the region.",
        "Intervals hold the true difference in 95 of 100 such comparisons. Shares: Bonett and Price "
        "2012. Other figures: bootstrap over the items. A difference counts where its interval leaves 0 "
        "out and the exact paired test (McNemar's, that of changed signs, or the sign test of a median) "
        "gives a chance below 5 %.",
        "A model is better than another by the first of these measures that tells them apart, in the "
        "order of the table. Time never decides: the runs come one after another, and a busy server "
        "moves it.",
    ]
    if found.base is not None:
        limits = "; ".join(f"{m.label} {m.step(-m.sign * m.tolerance)}" for m in found.deciding)
        lines.append(
            "Regression: worse by more than chance, and by as much as matters. No regression shown: a "
            f"loss of this size would have been seen ({limits}). Otherwise there are too few items to "
            "tell."
        )
    weights = [
        [entry.name, name, tag("code", about.get("sha256") or "not on this machine, known by its name only")]
        for entry in found.entries
        for name, about in entry.run.get("models", {}).items()
    ]
    workflows = [
        [
            entry.name,
            entry.run["settings"].get("workflow", ""),
            tag("code", " ".join(entry.run["settings"].get("set", []))),
        ]
        for entry in found.entries
    ]
    return [
        tag("h2", "How to read it"),
        tag("ul", [tag("li", line) for line in lines], class_="dim"),
        tag("h2", "What was run"),
        page.table(["run", "workflow", "changed"], workflows),
        page.table(["run", "weights", "sha256"], weights) if weights else Html(""),
    ]


def _named(found: Comparison, name: str) -> Measure:
    return next(measure for measure in found.measures if measure.name == name)


STYLE = """
body { max-width: 80rem; } p { max-width: 66rem; }
.result { background: var(--card); border-left: 6px solid var(--dim); padding: 1rem 1.4rem;
  margin: 1.2rem 0; }

.result.review { border-color: var(--review); }
.result.pass { border-color: var(--pass); } .result.reject { border-color: var(--reject); }
.headline { font-size: 1.35rem; line-height: 1.35; font-weight: 600; margin: 0 0 .6rem; max-width: none; }
.result ul { margin: .4rem 0; padding-left: 1.2rem; } .result li { margin: .25rem 0; max-width: 66rem; }
.models { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 1rem; }
.model { background: var(--card); padding: .9rem 1.2rem; } .model h3 { margin: 0; overflow-wrap: anywhere; }
.model > b { font-size: 2rem; } .model p { margin: .2rem 0; }
.role { font-size: .75rem; font-weight: 600; margin-left: .6rem; padding: .1rem .5rem; border-radius: 1rem;
  border: 1px solid var(--line); color: var(--dim); vertical-align: middle; }
td > .setting { white-space: nowrap; }
table.measures { width: 100%; } .measures th, .measures td { padding: .5rem .8rem; vertical-align: middle; }
.measures th { color: var(--dim); font-weight: 600; border-bottom: 2px solid var(--line); }
.figure { font-variant-numeric: tabular-nums; white-space: pre; } .figure.best { font-weight: 700; }
.measures td:has(> .figure), .measures th:has(> .name) { text-align: right; }
.step { display: grid; grid-template-columns: 15rem 14rem 1fr; gap: .8rem; align-items: center; }
.forest { width: 100%; height: auto; } .ground { stroke: var(--line); }
.forest .axis { stroke: var(--dim); stroke-width: 1.5; }
.forest rect { opacity: .45; } .forest .even { fill: var(--dim); } .forest .pass { fill: var(--pass); }
.forest .reject { fill: var(--reject); } .forest .review { fill: var(--review); }
.verdict.even { color: var(--dim); }
.case.side { display: grid; gap: 1.2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(15rem, 45%), 1fr)); }
.case.side p { margin: .3rem 0; } .after small { display: block; font-variant-numeric: tabular-nums; }
.after .verdict { text-transform: capitalize; } .wide { margin: .6rem 0 1.2rem; }
"""
