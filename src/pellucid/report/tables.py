"""Tables of a report as values, written as HTML and as Markdown."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pellucid.report.page import escaped


@dataclass(frozen=True)
class Cell:
    """text; below: what stands under it, smaller."""

    text: str
    below: str = ""
    is_number: bool = False
    is_best: bool = False
    colour: int | None = None
    """A number of the palette: the cell names what is drawn in that colour."""


@dataclass(frozen=True)
class Table:
    """The first column names its row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


STYLE = """
.wide { overflow-x: auto; margin: .8rem 0 1rem; }
table { border-collapse: collapse; }
caption { text-align: left; font: 600 .95rem/1.5 system-ui, sans-serif; padding-bottom: .3rem; }
th, td { padding: .3rem 1.1rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: normal; }
thead th { color: var(--soft); vertical-align: bottom; }
tbody th { white-space: nowrap; position: sticky; left: 0; background: var(--page); }
td small, th small { display: block; color: var(--soft); }
.number small { white-space: nowrap; }
.number { text-align: right; white-space: nowrap; }
.best { font-weight: 700; }
.swatch { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .5em; }
"""


def to_html(table: Table) -> str:
    """The table in a box that scrolls sideways where it is too wide for its page."""
    numeric = [
        any(row[at].is_number for row in table.rows if at < len(row)) for at in range(len(table.columns))
    ]
    head = "".join(
        f'<th scope="col"{_class("number" if is_number else "")}>{escaped(name)}</th>'
        for name, is_number in zip(table.columns, numeric, strict=True)
    )
    body = "\n".join(f"<tr>{_row(row)}</tr>" for row in table.rows)
    caption = f"<caption>{escaped(table.title)}</caption>" if table.title else ""
    note = f'<p class="remark">{escaped(table.note)}</p>' if table.note else ""
    label = escaped(table.title or table.columns[0])
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{label}">'
        f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>{note}"
    )


def _row(row: tuple[Cell, ...]) -> str:
    return "".join(_cell(cell, 'th scope="row"' if at == 0 else "td") for at, cell in enumerate(row))


def _cell(cell: Cell, tag: str) -> str:
    words = " ".join(word for word, is_so in (("number", cell.is_number), ("best", cell.is_best)) if is_so)
    below = f"<small>{escaped(cell.below)}</small>" if cell.below else ""
    swatch = (
        f'<span class="swatch" style="background:var(--curve-{cell.colour % 8})"></span>'
        if cell.colour is not None
        else ""
    )
    return f"<{tag}{_class(words)}>{swatch}{escaped(cell.text)}{below}</{tag.partition(' ')[0]}>"


def _class(words: str) -> str:
    return f' class="{words}"' if words else ""


def to_markdown(table: Table) -> str:
    """A table as GitHub draws it, its title above."""
    rows = [[_plain(cell) for cell in row] for row in table.rows]
    aligned = [
        "---:" if any(row[at].is_number for row in table.rows) else "---" for at in range(len(table.columns))
    ]
    lines = [[markdown_escaped(name) for name in table.columns], aligned, *rows]
    drawn = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    note = f"\n\n{markdown_escaped(table.note)}" if table.note else ""
    return f"**{markdown_escaped(table.title)}**\n\n{drawn}{note}\n" if table.title else f"{drawn}{note}\n"


def _plain(cell: Cell) -> str:
    text = markdown_escaped(cell.text) + (f" ({markdown_escaped(cell.below)})" if cell.below else "")
    return f"**{text}**" if cell.is_best else text


def markdown_escaped(text: str) -> str:
    """Any text as one line of Markdown that says the same."""
    return re.sub(r"([\\`*_\[\]|<>#~])", r"\\\1", " ".join(text.split()))
