"""Long curves → short ones that look the same."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pellucid.report.charts.values import Numbers

_ROWS = 8192
"""Windows whose medians are taken at once, so that memory stays bounded."""


def thinned(x: Numbers, y: Numbers, columns: int) -> tuple[Numbers, Numbers]:
    """Of each of `columns` equal pieces of the x axis the first, lowest, highest and last point, in their order.

    A line through them covers the same pixels as one through all, where a piece is a pixel wide.
    x ascending. What is not finite is left out.  Source: Jugel et al. 2014, "M4", VLDB 7(10).
    """
    is_there = np.isfinite(x) & np.isfinite(y)
    x, y = x[is_there], y[is_there]
    if len(x) <= 4 * columns:
        return x, y
    width = (x[-1] - x[0]) or 1.0
    column = np.minimum(((x - x[0]) / width * columns).astype(np.int64), columns - 1)
    first = np.flatnonzero(np.diff(column, prepend=-1))
    last = np.append(first[1:], len(x)) - 1
    by_height = np.lexsort((y, column))  # inside its column, which begins where it began
    kept = np.unique(np.concatenate([first, last, by_height[first], by_height[last]]))
    return x[kept], y[kept]


def running_median(values: Numbers, window: int) -> Numbers:
    """At each place the median of the `window` (odd) values around it; of as many as there are near an end.

    Not a number where none of them is one.
    """
    half = window // 2
    if half == 0 or not len(values):
        return values.copy()
    padded = np.pad(values, half, constant_values=np.nan)
    windows = sliding_window_view(padded, 2 * half + 1)
    return np.concatenate([_medians(windows[at : at + _ROWS]) for at in range(0, len(windows), _ROWS)])


def _medians(windows: Numbers) -> Numbers:
    medians = np.full(len(windows), np.nan)
    is_there = ~np.isnan(windows).all(axis=1)  # of nothing there is no median, and numpy would warn
    with np.errstate(over="ignore"):  # of two numbers near the largest, whose middle is a gap in the picture
        medians[is_there] = np.nanmedian(windows[is_there], axis=1)
    return medians


def smoothing_window(count: int) -> int:
    """How many neighbours a running median takes, so that about sixty of them make the curve: odd, 1 … 201."""
    return min(201, max(1, count // 60)) // 2 * 2 + 1
