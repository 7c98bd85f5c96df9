"""The inside of a chart of curves: grid, ticks, bands, lines, dots, marks, and what pointing at a place shows."""

from __future__ import annotations

import numpy as np

from pellucid.report.charts import palette
from pellucid.report.charts.scales import Scale, labels, number
from pellucid.report.charts.thinning import thinned
from pellucid.report.charts.values import Chart, Numbers, Series, ends
from pellucid.report.page import escaped

COLUMNS = 220
"""Pieces of the x axis of which a curve keeps four points each: a pixel or two on a screen. Of more than four curves
each keeps fewer, so that a page stays small."""
READERS = 48
"""Places of the x axis at which values can be read by pointing."""


def scales(chart: Chart) -> tuple[Scale, Scale]:
    """The scales of x and y."""
    heights = [values for s in chart.series for values in (s.y, s.low, s.high) if values is not None]
    low, high = ends(heights, chart.y)
    if not chart.y.is_log:  # a little air, so that no curve runs along the frame
        air = (high - low) * 0.04
        low, high = (
            low if chart.y.low is not None else low - air,
            high if chart.y.high is not None else high + air,
        )
    return (
        Scale(*ends([s.x for s in chart.series], chart.x), chart.x.is_log),
        Scale(low, high, chart.y.is_log),
    )


def describe_curves(chart: Chart) -> str:
    """The chart in words, for those who do not see it."""
    curves = [s for s in chart.series if s.kind != "faint" and np.isfinite(s.y).any()]
    parts = [f"{s.name}: from {number(_known(s)[0])} to {number(_known(s)[-1])}" for s in curves[:12]]
    more = [f"and {len(curves) - 12} more curves"] if len(curves) > 12 else []
    return f"{chart.title}: {chart.y.title} against {chart.x.title}. " + "; ".join(parts + more)


def _known(series: Series) -> Numbers:
    return series.y[np.isfinite(series.y)]


def draw_curves(chart: Chart, *, left: float) -> str:
    """What lies in the plot and, to `left` pixels beside it, at its axes."""
    x, y = scales(chart)
    columns = max(60, 4 * COLUMNS // max(4, len(chart.series)))
    bands = "".join(_band(series, x, y) for series in chart.series)
    order = {"faint": 0, "line": 1, "points": 2}
    curves = "".join(_curve(s, x, y, columns) for s in sorted(chart.series, key=lambda s: order[s.kind]))
    return (
        f"{_grid(chart, x, y, left)}"
        f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%">{bands}{curves}</svg>'
        f"{_marks(chart, x)}{_readers(chart, x)}{_dots(chart, x, y)}"
    )


def _grid(chart: Chart, x: Scale, y: Scale, left: float) -> str:
    parts: list[str] = []
    heights, places = y.ticks(), x.ticks()
    for tick, label in zip(heights, labels(heights, is_log=y.is_log), strict=True):
        at = f"{100 - 100 * y.share(tick):.2f}%"
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="end" x="-7" y="{at}" dy="4">{label}</text>')
    for tick, label in zip(places, labels(places, is_log=x.is_log), strict=True):
        at = f"{100 * x.share(tick):.2f}%"
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="0" y2="100%"/>')
        parts.append(f'<text class="middle" x="{at}" y="100%" dy="18">{label}</text>')
    return (
        f'{"".join(parts)}<line class="axis" x1="0" x2="100%" y1="100%" y2="100%"/>'
        f'<text class="label" x="{-left:.0f}" y="-10">{escaped(chart.y.title)}</text>'
        f'<text class="label end" x="100%" y="100%" dy="36">{escaped(chart.x.title)}</text>'
    )


def _point(x: Scale, y: Scale, at: float, height: float) -> str:
    """In thousandths of the plot; far outside, where nobody looks, is kept near."""
    down = min(3.0, max(-2.0, 1 - y.share(height)))
    return f"{1000 * x.share(at):.1f} {1000 * down:.0f}"


def _curve(series: Series, x: Scale, y: Scale, columns: int) -> str:
    pieces = [_line(*thinned(series.x[p], series.y[p], columns), x, y) for p in _unbroken(series.y)]
    if not any(pieces):
        return ""
    dashes = palette.dash(series.colour)
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<path class="{series.kind}" stroke="{palette.variable(series.colour)}"{dashed} d="{"".join(pieces)}">'
        f"<title>{escaped(series.name)}</title></path>"
    )


def _unbroken(values: Numbers) -> list[slice]:
    """The stretches of finite values."""
    edges = np.flatnonzero(np.diff(np.isfinite(values).astype(np.int8), prepend=0, append=0))
    return [slice(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _line(at: Numbers, heights: Numbers, x: Scale, y: Scale) -> str:
    points = list(zip(at, heights, strict=True))
    if len(points) == 1:  # drawn as a dot by the round ends of a line of no length
        points *= 2
    return "M" + "L".join(_point(x, y, a, h) for a, h in points) if points else ""


def _band(series: Series, x: Scale, y: Scale) -> str:
    if series.low is None or series.high is None:
        return ""
    is_there = np.isfinite(series.low) & np.isfinite(series.high)
    if is_there.sum() < 2:
        return ""
    every = max(1, int(is_there.sum()) // 120)
    at, low, high = (values[is_there][::every] for values in (series.x, series.low, series.high))
    there = [_point(x, y, a, h) for a, h in zip(at, high, strict=True)]
    back = [_point(x, y, a, h) for a, h in zip(at[::-1], low[::-1], strict=True)]
    colour = palette.variable(series.colour)
    return f'<path class="band" style="fill:{colour}" d="M{"L".join(there + back)}Z"/>'


def _dots(chart: Chart, x: Scale, y: Scale) -> str:
    return "".join(
        f'<circle cx="{100 * x.share(a):.2f}%" cy="{100 - 100 * y.share(h):.2f}%" r="3.2" '
        f'fill="{palette.variable(s.colour)}"><title>{escaped(s.name)}: {number(h)}\n'
        f"{escaped(chart.x.title)}: {number(a)}</title></circle>"
        for s in chart.series
        if s.kind == "points"
        for a, h in zip(s.x, s.y, strict=True)
        if y.has(h) and x.has(a)
    )


def _marks(chart: Chart, x: Scale) -> str:
    """A line at every event, thinned to one a percent of the axis, with what happened there."""
    places: dict[int, list[str]] = {}
    for mark in chart.marks:
        if x.has(mark.x):
            places.setdefault(round(100 * x.share(mark.x)), []).append(mark.name)
    return "".join(
        f'<line class="mark" x1="{place}%" x2="{place}%" y1="0" y2="100%"/>'
        f'<circle cx="{place}%" cy="0" r="4" fill="var(--curve-1)"><title>{escaped(_first(names))}</title></circle>'
        for place, names in places.items()
    )


def _first(names: list[str], shown: int = 8) -> str:
    more = [f"and {len(names) - shown} more"] if len(names) > shown else []
    return "\n".join(names[:shown] + more)


def _readers(chart: Chart, x: Scale) -> str:
    """Upright strips that nobody sees; a browser shows the values of the one that is pointed at."""
    curves = [s for s in chart.series if s.kind != "faint" and np.isfinite(s.y).any()]
    return "".join(
        f'<rect class="reader" x="{100 * k / READERS:.2f}%" width="{100 / READERS:.2f}%" height="100%">'
        f"<title>{escaped(words)}</title></rect>"
        for k in range(READERS)
        if (words := _reading(chart, curves, x, (k + 0.5) / READERS))
    )


def _reading(chart: Chart, curves: list[Series], x: Scale, share: float) -> str:
    at = x.low * (x.high / x.low) ** share if x.is_log else x.low + (x.high - x.low) * share
    lines: list[str] = []
    for series in curves[:12]:
        is_there = np.isfinite(series.y)
        known_x, known_y = series.x[is_there], series.y[is_there]
        if known_x[0] <= at <= known_x[-1]:
            near = int(np.clip(np.searchsorted(known_x, at), 1, max(1, len(known_x) - 1)))
            near -= int(near == len(known_x) or at - known_x[near - 1] < known_x[near] - at)
            lines.append(f"{series.name}: {number(float(known_y[near]))}")
    return "\n".join([f"{chart.x.title}: {number(at)}", *lines]) if lines else ""
