"""A comparison on a terminal: the figures of every strategy, then its texts, side by side where there is room."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from pellucid.generate.comparison import Continuations, SamplingComparison
from pellucid.generate.samples import REPEATED_IDS, Sample
from pellucid.generate.text import printable
from pellucid.report.sampling.columns import COLUMNS, sample_text, settings_text, standing_out

NARROWEST = 38
"""Columns that a text needs to be read with ease."""
REPEATED = "black on #f7d8a8"
LOWEST, HIGHEST = "magenta", "green"


def print_comparison(comparison: SamplingComparison, console: Console) -> None:
    """Draw it. Control characters that the model wrote do not reach the terminal."""
    console.print(_figures(comparison))
    for column in COLUMNS:
        console.print(Text.assemble((f"  {column.short}: ", "dim bold"), (column.meaning, "dim")))
    if console.color_system is not None:
        again = f"{REPEATED_IDS} tokens in a row that came before"
        console.print(
            Text.assemble(
                ("  lowest", LOWEST), ", ", ("highest", HIGHEST), "; in a text: ", (again, REPEATED)
            )
        )
    for one in comparison.strategies:
        console.print()
        console.print(Text.assemble((one.name, "bold cyan"), f"  {settings_text(one.settings)}"))
        console.print(Text(one.description, "dim"))
        console.print(_side_by_side(one, console.width))


def _figures(comparison: SamplingComparison) -> Table:
    """The lowest and the highest of each column in colour."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("", overflow="fold")
    cells: list[list[Text]] = []
    for column in COLUMNS:
        table.add_column(column.short, justify="right", no_wrap=True)
        values = column.values(comparison)
        lowest, highest = standing_out(column, values)
        styles = {lowest: LOWEST, highest: HIGHEST}
        cells.append([Text(column.written(value), styles.get(row, "")) for row, value in enumerate(values)])
    for one, row in zip(comparison.strategies, zip(*cells, strict=True), strict=True):
        table.add_row(Text(one.name), *row)
    return table


def _side_by_side(one: Continuations, width: int) -> RenderableType:
    """As many texts in a row as are wide enough to be read."""
    samples = one.samples if one.is_drawn else one.samples[:1]
    in_a_row = min(len(samples), max(1, width // NARROWEST))
    grid = Table.grid(expand=True)
    for _ in range(in_a_row):
        grid.add_column(ratio=1)
    panels = [_panel(sample, f"seed {sample.seed}" if one.is_drawn else "every seed") for sample in samples]
    for start in range(0, len(panels), in_a_row):
        grid.add_row(*panels[start : start + in_a_row])
    return grid


def _panel(sample: Sample, title: str) -> Panel:
    text = Text()
    end = 0
    for first, last in sample.repeated:
        text.append(printable(sample.text[end:first]))
        text.append(printable(sample.text[first:last]), REPEATED)
        end = last
    text.append(printable(sample.text[end:]))
    return Panel(
        Group(text if sample.text else Text("(nothing)", "dim"), Text(sample_text(sample), "dim")),
        title=Text(title, "bold"),
        title_align="left",
        border_style="dim",
    )
