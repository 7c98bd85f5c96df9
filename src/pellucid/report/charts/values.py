"""What a chart shows, as values: how it is drawn is nobody's business here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """title: what it measures, with the unit. low, high: its ends; None: as the data has them."""

    title: str
    low: float | None = None
    high: float | None = None
    is_log: bool = False


@dataclass(frozen=True, eq=False)
class Series:
    """One curve: x ascending, y of the same length; a y that is not finite is a gap.

    kind: "line"; "faint" for what lies behind a line; "points" for few values, joined and dotted.
    low, high: a band around the curve.
    """

    name: str
    x: Numbers
    y: Numbers
    colour: int = 0
    """A number of the palette; what has the same number has the same colour."""
    kind: Literal["line", "faint", "points"] = "line"
    low: Numbers | None = None
    high: Numbers | None = None


@dataclass(frozen=True)
class Mark:
    """An event at one x."""

    x: float
    name: str


@dataclass(frozen=True, eq=False)
class Chart:
    """Curves over one x axis. name: of its file; title: for people; note: a sentence below it."""

    name: str
    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    marks: Sequence[Mark] = ()
    note: str = ""

    @property
    def is_empty(self) -> bool:
        return not any(np.isfinite(series.y).any() for series in self.series)


@dataclass(frozen=True)
class Row:
    """One value with its interval; None: without one."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    colour: int = 0


@dataclass(frozen=True)
class Forest:
    """Values with their intervals, one below the other, and a line at `reference`."""

    name: str
    title: str
    axis: Axis
    rows: Sequence[Row]
    reference: float | None = None
    note: str = ""

    @property
    def is_empty(self) -> bool:
        return not self.rows


Picture = Chart | Forest


def ends(values: Sequence[Numbers], axis: Axis) -> tuple[float, float]:
    """The lowest and the highest that the axis shows: its own ends, else those of the finite values, never equal."""
    finite = [v[np.isfinite(v) & (v > 0)] if axis.is_log else v[np.isfinite(v)] for v in values]
    every = np.concatenate(finite) if finite else np.empty(0)
    low = axis.low if axis.low is not None else float(every.min()) if every.size else 0.0
    high = axis.high if axis.high is not None else float(every.max()) if every.size else low + 1.0
    if high > low:
        return low, high
    if axis.is_log:
        return low / 2, low * 2
    room = abs(low) / 20 or 0.5
    return low - room, low + room
