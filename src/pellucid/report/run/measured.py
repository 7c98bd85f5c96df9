"""The evaluations of runs as tables: texts with intervals, tasks with their number of items."""

from __future__ import annotations

from collections.abc import Sequence

from pellucid.evaluate.interval import Interval
from pellucid.evaluate.record import TaskEvaluation, TextEvaluation
from pellucid.report.run.record import RunRecord
from pellucid.report.tables import Cell, Table


def text_table(runs: Sequence[RunRecord]) -> Table | None:
    """Every scored text of every run, and its parts where it has some; None where there is none."""
    rows = [
        (run.name, name, text)
        for run in runs
        for name, evaluation in run.evaluations.items()
        for whole in evaluation.texts
        for text in (whole, *_parts(whole))
    ]
    if not rows:
        return None
    columns = ("bits/byte", "perplexity", "loss, nats/token", "units", "unit", "window", "stride")
    return Table(
        "Texts",
        (*_who(runs), "text", *columns),
        tuple((*_whose(runs, run, name), Cell(text.data), *_text_cells(text)) for run, name, text in rows),
    )


def _parts(text: TextEvaluation) -> list[TextEvaluation]:
    return [text.of_domain(name) for name in text.domains] if text.is_mixed else []


def _text_cells(text: TextEvaluation) -> tuple[Cell, ...]:
    return (
        with_interval(text.bits_per_byte, text.bits_per_byte_interval, 4),
        with_interval(text.perplexity, text.perplexity_interval, 2),
        with_interval(text.loss, text.loss_interval, 4),
        Cell(f"{len(text.units):,}", is_number=True),
        Cell(text.unit, _seen(text)),
        Cell(f"{text.window:,}", is_number=True),
        Cell(f"{text.stride:,}", is_number=True),
    )


def _seen(text: TextEvaluation) -> str:
    """A warning beside a score that says little, where the text was trained on."""
    return f"at least {text.seen_in_training:.1%} of it seen in training" if text.seen_in_training else ""


def task_table(runs: Sequence[RunRecord]) -> Table | None:
    """Every metric of every task of every run; None where there is none."""
    rows = [
        (run.name, name, task, metric)
        for run in runs
        for name, evaluation in run.evaluations.items()
        for task in evaluation.tasks
        for metric in task.metrics
    ]
    if not rows:
        return None
    return Table(
        "Tasks",
        (*_who(runs), "task", "metric", "value", "by chance", "items"),
        tuple(
            (
                *_whose(runs, run, name),
                Cell(task.task),
                Cell("perplexity" if task.summaries[metric] == "perplexity" else metric),
                _metric(task, metric),
                Cell(f"{task.chance[metric]:.4f}" if metric in task.chance else "–", is_number=True),
                Cell(
                    f"{task.items:,}", f"{task.truncated:,} cut off" if task.truncated else "", is_number=True
                ),
            )
            for run, name, task, metric in rows
        ),
    )


def _metric(task: TaskEvaluation, metric: str) -> Cell:
    return with_interval(task.value(metric), task.interval(metric), 4)


def with_interval(value: float, interval: Interval | None, digits: int) -> Cell:
    """The value, and under it where the true one lies."""
    below = "" if interval is None else f"{interval.low:,.{digits}f} … {interval.high:,.{digits}f}"
    return Cell(f"{value:,.{digits}f}", below, is_number=True)


def _who(runs: Sequence[RunRecord]) -> tuple[str, ...]:
    return ("run", "evaluation") if len(runs) > 1 else ("evaluation",)


def _whose(runs: Sequence[RunRecord], run: str, name: str) -> tuple[Cell, ...]:
    return (Cell(run), Cell(name)) if len(runs) > 1 else (Cell(name),)
