"""What a model scores on tasks, drawn for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pellucid.evaluate.bootstrap import Interval
from pellucid.evaluate.record import TaskEvaluation


def print_tasks(found: Sequence[TaskEvaluation], console: Console) -> None:
    """A row a metric: how many items, the value, its interval over them, and what guessing would give."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("task", overflow="fold")
    table.add_column("n", justify="right")
    table.add_column("metric")
    for name in ("value", "95 % interval", "chance"):
        table.add_column(name, justify="right")
    for task in found:
        for number, metric in enumerate(task.metrics):
            chance = task.chance.get(metric)
            table.add_row(
                Text("" if number else task.task),
                "" if number else f"{task.items:,}",
                metric,
                value(task.value(metric)),
                bounds(task.interval(metric)),
                "–" if chance is None else value(chance),
            )
    console.print(table)
    for task in found:
        if task.truncated:
            console.print(
                f"{task.task}: {task.truncated:,} of {task.items:,} items are longer than the model's window; their "
                "beginning was left out"
            )


def value(number: float) -> str:
    """Shares with three digits behind the point; what is larger with fewer."""
    return f"{number:.3f}" if number < 10 else f"{number:,.1f}"


def bounds(interval: Interval | None) -> str:
    return "too few items" if interval is None else f"{value(interval.low)} – {value(interval.high)}"
