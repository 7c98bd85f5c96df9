"""How tokenizers cut a text: in colour, and side by side in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pellucid.report.walkthrough.labels import SPACE, token_labels
from pellucid.tokenizers import Tokenizer

MOST_SHOWN = 1200
"""Characters of a text that are drawn; the numbers are of all of it."""
BACKGROUNDS = ("black on #b5d3f5", "black on #f7d8a8", "black on #bfe5bf", "black on #f2bdc4")
BORDER = "│"
"""Between two tokens where there are no colours."""


@dataclass(frozen=True)
class Cut:
    """A text as one tokenizer cuts it."""

    name: str
    vocab_size: int
    tokens: int
    characters: int
    bytes: int
    is_round_trip: bool
    """Whether decoding gives the text back."""
    ids: tuple[int, ...]
    """Of the part that is drawn: the text's first `MOST_SHOWN` characters."""
    labels: tuple[str, ...]
    """Each id's text, with white space and broken characters visible."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "tokenizer": self.name,
            "tokens": self.tokens,
            "bytes_per_token": self.bytes / self.tokens if self.tokens else None,
            "characters_per_token": self.characters / self.tokens if self.tokens else None,
            "vocab_size": self.vocab_size,
            "round_trip": self.is_round_trip,
        }


def cut(name: str, tokenizer: Tokenizer, text: str) -> Cut:
    """Cut a text. Raises TokenizerError for what the tokenizer cannot encode."""
    ids = tokenizer.encode(text)
    shown = ids if len(text) <= MOST_SHOWN else tokenizer.encode(text[:MOST_SHOWN])
    return Cut(
        name=name,
        vocab_size=tokenizer.vocab_size,
        tokens=len(ids),
        characters=len(text),
        bytes=len(text.encode()),
        is_round_trip=tokenizer.decode(ids) == text,
        ids=tuple(shown.tolist()),
        labels=token_labels(tokenizer, shown.tolist()),
    )


def print_cuts(cuts: list[Cut], console: Console, *, with_ids: bool = False) -> None:
    """Draw the text once a tokenizer, then the numbers of all in one table."""
    for one in cuts:
        console.print(Text(one.name, "bold cyan"), f"{one.tokens:,} tokens")
        console.print(_drawn(one, console))
        if with_ids:
            console.print(Text(" ".join(map(str, one.ids)), "dim"))
        console.print()
    if cuts and cuts[0].characters > MOST_SHOWN:
        console.print(f"Drawn: the first {MOST_SHOWN:,} of {cuts[0].characters:,} characters.", style="dim")
    console.print(f"{SPACE} is a space; \\xe6 is a byte of a character that was cut.", style="dim")
    console.print(_table(cuts))


def _drawn(one: Cut, console: Console) -> Text:
    """Lines are broken between tokens, and after those that end one; where there are no colours, with borders."""
    is_plain = console.color_system is None
    drawn, column = Text(no_wrap=True, overflow="ignore"), 0
    for index, label in enumerate(one.labels):
        word = label + (BORDER if is_plain else "")
        ends_line = index > 0 and one.labels[index - 1].endswith("\\n")
        if ends_line or (column and column + cell_len(word) > console.width):
            drawn.append("\n")
            column = 0
        drawn.append(word, "" if is_plain else BACKGROUNDS[index % len(BACKGROUNDS)])
        column += cell_len(word)
    return drawn


def _table(cuts: list[Cut]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tokenizer", overflow="fold")
    for name in ("tokens", "bytes a token", "characters a token", "vocabulary", "round trip"):
        table.add_column(name, justify="right")
    for one in cuts:
        tokens = max(one.tokens, 1)
        table.add_row(
            Text(one.name),
            f"{one.tokens:,}",
            f"{one.bytes / tokens:.2f}",
            f"{one.characters / tokens:.2f}",
            f"{one.vocab_size:,}",
            Text("exact", "green") if one.is_round_trip else Text("changed", "bold red"),
        )
    return table
