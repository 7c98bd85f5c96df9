"""The evaluations of runs as tables: texts with intervals, tasks with their number of items."""

from __future__ import annotations

from collections.abc import Sequence

from pellucid.evaluate.interval import Interval
from pellucid.evaluate.record import TaskEvaluation, TextEvaluation
from pellucid.report.run.record import RunRecord
from pellucid.report.tables import Cell, Table

CHANCE = "chance"
"""The metric, where a task has it, of what guessing would give."""


def text_table(runs: Sequence[RunRecord]) -> Table | None:
    """Every scored text of every run; None where there is none."""
    rows = [
        (run.name, name, text)
        for run in runs
        for name, evaluation in run.evaluations.items()
        for text in evaluation.texts
    ]
    if not rows:
        return None
    columns = ("bits/byte", "perplexity", "loss, nats/token", "units", "unit", "window", "stride")
    return Table(
        "Texts",
        (*_who(runs), "text", *columns),
        tuple((*_whose(runs, run, name), Cell(text.data), *_text_cells(text)) for run, name, text in rows),
    )


def _text_cells(text: TextEvaluation) -> tuple[Cell, ...]:
    return (
        with_interval(text.bits_per_byte, text.bits_per_byte_interval, 4),
        with_interval(text.perplexity, text.perplexity_interval, 2),
        with_interval(text.loss, text.loss_interval, 4),
        Cell(f"{len(text.units):,}", is_number=True),
        Cell(text.unit),
        Cell(f"{text.window:,}", is_number=True),
        Cell(f"{text.stride:,}", is_number=True),
    )


def task_table(runs: Sequence[RunRecord]) -> Table | None:
    """Every metric of every task of every run; None where there is none."""
    rows = [
        (run.name, name, task, metric)
        for run in runs
        for name, evaluation in run.evaluations.items()
        for task in evaluation.tasks
        for metric in task.metrics
        if metric != CHANCE
    ]
    if not rows:
        return None
    has_chance = any(CHANCE in task.metrics for _, _, task, _ in rows)
    return Table(
        "Tasks",
        (*_who(runs), "task", "metric", "value", "items", *(["by chance"] if has_chance else [])),
        tuple(
            (
                *_whose(runs, run, name),
                Cell(task.task),
                Cell(metric),
                _metric(task, metric),
                Cell(f"{task.items:,}", is_number=True),
                *([_chance(task, metric)] if has_chance else []),
            )
            for run, name, task, metric in rows
        ),
    )


def _metric(task: TaskEvaluation, metric: str) -> Cell:
    return with_interval(task.value(metric), task.interval(metric), 4)


def _chance(task: TaskEvaluation, metric: str) -> Cell:
    """Guessing has an accuracy, and no likelihood."""
    is_known = CHANCE in task.metrics and metric.startswith("acc")
    return Cell(f"{task.value(CHANCE):.4f}" if is_known else "–", is_number=True)


def with_interval(value: float, interval: Interval | None, digits: int) -> Cell:
    """The value, and under it where the true one lies."""
    below = "" if interval is None else f"{interval.low:,.{digits}f} … {interval.high:,.{digits}f}"
    return Cell(f"{value:,.{digits}f}", below, is_number=True)


def _who(runs: Sequence[RunRecord]) -> tuple[str, ...]:
    return ("run", "evaluation") if len(runs) > 1 else ("evaluation",)


def _whose(runs: Sequence[RunRecord], run: str, name: str) -> tuple[Cell, ...]:
    return (Cell(run), Cell(name)) if len(runs) > 1 else (Cell(name),)
