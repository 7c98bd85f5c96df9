"""A run's facts → charts: loss against steps, tokens, time and compute; rate, gradient, speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pellucid.report.charts import Axis, Chart, Mark, Series
from pellucid.report.charts.thinning import running_median, smoothing_window
from pellucid.report.charts.values import Numbers
from pellucid.report.run.record import RunRecord, as_number

WARM_UP = 0.05
"""The share of a run whose losses may lie above the picture, so that what comes later is told apart."""

_TIMES = ((2 * 86400, 86400, "days"), (2 * 3600, 3600, "hours"), (120, 60, "minutes"), (0, 1, "seconds"))
_COMPUTE = ((1e21, "ZFLOP"), (1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (0, "GFLOP"))


@dataclass(frozen=True)
class Against:
    """An x axis that curves can be drawn against. of: a run and its facts → where each fact lies."""

    key: Literal["steps", "tokens", "time", "compute"]
    title: str
    """On the axis, with the unit."""
    of: Callable[[RunRecord, Sequence[Any]], Numbers]


def axes_of(runs: Sequence[RunRecord]) -> list[Against]:
    """Steps, tokens, time and, where all runs tell their FLOPs, compute; in units that fit the longest run."""
    longest = max((run.seconds for run in runs), default=0.0)
    seconds, unit = next(((size, name) for least, size, name in _TIMES if longest >= least), (1, "seconds"))
    found = [
        Against("steps", "steps", lambda run, facts: run.column("step", facts)),
        Against("tokens", "tokens", lambda run, facts: _told(run, facts, "tokens")),
        Against(
            "time",
            f"{unit} of training",
            lambda run, facts: _told(run, facts, "elapsed_seconds") / seconds,
        ),
    ]
    most = max((run.flops_per_token * run.tokens for run in runs), default=0.0)
    if runs and all(run.flops_per_token for run in runs):
        least, prefix = next((pair for pair in _COMPUTE if most >= pair[0]), _COMPUTE[-1])
        scale = least or 1e9
        found.append(
            Against(
                "compute",
                f"training compute, {prefix}",
                lambda run, facts: _told(run, facts, "tokens") * run.flops_per_token / scale,
            )
        )
    return found


def _told(run: RunRecord, facts: Sequence[Any], key: str) -> Numbers:
    """What each fact says of the key; where it says nothing, what the steps around its own say."""
    said = run.column(key, facts)
    steps, told = run.column("step"), run.column(key)
    is_there = np.isfinite(steps) & np.isfinite(told)
    if np.isfinite(said).all() or not is_there.any():
        return said
    between = np.interp(run.column("step", facts), steps[is_there], told[is_there])
    return np.where(np.isfinite(said), said, between)


def loss_charts(runs: Sequence[RunRecord]) -> dict[str, list[Chart]]:
    """By axis: of one run, its training and validation loss in one chart; of several, a chart for each of the two."""
    return {
        against.key: [_one_loss(runs[0], against)] if len(runs) == 1 else _losses(runs, against)
        for against in axes_of(runs)
    }


def _one_loss(run: RunRecord, against: Against) -> Chart:
    x, y = against.of(run, run.steps), run.column("loss")
    window = smoothing_window(len(y))
    known = np.isfinite(y)
    series = [
        Series("training, every step", x, y, 0, "faint"),
        Series(_smoothed("training", window), x[known], running_median(y[known], window), 0),
        *_validation(run, "validation", 1, against),
    ]
    return _loss_chart(f"loss-{against.key}", "Training and validation loss", against, [run], series)


def _losses(runs: Sequence[RunRecord], against: Against) -> list[Chart]:
    training: list[Series] = []
    windows = {smoothing_window(len(run.steps)) for run in runs}
    for number, run in enumerate(runs):
        x, y = against.of(run, run.steps), run.column("loss")
        known = np.isfinite(y)
        smooth = running_median(y[known], smoothing_window(len(y)))
        training.append(Series(run.name, x[known], smooth, number))
    title = _smoothed("Training loss", max(windows))
    validation = [s for number, run in enumerate(runs) for s in _validation(run, run.name, number, against)]
    charts = [_loss_chart(f"training-loss-{against.key}", title, against, runs, training)]
    if validation:
        charts.append(
            _loss_chart(f"validation-loss-{against.key}", "Validation loss", against, runs, validation)
        )
    return charts


def _smoothed(what: str, window: int) -> str:
    return f"{what}, median of {window} steps" if window > 1 else what


def _validation(run: RunRecord, name: str, colour: int, against: Against) -> list[Series]:
    facts = run.validations
    if not facts:
        return []
    return [Series(name, against.of(run, facts), run.column("val_loss", facts), colour, "points")]


def _loss_chart(
    name: str, title: str, against: Against, runs: Sequence[RunRecord], series: Sequence[Series]
) -> Chart:
    high = _ceiling(runs, series)
    note = f"The first losses lie above {high:.2f} and outside of the picture." if high is not None else ""
    return Chart(
        name,
        title,
        Axis(against.title, low=0.0),
        Axis("loss, nats a token", high=high),
        series,
        marks=_marks(runs, against) if len(runs) == 1 else (),
        note=note,
    )


def _ceiling(runs: Sequence[RunRecord], series: Sequence[Series]) -> float | None:
    """Where the picture ends above: what losses fell to after the first twentieth of a run.

    None where that would leave out little.
    """
    late: list[float] = []
    for run in runs:
        loss = run.column("loss")
        if len(loss) >= 40:
            tail = loss[int(WARM_UP * len(loss)) :]
            late += [float(np.nanmax(running_median(tail, 5)))] if np.isfinite(tail).any() else []
    late += [as_number(fact.get("val_loss")) for run in runs for fact in run.validations]
    drawn = np.concatenate([s.y[np.isfinite(s.y)] for s in series]) if series else np.empty(0)
    if not drawn.size or not np.isfinite(late).any():
        return None
    high, low = float(np.nanmax(late)), float(drawn.min())
    high += 0.05 * (high - low)
    return high if drawn.max() - low > 1.3 * (high - low) > 0 else None


def _marks(runs: Sequence[RunRecord], against: Against) -> list[Mark]:
    """What the guard saw: spikes, skipped updates, and rollbacks."""
    marks: list[Mark] = []
    for run in runs:
        for fact in run.facts:
            if words := event_words(fact):
                at = float(against.of(run, [fact])[0])
                marks.append(Mark(at, words))
    return [mark for mark in marks if np.isfinite(mark.x)]


def event_words(fact: Any) -> str:
    """What happened in a step, where something did; of a rollback, why."""
    if fact.get("event") == "rollback":
        return f"rolled back from step {fact.get('from_step')} to {fact.get('step')}: {fact.get('reason')}"
    if fact.get("event") != "step":
        return ""
    if fact.get("is_skipped"):
        return f"step {fact.get('step')} skipped: loss or gradient not finite"
    if fact.get("is_spike"):
        return f"step {fact.get('step')}: loss spike, {as_number(fact.get('loss')):.3f}"
    return ""


def side_charts(runs: Sequence[RunRecord]) -> list[Chart]:
    """Learning rate and gradient norm against steps, throughput against time."""
    steps, _, time = axes_of(runs)[:3]
    norm, speed = "gradient norm before clipping", "tokens a second"
    rates = [_series(run, number, steps, run.column("lr")) for number, run in enumerate(runs)]
    charts = [
        Chart("learning-rate", "Learning rate", Axis(steps.title, low=0.0), Axis("learning rate"), rates)
    ]
    norms = _smooth(runs, steps, lambda run: run.column("grad_norm"))
    is_wide = _spread(norms) > 30
    charts.append(
        Chart("gradient-norm", "Gradient norm", Axis(steps.title, low=0.0), Axis(norm, is_log=is_wide), norms)
    )
    speeds = _smooth(runs, time, throughput)
    low = 0.0 if any(np.isfinite(s.y).any() for s in speeds) else None
    charts.append(Chart("throughput", "Throughput", Axis(time.title, low=0.0), Axis(speed, low=low), speeds))
    return [chart for chart in charts if not chart.is_empty]


def throughput(run: RunRecord) -> Numbers:
    """Tokens a second of every step; a gap where a session began."""
    seconds = run.column("step_seconds")
    tokens = np.diff(run.column("tokens"), prepend=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((seconds > 0) & (tokens > 0), tokens / seconds, np.nan)


def _series(run: RunRecord, colour: int, against: Against, y: Numbers) -> Series:
    return Series(run.name, against.of(run, run.steps), y, colour)


def _smooth(runs: Sequence[RunRecord], against: Against, of: Callable[[RunRecord], Numbers]) -> list[Series]:
    """Running medians; behind that of a single run, every step."""
    found: list[Series] = []
    for number, run in enumerate(runs):
        x, y = against.of(run, run.steps), of(run)
        known = np.isfinite(y)
        window = smoothing_window(len(y))
        if len(runs) == 1:
            found.append(Series("every step", x, y, number, "faint"))
        found.append(Series(run.name, x[known], running_median(y[known], window), number))
    return found


def _spread(series: Sequence[Series]) -> float:
    """The highest over the lowest value of the smooth curves."""
    values = [s.y[np.isfinite(s.y) & (s.y > 0)] for s in series if s.kind != "faint"]
    every = np.concatenate(values) if values else np.empty(0)
    return float(every.max() / every.min()) if every.size else 1.0
