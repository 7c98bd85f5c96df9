"""The curves of an ablation: a mean over seeds with the band that they fill, apart where there are many cells."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

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

Curve = Callable[[RunRecord, Against], tuple[Numbers, Numbers]]


def forests(analysis: Analysis) -> list[Forest]:
    """Main effects, where several keys vary, and every cell against the baseline."""
    names = key_names(analysis.record.vary)
    found = [
        Forest(
            "main-effects",
            "Main effects: each value against the baseline's, averaged over all else",
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


_NOTE = "Bars: 95 % intervals over seeds. Green: better, orange: worse, and not by chance; blue: cannot be told apart."
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
    curve: Curve,
    name: str,
    title: str,
    unit: str,
) -> list[Chart]:
    charts: list[Chart] = []
    for facet, members in facets:
        series = [
            averaged
            for label, colour, result in members
            if (averaged := _averaged(label, colour, [curve(run.run, against) for run in result.runs]))
        ]
        of = f"-{re.sub(r'[^a-z0-9]+', '-', facet.lower())}" if facet else ""
        if series:
            charts.append(
                Chart(
                    f"{name}-{against.key}{of}",
                    f"{title}: {facet}" if facet else title,
                    Axis(against.title, low=0.0),
                    Axis(unit),
                    series,
                )
            )
    return _on_one_scale(charts)


def _averaged(name: str, colour: int, curves: Sequence[tuple[Numbers, Numbers]]) -> Series | None:
    """The mean of several curves as far as all reach, and the band between the lowest and the highest."""
    known = [(x[np.isfinite(x) & np.isfinite(y)], y[np.isfinite(x) & np.isfinite(y)]) for x, y in curves]
    known = [(x, y) for x, y in known if len(x)]
    if not known:
        return None
    first, last = max(x[0] for x, _ in known), min(x[-1] for x, _ in known)
    longest = max(len(x) for x, _ in known)
    at = np.linspace(first, last, min(POINTS, longest)) if longest > 1 else np.array([first])
    heights = np.array([np.interp(at, x, y) for x, y in known])
    kind = "points" if longest <= 24 else "line"
    band = (heights.min(axis=0), heights.max(axis=0)) if len(known) > 1 else (None, None)
    return Series(name, at, heights.mean(axis=0), colour, kind, *band)


def _training(run: RunRecord, against: Against) -> tuple[Numbers, Numbers]:
    loss = run.column("loss")
    known = np.isfinite(loss)
    x = against.of(run, run.steps)[known]
    return x, running_median(loss[known], smoothing_window(len(loss)))


def _validation(run: RunRecord, against: Against) -> tuple[Numbers, Numbers]:
    facts = run.validations
    return against.of(run, facts), run.column("bits_per_byte", facts)


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
