"""The curves of an ablation: a mean over seeds with the band that they fill, apart where there are many cells."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, Literal

import numpy as np

from pellucid.report.ablation.analysis import Analysis, CellResult
from pellucid.report.ablation.finding import key_names, short
from pellucid.report.charts import Axis, Chart, Forest, Row, Series
from pellucid.report.charts.thinning import running_median, smoothing_window
from pellucid.report.charts.values import Numbers
from pellucid.report.run.curves import WARM_UP, Against, axes_of
from pellucid.report.run.record import RunRecord

AT_ONCE = 6
"""More cells than this are drawn in several charts side by side."""
POINTS = 160
"""Places of the x axis at which seeds are averaged."""

Drawn = Callable[[str, int, Sequence[RunRecord], Against], list[Series]]
"""A cell's name, colour and runs → its curves: one, or one a seed."""


def forests(analysis: Analysis) -> list[Forest]:
    """Main effects, where several keys vary, and every cell against the baseline."""
    names = key_names(analysis.record.vary)
    found = [
        Forest(
            "main-effects",
            "Main effects: each value against the baseline's, by seed averaged over all else",
            Axis("bits/byte more than the baseline's value (← better)"),
            [
                _row(
                    f"{names[e.key]}: {short(e.level)} − {short(e.reference)}",
                    e.difference.mean,
                    e.difference.over_seeds,
                    e.difference.verdict,
                )
                for e in analysis.effects
            ],
            reference=0.0,
            note=_NOTE,
        )
    ]
    if len(analysis.record.vary) < 2:
        found = []
    found.append(
        Forest(
            "against-baseline",
            f"Every cell against the baseline, {analysis.baseline.cell.name}",
            Axis("bits/byte more than the baseline (← better)"),
            [
                _row(result.cell.name, d.mean, d.over_seeds, d.verdict)
                for result in analysis.ranked
                if (d := result.difference) is not None
            ],
            reference=0.0,
            note=_NOTE,
        )
    )
    return [forest for forest in found if not forest.is_empty]


_NOTE = (
    "Bars: 95 % intervals over seeds, of each row alone. Green: better, orange: worse, over seeds and the text not "
    "by chance, for all rows together; blue: neither can be said."
)
_COLOURS = {"better": 2, "worse": 1}


def _row(label: str, value: float, interval: Any, verdict: str) -> Row:
    ends = (interval.low, interval.high) if interval is not None else (None, None)
    return Row(label, value, *ends, colour=_COLOURS.get(verdict, 0))


def curve_charts(analysis: Analysis) -> dict[str, list[Chart]]:
    """By axis: training loss, then validation bits/byte, each in one chart or in a chart a facet."""
    results = [result for result in analysis.results if result.runs]
    runs = [run.run for run in analysis.runs]
    facets = _facets(analysis, results)
    charts: dict[str, list[Chart]] = {}
    for against in axes_of(runs):
        training = _faceted(
            facets, against, _training, "training-loss", "Training loss", "loss, nats a token"
        )
        validation = _faceted(facets, against, _validation, "validation", "Validation", "bits/byte")
        charts[against.key] = [*training, *validation]
    return charts


def _facets(
    analysis: Analysis, results: Sequence[CellResult]
) -> list[tuple[str, list[tuple[str, int, CellResult]]]]:
    """(title, [(name, colour, cell)]): colours are the values of the key that matters most; the rest is apart."""
    if len(results) <= AT_ONCE or len(analysis.record.vary) < 2:
        return [("", [(r.cell.name, r.number, r) for r in results])]
    key, names = _key_of_colours(analysis), key_names(analysis.record.vary)
    facets: dict[str, list[tuple[str, int, CellResult]]] = {}
    for result in results:
        rest = ", ".join(
            f"{names[k]} {short(v)}"
            for k, v in result.cell.values.items()
            if k != key and k in analysis.record.vary
        )
        level = result.cell.values[key]
        facets.setdefault(rest, []).append((short(level), analysis.record.vary[key].index(level), result))
    return list(facets.items())


def _key_of_colours(analysis: Analysis) -> str:
    """The key whose values differ most, so that curves of one chart are apart."""

    def reach(key: str) -> float:
        return max((abs(e.difference.mean) for e in analysis.effects if e.key == key), default=0.0)

    return max(analysis.record.vary, key=reach)


def _faceted(
    facets: Sequence[tuple[str, Sequence[tuple[str, int, CellResult]]]],
    against: Against,
    drawn: Drawn,
    name: str,
    title: str,
    unit: str,
) -> list[Chart]:
    charts: list[Chart] = []
    for (facet, members), slug in zip(facets, _slugs([facet for facet, _ in facets]), strict=True):
        cells = [drawn(label, colour, _runs(result), against) for label, colour, result in members]
        is_apart = any(len(series) > 1 for series in cells)
        if any(cells):
            charts.append(
                Chart(
                    f"{name}-{against.key}{slug}",
                    f"{title}: {facet}" if facet else title,
                    Axis(against.title, low=0.0),
                    Axis(unit),
                    [one for series in cells for one in series],
                    note=_APART if is_apart else "",
                )
            )
    return _on_one_scale(charts)


_APART = "Lines of one colour are seeds: they share no place on this axis at which they could be averaged."


def _runs(result: CellResult) -> list[RunRecord]:
    return [scored.run for scored in result.runs]


def _slugs(facets: Sequence[str]) -> list[str]:
    """Of each facet the end of its file's name; numbered where another facet has the same one."""
    slugs: list[str] = []
    for facet in facets:
        slug = base = f"-{re.sub(r'[^a-z0-9]+', '-', facet.lower()).strip('-')}" if facet else ""
        number = 2
        while slug in slugs:
            slug, number = f"{base}-{number}", number + 1
        slugs.append(slug)
    return slugs


def _training(name: str, colour: int, runs: Sequence[RunRecord], against: Against) -> list[Series]:
    """The mean of the smoothed losses as far as all seeds reach; steps are close enough to read between them."""
    curves: list[tuple[Numbers, Numbers]] = []
    for run in runs:
        x, loss = _known(against.of(run, run.steps), run.column("loss"))
        curves.append((x, running_median(loss, smoothing_window(len(loss)))))
    curves = [(x, y) for x, y in curves if len(x)]
    first, last = max((x[0] for x, _ in curves), default=0.0), min((x[-1] for x, _ in curves), default=0.0)
    if len(curves) < 2 or first > last:
        return [Series(name, x, y, colour) for x, y in curves]
    at = np.unique(np.linspace(first, last, min(POINTS, max(len(x) for x, _ in curves))))
    return [_mean(name, colour, at, np.array([np.interp(at, x, y) for x, y in curves]), "line")]


def _validation(name: str, colour: int, runs: Sequence[RunRecord], against: Against) -> list[Series]:
    """The mean where all seeds were measured, and nothing between; each seed itself where there is no such place."""
    curves = [
        _known(against.of(run, run.validations), run.column("bits_per_byte", run.validations)) for run in runs
    ]
    curves = [(x, y) for x, y in curves if len(x)]
    shared = reduce(np.intersect1d, [x for x, _ in curves]) if curves else np.empty(0)
    if len(curves) < 2 or not len(shared):
        return [Series(name, x, y, colour, "points") for x, y in curves]
    heights = np.array([y[np.isin(x, shared)] for x, y in curves])
    return [_mean(name, colour, shared, heights, "points")]


def _mean(name: str, colour: int, at: Numbers, heights: Numbers, kind: Literal["line", "points"]) -> Series:
    """With the band between the lowest and the highest seed. heights: [seed, place]."""
    return Series(name, at, heights.mean(axis=0), colour, kind, heights.min(axis=0), heights.max(axis=0))


def _known(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    """What is known of a curve, x ascending; of what a rollback made anew, the last."""
    is_there = np.isfinite(x) & np.isfinite(y)
    x, y = x[is_there], y[is_there]
    places, from_behind = np.unique(x[::-1], return_index=True)
    return places, y[::-1][from_behind]


def _on_one_scale(charts: Sequence[Chart]) -> list[Chart]:
    """Facets compare only where their axes are the same. What lies in the first twentieth may be above them."""
    if not charts:
        return []
    every = [s for chart in charts for s in chart.series]
    end = max(float(s.x[-1]) for s in every)
    late = [s.y[s.x >= WARM_UP * end] for s in every]
    low = min(float(np.min(s.low if s.low is not None else s.y)) for s in every)
    high = max((float(values.max()) for values in late if len(values)), default=math.nan)
    if not high > low:
        return list(charts)
    air = 0.04 * (high - low)
    return [
        replace(chart, x=replace(chart.x, high=end), y=replace(chart.y, low=low - air, high=high + air))
        for chart in charts
    ]
