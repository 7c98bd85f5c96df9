"""What every kind of task is: records in, requests out, and what their scores say."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from pellucid.config import Config, nearest
from pellucid.errors import DataError
from pellucid.evaluate.requests import Request, Scored
from pellucid.evaluate.tasks.templates import CHANGES, LABEL, TEXTS, Record, changes_of, fill, find, shortened


@dataclass(frozen=True)
class Item:
    """One question of a task."""

    requests: tuple[Request, ...]
    answer: int = 0
    """Which request is the right one."""
    lengths: tuple[int, ...] = ()
    """Characters of each choice."""
    where: str = field(default="", compare=False)
    """Where its record stands, for messages."""


class TaskBase(Config, ABC):
    """A declarative description of a task. Prompts equal those of lm-evaluation-harness without examples."""

    words: dict[str, dict[str, str]] = Field(default_factory=dict)
    """Further changes for templates: tables of what stands for what."""
    clean: tuple[tuple[str, str], ...] = ()
    """Regular expressions and what takes the place of what they match, in this order; contexts and choices are
    stripped before."""

    @field_validator("clean")
    @classmethod
    def _check_expressions(cls, clean: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        for expression, instead in clean:
            try:
                re.compile(expression)
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"{expression!r} is no regular expression: {error}") from None
            try:
                re.sub(expression, instead, "")  # reads what takes the place, even where nothing matches
            except (re.error, IndexError) as error:  # an IndexError: no group of this name
                raise ValueError(
                    f"{instead!r} cannot take the place of what {expression!r} matches: {error}; a backslash that is "
                    "text is written twice"
                ) from None
        return clean

    @model_validator(mode="after")
    def _check_changes(self) -> Self:
        known = [*CHANGES, *self.words]
        for template in self.templates:
            for change in changes_of(template):
                if change not in known:
                    raise ValueError(
                        f"{template!r}: there is no change {change!r}{nearest(change, known)} "
                        f"(changes: {', '.join(known)}; tables of words add others)"
                    )
        return self

    @property
    @abstractmethod
    def templates(self) -> Sequence[str]: ...

    @property
    @abstractmethod
    def summaries(self) -> Mapping[str, str]:
        """The metrics by name, and how the items of each become one number; see `TaskEvaluation`."""

    @abstractmethod
    def item(self, record: Record) -> Item:
        """The requests of a record. Raises DataError for one that does not fit the description."""

    @abstractmethod
    def measure(self, item: Item, scored: Sequence[Scored]) -> Mapping[str, float]:
        """What each metric has of an item whose requests were scored so."""

    @abstractmethod
    def chance(self, items: Sequence[Item]) -> Mapping[str, float]:
        """What guessing would give, for the metrics where it gives anything."""

    def text(self, template: str, record: Record) -> str:
        """A template filled in and cleaned."""
        text = fill(template, record, self.words)
        if self.clean:
            text = text.strip()
        for expression, instead in self.clean:
            text = re.sub(expression, instead, text)
        return text


def place_of(answer: Any, names: Sequence[Any], count: int, first: int) -> int:
    """Which of `count` choices an answer means: by its name, its letter or its number, counted from `first`."""
    text = str(answer).strip()
    shown = [str(name).strip() for name in names]
    if isinstance(answer, bool):
        place = int(answer)
    elif text in shown:
        place = shown.index(text)
    elif re.fullmatch(r"-?\d{1,9}", text):  # no task has more choices, and `int` refuses thousands of digits
        place = int(text) - first
    elif re.fullmatch("[A-Z]", text):
        place = ord(text) - ord("A")
    else:
        place = -1
    if not 0 <= place < count:
        wanted = ", ".join(shown) if shown else f"{first} to {first + count - 1}"
        raise DataError(f"the label {shortened(answer)} means none of the {count} choices ({wanted})")
    return place


def label_of(label: str | int, names: str | None, record: Record, count: int, first: int) -> int:
    """The place of the right choice as a description says where to find it: always the same, or in a field."""
    if isinstance(label, int):
        return place_of(label, (), count, 0)
    known = [] if names is None else find(names, record, TEXTS)
    return place_of(find(label, record, LABEL), known, count, first)
