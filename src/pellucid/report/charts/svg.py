"""A chart as SVG: inside a page, where it is as wide as its column, and as a file.

What lies in the plot has coordinates in percent, so that lines stretch and letters do not. All colours are CSS
variables: the picture is light or dark as its reader is. Nothing needs a script; pointing at a place shows its values.
"""

from __future__ import annotations

from dataclasses import dataclass

from pellucid.report.charts import palette
from pellucid.report.charts.curves import describe_curves, draw_curves
from pellucid.report.charts.forest import describe_rows, draw_rows
from pellucid.report.charts.values import Chart, Forest, Picture
from pellucid.report.page import COLOURS, colour_style, escaped

STYLE = """
.chart { margin: 1rem 0; min-width: 0; }
.chart figcaption { font-weight: 600; font-size: .95rem; margin-bottom: .3rem; }
.chart .note { color: var(--soft); font-size: .85rem; margin: .2rem 0 0; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .85rem; margin: 0; padding: 0; list-style: none; }
.legend svg { width: 1.6rem; height: .7rem; margin-right: .35rem; }
"""
PLOT_STYLE = """
.plot { display: block; overflow: visible; }
.plot text { fill: var(--soft); font: 12px system-ui, sans-serif; }
.plot .label { fill: var(--ink); }
.plot .end { text-anchor: end; }
.plot .middle { text-anchor: middle; }
.plot .grid { stroke: var(--line); stroke-width: 1; shape-rendering: crispEdges; }
.plot .axis { stroke: var(--soft); stroke-width: 1; shape-rendering: crispEdges; }
.plot .mark { stroke: var(--curve-1); stroke-width: 1.5; stroke-dasharray: 4 3; }
.plot path, .legend path { fill: none; vector-effect: non-scaling-stroke; stroke-width: 1.8; stroke-linejoin: round; }
.plot .faint { stroke-width: 1; opacity: .35; }
.plot .band { stroke: none; opacity: .16; }
.plot .interval { stroke-width: 2.2; }
.plot .reader { fill: transparent; }
.plot .reader:hover { fill: var(--ink); fill-opacity: .08; }
"""


@dataclass(frozen=True)
class _Frame:
    """Room around a plot and its height, in pixels."""

    left: float
    top: float
    right: float
    bottom: float
    height: float


def inline(picture: Picture) -> str:
    """The picture as a `<figure>`; the page has `STYLE`, `PLOT_STYLE` and `palette.COLOURS`."""
    frame = _frame(picture)
    note = f'<p class="note">{escaped(picture.note)}</p>' if picture.note else ""
    margins = f"{frame.top:.0f}px {frame.right:.0f}px {frame.bottom:.0f}px {frame.left:.0f}px"
    width = f"calc(100% - {frame.left + frame.right:.0f}px)"
    return (
        f'<figure class="chart"><figcaption>{escaped(picture.title)}</figcaption>{_legend(picture)}'
        f'<svg class="plot" role="img" aria-label="{escaped(_description(picture))}" '
        f'style="margin:{margins};width:{width};height:{frame.height:.0f}px">{_content(picture, frame)}</svg>'
        f"{note}</figure>"
    )


def standalone(picture: Picture, *, width: int = 800) -> str:
    """The picture as a whole SVG file, light or dark as the reader's screen is."""
    frame, names = _frame(picture), _names(picture)
    per_row = max(1, int((width - 32) // (34 + 7.2 * max(map(len, [name for name, _ in names] or [""])))))
    rows = -(-len(names) // per_row)
    top = 40 + 20 * rows + frame.top
    height = top + frame.height + frame.bottom + 8
    plot_width = width - frame.left - frame.right - 16
    entries = "".join(
        f'<g transform="translate({16 + (width - 32) / per_row * (at % per_row):.0f} {36 + 20 * (at // per_row)})">'
        f'<path d="M0 8H24" {_stroke(colour)}/><text class="label" x="30" y="12">{escaped(name)}</text></g>'
        for at, (name, colour) in enumerate(names)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" role="img" width="{width}" height="{height:.0f}" '
        f'viewBox="0 0 {width} {height:.0f}" aria-label="{escaped(_description(picture))}">\n'
        f"<style>{colour_style({**COLOURS, **palette.COLOURS})}{PLOT_STYLE}</style>\n"
        f'<rect width="100%" height="100%" fill="var(--page)"/>'
        f'<text class="label" x="16" y="24" style="font-size:15px;font-weight:600">{escaped(picture.title)}</text>'
        f'{entries}\n<svg class="plot" x="{frame.left + 8:.0f}" y="{top:.0f}" width="{plot_width:.0f}" '
        f'height="{frame.height:.0f}">{_content(picture, frame)}</svg></svg>\n'
    )


def _frame(picture: Picture) -> _Frame:
    if isinstance(picture, Chart):
        return _Frame(left=52, top=26, right=14, bottom=42, height=250)
    longest = max((len(row.label) for row in picture.rows), default=0)
    return _Frame(
        left=16 + 6.6 * longest, top=6, right=24, bottom=42, height=max(48, 26 * len(picture.rows) + 6)
    )


def _content(picture: Picture, frame: _Frame) -> str:
    if isinstance(picture, Chart):
        return draw_curves(picture, left=frame.left)
    return draw_rows(picture)


def _description(picture: Picture) -> str:
    return describe_curves(picture) if isinstance(picture, Chart) else describe_rows(picture)


def _names(picture: Picture) -> list[tuple[str, int]]:
    """What the legend explains: nothing where there is one curve only, which the title names."""
    if isinstance(picture, Forest):
        return []
    names = {series.name: series.colour for series in picture.series if series.kind != "faint"}
    return list(names.items()) if len(names) > 1 else []


def _legend(picture: Picture) -> str:
    entries = "".join(
        f'<li><svg viewBox="0 0 24 10" aria-hidden="true"><path d="M0 5H24" {_stroke(colour)}/></svg>'
        f"{escaped(name)}</li>"
        for name, colour in _names(picture)
    )
    return f'<ul class="legend">{entries}</ul>' if entries else ""


def _stroke(colour: int) -> str:
    dashes = f' stroke-dasharray="{palette.dash(colour)}"' if palette.dash(colour) else ""
    return f'stroke="{palette.variable(colour)}"{dashes}'
