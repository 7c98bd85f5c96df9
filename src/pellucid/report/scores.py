"""The scores of a text, drawn for a terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pellucid.evaluate.bootstrap import Interval
from pellucid.evaluate.record import TextEvaluation


def print_text(found: TextEvaluation, precision: str, console: Console) -> None:
    """One line of numbers with their intervals, what these are over, and a table of the parts where there are some."""
    console.print(
        f"{found.data}: loss {number(found.loss, found.loss_interval, 4)} nats/token, "
        f"perplexity {number(found.perplexity, found.perplexity_interval, 3)}, "
        f"{number(found.bits_per_byte, found.bits_per_byte_interval, 4)} bits/byte "
        f"({found.tokens:,} tokens, {found.bytes:,} bytes, {precision})"
    )
    console.print(over(found))
    if found.seen_in_training:
        console.print(
            f"at least {found.seen_in_training:.1%} of its spans of 100 bytes stand word for word in the training text"
        )
    if found.is_mixed:
        console.print(_table(found))


def number(value: float, interval: Interval | None, digits: int) -> str:
    """`2.3100 [2.2900, 2.3310]`, or the value alone."""
    if interval is None:
        return f"{value:,.{digits}f}"
    return f"{value:,.{digits}f} [{interval.low:,.{digits}f}, {interval.high:,.{digits}f}]"


def over(found: TextEvaluation) -> str:
    """Over what the intervals are, and by which windows it was read."""
    window = f"windows of {found.window:,} tokens"
    if found.stride != found.window:
        window += f" every {found.stride:,}"
    if not math.isfinite(found.loss):
        return (
            f"no interval: the loss is {found.loss}, which a broken model or infinite logits give; {window}"
        )
    if found.loss_interval is None:
        return f"no interval: {found.counted_units} cannot say how far another text would be off; {window}"
    return f"[95 % interval] over {found.counted_units}; {window}"


def _table(found: TextEvaluation) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("part", overflow="fold")
    for name in (found.unit_name.split(" ")[0], "tokens", "bytes", "loss", "perplexity", "bits/byte"):
        table.add_column(name, justify="right")
    for name in found.domains:
        part = found.of_domain(name)
        table.add_row(
            Text(name),
            f"{len(part.units):,}",
            f"{part.tokens:,}",
            f"{part.bytes:,}",
            f"{part.loss:.4f}",
            f"{part.perplexity:,.3f}",
            number(part.bits_per_byte, part.bits_per_byte_interval, 4),
        )
    return table
