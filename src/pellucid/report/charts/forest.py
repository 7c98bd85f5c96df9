"""The inside of a forest plot: one row a value, its interval a bar, a line at the value they are compared with."""

from __future__ import annotations

import numpy as np

from pellucid.report.charts import palette
from pellucid.report.charts.scales import Scale, labels, number
from pellucid.report.charts.values import Forest, Row, ends
from pellucid.report.page import escaped


def scale_of(forest: Forest) -> Scale:
    known = [v for row in forest.rows for v in (row.value, row.low, row.high) if v is not None]
    if forest.reference is not None:
        known.append(forest.reference)
    low, high = ends([np.array(known, dtype=np.float64)], forest.axis)
    air = (high - low) * 0.05
    return Scale(low - air, high + air)


def describe_rows(forest: Forest) -> str:
    """The picture in words, for those who do not see it."""
    return f"{forest.title}: " + "; ".join(_words(row) for row in forest.rows)


def _words(row: Row) -> str:
    if row.low is None or row.high is None:
        return f"{row.label}: {number(row.value)}"
    return f"{row.label}: {number(row.value)}, {number(row.low)} to {number(row.high)}"


def draw_rows(forest: Forest) -> str:
    scale, count = scale_of(forest), max(1, len(forest.rows))
    ticks = scale.ticks()
    parts: list[str] = []
    for tick, label in zip(ticks, labels(ticks), strict=True):
        at = f"{100 * scale.share(tick):.2f}%"
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="0" y2="100%"/>')
        parts.append(f'<text class="middle" x="{at}" y="100%" dy="18">{label}</text>')
    if forest.reference is not None:
        at = f"{100 * scale.share(forest.reference):.2f}%"
        parts.append(f'<line class="axis" x1="{at}" x2="{at}" y1="0" y2="100%"/>')
    parts += [
        _row(row, scale, f"{100 * (place + 0.5) / count:.2f}%") for place, row in enumerate(forest.rows)
    ]
    parts.append(
        f'<text class="label end" x="100%" dx="20" y="100%" dy="36">{escaped(forest.axis.title)}</text>'
    )
    return "".join(parts)


def _row(row: Row, scale: Scale, y: str) -> str:
    colour = palette.variable(row.colour)
    interval = ""
    if row.low is not None and row.high is not None:
        low, high = (f"{100 * scale.share(value):.2f}%" for value in (row.low, row.high))
        interval = f'<line class="interval" stroke="{colour}" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>'
    return (
        f'<g><title>{escaped(_words(row))}</title><rect class="reader" x="0" width="100%" y="{y}" height="20" '
        f'transform="translate(0 -10)"/><text class="label end" x="-10" y="{y}" dy="4">{escaped(row.label)}</text>'
        f'{interval}<circle cx="{100 * scale.share(row.value):.2f}%" cy="{y}" r="4.5" fill="{colour}"/></g>'
    )
