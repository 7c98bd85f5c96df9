"""The pictures of a page, as inline SVG. Colours come from the page's style."""

from __future__ import annotations

import math
from html import escape

from pellucid.report.walkthrough.values import Bars, Heatmap, Turn, Turns

CHARACTER = 6.7
"""Width in pixels of a letter of the page's small monospace."""


def bars(picture: Bars) -> str:
    """A length for each number, its remark behind it."""
    left = CHARACTER * max(len(label) for label, _, _ in picture.rows) + 10
    largest = max(value for _, value, _ in picture.rows) or 1.0
    rows: list[str] = []
    for index, (label, value, remark) in enumerate(picture.rows):
        y = 20 * index
        written = f"{value:.3f} " if picture.is_written else ""
        length = max(0.0, 240 * value / largest) if math.isfinite(value) else 0.0
        rows.append(
            f'<text x="0" y="{y + 13}">{escape(label)}</text>'
            f'<rect class="fill" x="{left:.0f}" y="{y + 3}" width="{length:.1f}" height="13">'
            f"<title>{escape(label)}: {value:.6g}</title></rect>"
            f'<text class="soft" x="{left + length + 6:.0f}" y="{y + 13}">{written}{escape(remark)}</text>'
        )
    longest = max(len(remark) for _, _, remark in picture.rows)
    return _svg(left + 260 + CHARACTER * (longest + 8), 20 * len(picture.rows), rows, picture.caption)


def heatmap(picture: Heatmap) -> str:
    """A square a share, the fuller the larger; hovering names the two tokens. What is masked is left out.

    Opacity is the root of the share, since the eye tells apart faint shades better than strong ones.
    """
    size = 20 if len(picture.columns) <= 30 else 14
    left = CHARACTER * max(map(len, picture.rows)) + 10
    longest = max(map(len, picture.columns))
    top, how = (18.0, ' text-anchor="middle"') if longest == 1 else (CHARACTER * longest * 0.9 + 14, "")
    turned = "" if longest == 1 else " rotate(-65)"
    parts = [
        f'<text{how} transform="translate({left + size * (column + 0.5):.0f} {top - 5:.0f}){turned}">'
        f"{escape(label)}</text>"
        for column, label in enumerate(picture.columns)
    ]
    for row, (label, shares) in enumerate(zip(picture.rows, picture.shares, strict=True)):
        y = top + size * row
        parts.append(
            f'<text x="{left - 6:.0f}" y="{y + size * 0.7:.0f}" text-anchor="end">{escape(label)}</text>'
        )
        parts += [
            f'<rect class="fill" x="{left + size * column:.0f}" y="{y:.0f}" width="{size - 1}" height="{size - 1}" '
            f'fill-opacity="{math.sqrt(max(0.0, share)):.3f}"><title>{escape(label)} ({row}) takes {share:.1%} from '
            f"{escape(picture.columns[column])} ({column})</title></rect>"
            for column, share in enumerate(shares)
            if share is not None
        ]
    width, height = left + size * len(picture.columns) + 40, top + size * len(picture.rows)
    return _svg(width, height, parts, picture.caption)


def turns(picture: Turns) -> str:
    """Each vector in a circle, before (grey) and after: all to one scale."""
    longest = max(math.hypot(*x) for turn in picture.turns for x in (turn.before, turn.after)) or 1.0
    parts = [
        f'<g transform="translate({55 + 110 * index} 55)">{_turn(turn, 45 / longest)}</g>'
        for index, turn in enumerate(picture.turns)
    ]
    return _svg(110 * len(picture.turns), 135, parts, picture.caption)


def _turn(turn: Turn, scale: float) -> str:
    return (
        '<circle class="line" r="45"/>'
        + _arrow(turn.before, scale, "old")
        + _arrow(turn.after, scale, "new")
        + f'<text y="62" text-anchor="middle">{escape(turn.label)}</text>'
        f'<text class="soft" y="76" text-anchor="middle">{math.degrees(turn.angle) % 360:.1f}°</text>'
    )


def _arrow(vector: tuple[float, float], scale: float, kind: str) -> str:
    """From the centre; the first feature points right, the second up."""
    x, y = vector[0] * scale, -vector[1] * scale
    length = math.hypot(x, y) or 1.0
    along, across = (x / length * 6, y / length * 6), (-y / length * 3, x / length * 3)
    back = (x - along[0], y - along[1])
    tip = (
        f"M{back[0] + across[0]:.1f} {back[1] + across[1]:.1f}L{x:.1f} {y:.1f}"
        f"L{back[0] - across[0]:.1f} {back[1] - across[1]:.1f}"
    )
    name = f"({vector[0]:.3f}, {vector[1]:.3f})"
    return f'<path class="{kind}" stroke-width="2" d="M0 0L{x:.1f} {y:.1f}{tip}"><title>{name}</title></path>'


def _svg(width: float, height: float, parts: list[str], name: str) -> str:
    return (
        f'<svg role="img" aria-label="{escape(name)}" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">{"".join(parts)}</svg>'
    )
