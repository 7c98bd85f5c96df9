"""A walkthrough on a terminal: words, aligned columns, and pictures of block characters. Plain when it is piped."""

from __future__ import annotations

import math

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.style import Style
from rich.text import Text

from pellucid.report.walkthrough.labels import SPACE
from pellucid.report.walkthrough.values import (
    Bars,
    Heatmap,
    Picture,
    Section,
    Strip,
    Table,
    Turns,
    Walkthrough,
)

WIDEST = 96
"""Columns beyond which lines of words are hard to read."""
MOST_ROWS = 32
"""Tokens of a terminal's attention picture; a page has room for all."""
EIGHTHS = " ▏▎▍▌▋▊▉█"
SHADES = ((0.5, "█"), (0.25, "▓"), (0.1, "▒"), (0.03, "░"), (0.0, "·"))
"""What a share from here on is drawn as."""
LEGEND = "█ 50% and more  ▓ 25%  ▒ 10%  ░ 3%  · less  (blank: hidden by the mask)"
ARROWS = "→↗↑↖←↙↓↘"


def print_walkthrough(walkthrough: Walkthrough, console: Console) -> None:
    """Draw it, at most `WIDEST` columns wide."""
    width = min(console.width, WIDEST)
    _print_words(console, walkthrough.title, width, "bold")
    for number, section in enumerate(walkthrough.sections, start=1):
        _print_section(section, number, console, width)
    if walkthrough.next_steps:
        _print(console, Text("\nWhat to try next", "bold"))
        widest = max(cell_len(command) for command, _ in walkthrough.next_steps)
        for command, why in walkthrough.next_steps:
            line = f"  {set_cell_size(command, widest)}  {why}"
            _print(console, Text(line if cell_len(line) <= width else f"  {command}"))


def _print_section(section: Section, number: int, console: Console, width: int) -> None:
    title, files = f"{number}  {section.title}", "  ".join(section.files)
    gap = width - cell_len(title) - cell_len(files)
    line = Text("\n").append(title, "bold cyan")
    line.append(" " * gap if gap > 1 else "\n   ").append(files, "dim")
    _print(console, line if files else Text(f"\n{title}", "bold cyan"))
    _print_words(console, section.words, width)
    if section.formula:
        _print_words(console, f"In short: {section.formula}", width, "italic")
    for picture in section.pictures:
        for text in _drawn(picture, width - 2):
            _print(console, Text("  ").append_text(text))
    for remark in section.remarks:
        _print_words(console, remark, width)


def _print(console: Console, text: Text) -> None:
    """As it is: lines are already broken, and brackets in a token are no markup."""
    console.print(text, soft_wrap=True, highlight=False)


def _print_words(console: Console, words: str, width: int, style: str | Style = "") -> None:
    for line in Text(words, style).wrap(console, width):
        line.rstrip()
        _print(console, line)


def _drawn(picture: Picture, width: int) -> list[Text]:
    match picture:
        case Strip():
            return _strip(picture, width)
        case Table():
            return _table(picture)
        case Bars():
            return _bars(picture, width)
        case Heatmap():
            return _heatmap(picture, width)
        case Turns():
            return _turns(picture)


def _strip(strip: Strip, width: int) -> list[Text]:
    """Two lines, tokens above ids, repeated until all are shown."""
    lines, above, below = [Text(strip.caption, "dim")], "", ""
    for label, value in strip.cells:
        size = max(cell_len(label), cell_len(value)) + 1
        if above and cell_len(above) + size > width:
            lines += [Text(above.rstrip(), "bold"), Text(below.rstrip(), "dim")]
            above = below = ""
        above += set_cell_size(label, size)
        below += set_cell_size(value, size)
    return [*lines, Text(above.rstrip(), "bold"), Text(below.rstrip(), "dim")]


def _table(table: Table) -> list[Text]:
    sizes = [max(map(cell_len, column)) for column in zip(table.columns, *table.rows, strict=True)]

    def line(row: tuple[str, ...]) -> str:
        cells = [
            set_cell_size(cell, size) if index < table.num_words else " " * (size - cell_len(cell)) + cell
            for index, (cell, size) in enumerate(zip(row, sizes, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return [Text(line(table.columns), "dim"), *(Text(line(row)) for row in table.rows)]


def _bars(bars: Bars, width: int) -> list[Text]:
    """A length for each number, the longest as wide as the remarks leave room."""
    names = max(cell_len(label) for label, _, _ in bars.rows)
    remarks = max(cell_len(remark) for _, _, remark in bars.rows)
    room = width - names - remarks - (11 if bars.is_written else 2)
    most = max(4, min(32, room))
    largest = max(value for _, value, _ in bars.rows) or 1.0
    lines = [Text(bars.caption, "dim")]
    for label, value, remark in bars.rows:
        number = f" {value:8.3f} " if bars.is_written else " "
        bar = set_cell_size(_bar(value / largest * most), most)
        text = Text(set_cell_size(label, names) + number).append(bar, "cyan").append(f" {remark}", "dim")
        text.rstrip()
        lines.append(text)
    return lines


def _bar(length: float) -> str:
    if not math.isfinite(length):
        return "?"
    eighths = max(0, round(length * 8))
    return "█" * (eighths // 8) + (EIGHTHS[eighths % 8] if eighths % 8 else "")


def _heatmap(picture: Heatmap, width: int) -> list[Text]:
    """The newest queries and keys where not all fit."""
    names = min(10, max(map(cell_len, picture.rows)))
    room = width - names - 2
    columns = picture.columns[-min(room // 2, len(picture.columns)) :]
    rows = picture.rows[-min(MOST_ROWS, len(picture.rows)) :]
    size = max(2, min(5, room // len(columns), 1 + max(map(cell_len, columns))))
    lines = [Text(picture.caption, "dim")]
    if len(rows) < len(picture.rows) or len(columns) < len(picture.columns):
        shown = f"the last {len(rows)} of {len(picture.rows)} rows, {len(columns)} of {len(picture.columns)} columns"
        lines.append(Text(f"({shown}; --html draws all)", "dim"))
    header = "".join(set_cell_size(_clipped(label, size - 1), size) for label in columns)
    lines.append(Text(" " * (names + 2) + header.rstrip(), "dim"))
    for label, shares in zip(rows, picture.shares[-len(rows) :], strict=True):
        cells = "".join(_shade(share) * size for share in shares[-len(columns) :])
        name = label if cell_len(label) <= names else set_cell_size(label, names - 1) + "…"
        lines.append(
            Text(" " * (names - cell_len(name)) + name + "  ", "bold").append(cells.rstrip(), "not bold cyan")
        )
    return [*lines, Text(LEGEND, "dim")]


def _clipped(label: str, size: int) -> str:
    """A label's beginning; where only a part fits, its leading space says little."""
    return label if cell_len(label) <= size else set_cell_size(label.lstrip(SPACE) or SPACE, size)


def _shade(share: float | None) -> str:
    if share is None:
        return " "
    return next((shade for least, shade in SHADES if share >= least), "?")


def _turns(picture: Turns) -> list[Text]:
    rows = tuple(
        (
            turn.label,
            *(f"{_arrow(x)} ({x[0]:6.3f}, {x[1]:6.3f})" for x in (turn.before, turn.after)),
            f"{math.degrees(turn.angle) % 360:.1f}°",
            f"{math.hypot(*turn.after):.3f}",
        )
        for turn in picture.turns
    )
    head = ("place", "before", "after", "turned by", "length")
    return [Text(picture.caption, "dim"), *_table(Table(head, rows, num_words=3))]


def _arrow(vector: tuple[float, float]) -> str:
    """The arrow that points most nearly where the vector does: its first feature to the right, its second up."""
    angle = math.atan2(vector[1], vector[0])
    return ARROWS[round(angle / (math.pi / 4)) % 8] if math.isfinite(angle) else "?"
