"""HTML and SVG in one file that loads nothing else. Every text is escaped, except what `tag` made."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from .pictures import MOST_MEGAPIXELS

THUMB = 256
BINS = 24
WIDTH, HEIGHT, BELOW, ABOVE = 300, 120, 18, 16
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Html(str):
    """Text that is markup already."""


def tag(name: str, *children: object, **attributes: object) -> Html:
    """<name a="b">children</name>; `class_` for class, `stroke_width` for stroke-width; None is left out."""
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{said}>" + "".join(map(_escaped, children)) + f"</{name}>")


def _escaped(child: object) -> str:
    if isinstance(child, Html):
        return child
    if isinstance(child, (list, tuple)):
        return "".join(map(_escaped, child))
    return "" if child is None else html.escape(str(child))


def table(head: Sequence[object], rows: Sequence[Sequence[object]], **attributes: object) -> Html:
    """Cells that are numbers as text stand to the right."""
    body = [
        tag("tr", [tag("td", cell, class_="number" if _is_number(cell) else None) for cell in row])
        for row in rows
    ]
    return tag(
        "div",
        tag(
            "table",
            tag("thead", tag("tr", [tag("th", name) for name in head])),
            tag("tbody", body),
            **attributes,
        ),
        class_="wide",
    )


def _is_number(cell: object) -> bool:
    return isinstance(cell, str) and cell[:1].isdigit() or cell in ("-", "inf")


def picture(folder: Path, name: str, title: str) -> Html:
    """A thumbnail of a picture of the folder inside the page."""
    path = folder / name
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            return _absent("the file lies outside the run's folder", title)
        with Image.open(path) as opened:
            if opened.width * opened.height > MOST_MEGAPIXELS * 1e6:
                return _absent(f"the file has more than {MOST_MEGAPIXELS} megapixels", title)
            small = opened.convert("RGB")
    except FileNotFoundError:
        return _absent("the file is gone", title)
    except Exception:  # each of Pillow's decoders has errors of its own for damaged files
        return _absent("the file cannot be read", title)
    small.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=85)
    data = "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
    return tag(
        "figure",
        tag("img", src=data, alt=title, width=small.width, height=small.height),
        tag("figcaption", title),
    )


def _absent(why: str, title: str) -> Html:
    return tag("figure", tag("div", why, class_="gone"), tag("figcaption", title))


def bar(parts: Sequence[tuple[str, int]]) -> Html:
    """Shares of a whole, side by side; each part's name is its class."""
    total, x, drawn = sum(count for _, count in parts) or 1, 0.0, []
    for name, count in parts:
        share = 100 * count / total
        drawn.append(
            tag(
                "rect",
                tag("title", f"{name}: {count}"),
                x=f"{x:.3f}",
                y=0,
                width=f"{share:.3f}",
                height=10,
                class_=name,
            )
        )
        x += share
    return tag(
        "svg",
        drawn,
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        class_="bar",
        role="img",
        aria_label="shares",
    )


def histogram(values: Sequence[float], marks: Sequence[tuple[float, str]], digits: int) -> Html:
    """How often which finite value occurs; marks: (value, class) of vertical lines."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, int((value - low) / span * BINS))] += 1
    bottom, step = HEIGHT - BELOW, WIDTH / BINS
    scale = (bottom - ABOVE) / max(counts)
    bars = [
        tag(
            "rect",
            tag(
                "title",
                f"{low + i * span / BINS:.{digits}f} to {low + (i + 1) * span / BINS:.{digits}f}: {count}",
            ),
            x=f"{i * step + 0.5:.2f}",
            y=f"{bottom - count * scale:.2f}",
            width=f"{step - 1:.2f}",
            height=f"{count * scale:.2f}",
            class_="count",
        )
        for i, count in enumerate(counts)
    ]
    lines = [
        tag(
            "line",
            tag("title", f"{name} {value:g}"),
            x1=f"{x:.2f}",
            x2=f"{x:.2f}",
            y1=0,
            y2=bottom,
            class_=f"limit {name}",
        )
        for value, name in marks
        if 0 <= (x := (value - low) / span * WIDTH) <= WIDTH
    ]
    ends = [
        tag("text", f"{value:.{digits}f}", x=x, y=HEIGHT - 4, text_anchor=anchor)
        for value, x, anchor in ((low, 0, "start"), (high, WIDTH, "end"))
    ]
    ends.append(tag("text", f"{max(counts)} item{'s' * (max(counts) > 1)}", x=0, y=10))
    base = tag("line", x1=0, x2=WIDTH, y1=bottom, y2=bottom, class_="axis")
    return tag(
        "svg",
        bars,
        base,
        lines,
        ends,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        class_="histogram",
        role="img",
        aria_label="distribution",
    )


def whole(title: str, *body: object, style: str = "") -> Html:
    """style: rules of this page alone, after those of all."""
    head = tag(
        "head",
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        tag("title", title),
        tag("style", Html(STYLE + style)),
    )
    page = tag("html", head, tag("body", tag("h1", title), *body), lang="en")
    return Html(f"<!doctype html>\n{page}")


STYLE = """
:root { --paper: #fff; --ink: #1d1f24; --dim: #667; --line: #dde; --card: #f7f7fa; --count: #4a6fa5;
  --pass: #2e7d4f; --review: #b26a00; --reject: #b3261e; --error: #6b5b95; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --paper: #17181c; --ink: #e6e6ea; --dim: #99a;
  --line: #33353d; --card: #202228;
  --count: #7fa3d6; --pass: #6cc08b; --review: #e0a24a; --reject: #f0837b; --error: #b3a3dc; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { margin: 2.2rem 0 .6rem; font-size: 1.2rem; }
p { max-width: 50rem; } .dim, figcaption, small { color: var(--dim); }
.warning { background: var(--card); border-left: 4px solid var(--reject); padding: .6rem 1rem;
  margin: .8rem 0; max-width: 50rem; overflow-wrap: anywhere; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: .8rem 0; }
.tile { background: var(--card); border-left: 4px solid var(--dim); padding: .5rem 1rem; min-width: 7rem; }
.tile b { display: block; font-size: 1.5rem; } .tile.pass { border-color: var(--pass); }
.tile.review { border-color: var(--review); }
.tile.reject { border-color: var(--reject); } .tile.error { border-color: var(--error); }
.bar { width: 100%; height: 12px; } rect.pass { fill: var(--pass); } rect.review { fill: var(--review); }
rect.reject { fill: var(--reject); }
rect.error { fill: var(--error); } rect.count { fill: var(--count); } .axis { stroke: var(--dim); }
.limit { stroke-width: 1.5; } .limit.pass { stroke: var(--pass); }
.limit.review { stroke: var(--review); stroke-dasharray: 4 3; }
.histogram { width: 100%; } .histogram text { font-size: 11px; fill: var(--dim); }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); gap: 1.2rem; }
.plots h3 { margin: 0; font-size: .95rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .25rem .7rem; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td { overflow-wrap: anywhere; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.case { background: var(--card); border-left: 4px solid var(--dim); padding: .8rem 1rem; margin: 0 0 1rem;
  } .case h3 { margin: 0; font-size: 1rem; overflow-wrap: anywhere; }
.case.pass { border-color: var(--pass); } .case.review { border-color: var(--review); }
.case.reject { border-color: var(--reject); }
.case p { margin: .2rem 0; overflow-wrap: anywhere; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(12rem, 45%), 1fr));
  gap: .6rem; margin: .5rem 0; }
figure { margin: 0; } figure img { display: block; width: 100%; height: auto; }
.gone { padding: 3rem 1rem; border: 1px dashed var(--line); }
.verdict { font-weight: 600; } .verdict.pass { color: var(--pass); }
.verdict.review { color: var(--review); } .verdict.reject { color: var(--reject); }
.verdict.error { color: var(--error); }
code { font-size: .85em; overflow-wrap: anywhere; } details { margin: 1rem 0; } summary { cursor: pointer; }
"""
