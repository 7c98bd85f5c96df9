"""The colours of curves: eight that are told apart, also by people who do not see all colours, then dashed again."""

from __future__ import annotations

from pellucid.report.page import Colours

CURVES = (
    ("#0b6e99", "#58b7e0"),
    ("#c2410c", "#ff9d6e"),
    ("#2e7d32", "#7ccf80"),
    ("#8e3b9e", "#d9a3e6"),
    ("#8a6400", "#e3c34c"),
    ("#c2185b", "#ff8ab5"),
    ("#00766c", "#4fd0be"),
    ("#5d4037", "#c9a793"),
)
"""On a light page and on a dark one; each has a contrast of at least 4.5 to it."""

DASHES = ("", "7 4", "2 3")
"""Of the first eight numbers, of the next eight, of all others."""

COLOURS: Colours = {f"curve-{number}": pair for number, pair in enumerate(CURVES)}


def variable(colour: int) -> str:
    return f"var(--curve-{colour % len(CURVES)})"


def dash(colour: int) -> str:
    return DASHES[min(colour // len(CURVES), len(DASHES) - 1)]
