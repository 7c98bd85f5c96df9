"""Models beside each other, drawn for a terminal: every number with its interval, then the verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pellucid.evaluate.compare import Comparison
from pellucid.evaluate.record import Evaluation
from pellucid.report.scores import number


def print_comparison(evaluations: Sequence[Evaluation], found: Comparison, console: Console) -> None:
    measured = [dict(_numbers(evaluation)) for evaluation in evaluations]
    columns = list(dict.fromkeys(what for numbers in measured for what in numbers))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("[95 % interval]", overflow="fold")
    table.add_column("parameters", justify="right")
    for what in columns:
        table.add_column(Text(what), justify="right")
    for name, evaluation, numbers in zip(found.models, evaluations, measured, strict=True):
        cells = [numbers.get(what, "–") for what in columns]
        table.add_row(Text(name), f"{evaluation.parameters:,}", *cells)
    console.print(table)
    console.print()
    for difference in found.differences:
        paired = "" if difference.is_paired else ", unpaired"
        style = "" if difference.better is None else "bold"
        over = f"{percent(difference.interval.level)} interval over {difference.units}{paired}"
        console.print(f"{difference.what}: {difference} ({over})", style=style)
    if (count := len(found.differences)) > 1:
        console.print(
            f"{count} differences are shown. Their intervals are of {percent(found.level)} each, so that all verdicts "
            "together are wrong in no more than 5 % of such comparisons."
        )


def percent(level: float) -> str:
    """`95 %`, `98.33 %`."""
    return f"{100 * level:.4g} %"


def _numbers(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    """What was measured, and its value."""
    for text in evaluation.texts:
        yield f"{text.data}\nbits/byte", number(text.bits_per_byte, text.bits_per_byte_interval, 4)
    for task in evaluation.tasks:
        for metric in task.metrics:
            yield f"{task.task}\n{metric}", number(task.value(metric), task.interval(metric), 3)
