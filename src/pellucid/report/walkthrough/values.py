"""What a walkthrough is made of: sections of words, numbers and pictures. How they look is said elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Strip:
    """Short texts in a row, each with a word below: tokens and their ids."""

    caption: str
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """Columns of text. What is a number is aligned to the right: all columns but the first `num_words`."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_words: int = 1


@dataclass(frozen=True)
class Bars:
    """A number a row, drawn as a length, with a remark."""

    caption: str
    rows: tuple[tuple[str, float, str], ...]
    is_written: bool = True
    """Whether the number itself is written too; else the remark says it."""


@dataclass(frozen=True)
class Heatmap:
    """Shares between 0 and 1: a row a query, a column a key; None where the mask hides the key."""

    caption: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    shares: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Turn:
    """A vector of two features, before and after a rotation by an angle in radians."""

    label: str
    before: tuple[float, float]
    after: tuple[float, float]
    angle: float


@dataclass(frozen=True)
class Turns:
    caption: str
    turns: tuple[Turn, ...]


Picture = Strip | Table | Bars | Heatmap | Turns


@dataclass(frozen=True)
class Section:
    """One step of the walk."""

    title: str
    words: str
    numbers: Mapping[str, Any]
    """What was read from the pass, as JSON values."""
    pictures: tuple[Picture, ...] = ()
    remarks: tuple[str, ...] = ()
    """Sentences below the pictures."""
    files: tuple[str, ...] = ()
    """Where the code is, from the root of the repository."""
    formula: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "words": self.words,
            "remarks": list(self.remarks),
            "formula": self.formula,
            "files": list(self.files),
            "numbers": dict(self.numbers),
        }


@dataclass(frozen=True)
class Walkthrough:
    """The whole walk."""

    title: str
    text: str
    sections: tuple[Section, ...]
    next_steps: tuple[tuple[str, str], ...] = field(default=())
    """Commands to type next, and why."""

    def section(self, title: str) -> Section:
        """The section of that title. Raises KeyError when there is none."""
        for section in self.sections:
            if section.title == title:
                return section
        raise KeyError(f"no section {title!r} (sections: {', '.join(s.title for s in self.sections)})")

    def to_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "text": self.text,
            "sections": [section.to_dict() for section in self.sections],
        }
