"""The likeliest of several continuations of one context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from pellucid.errors import DataError
from pellucid.evaluate.requests import Request, Scored
from pellucid.evaluate.tasks.base import Item, TaskBase, label_of
from pellucid.evaluate.tasks.templates import TEXTS, Record, Template, find


class MultipleChoiceTask(TaskBase):
    """acc: the right choice is the likeliest. acc_norm: it is by log p divided by the characters of the choice.

    Characters, not tokens, so that it does not depend on the tokenizer. Of equal ones the first is taken.
    Source: Brown et al. 2020, arXiv:2005.14165, sec. 2.4; lm-evaluation-harness for the characters.
    """

    kind: Literal["multiple_choice"] = "multiple_choice"
    context: Template = ""
    """What stands before the choices; empty: they are whole texts."""
    choices: str | tuple[Template, ...]
    """The field that holds a list of them, or a template each."""
    label: str | int
    """The field that says which is right, or the place, from 0, that always is."""
    label_names: str | None = None
    """The field that holds the names by which the label calls the choices."""
    first_label: int = 0
    """The number of the first choice, where labels are numbers."""
    separator: str = " "
    """What stands between context and choice."""
    metrics: tuple[Literal["acc", "acc_norm"], ...] = ("acc", "acc_norm")

    @property
    def templates(self) -> Sequence[str]:
        return (self.context, *(() if isinstance(self.choices, str) else self.choices))

    @property
    def summaries(self) -> Mapping[str, str]:
        return dict.fromkeys(self.metrics, "mean")

    def item(self, record: Record) -> Item:
        context, choices = self.text(self.context, record), self._choices(record)
        if len(choices) < 2:
            raise DataError(f"there are {len(choices)} choices, and a choice needs at least 2")
        for number, choice in enumerate(choices):
            if not choice:
                raise DataError(f"choice {number} is empty")
        return Item(
            tuple(Request(context, self.separator + choice) for choice in choices),
            label_of(self.label, self.label_names, record, len(choices), self.first_label),
            tuple(map(len, choices)),
        )

    def _choices(self, record: Record) -> list[str]:
        if isinstance(self.choices, str):
            listed = find(self.choices, record, TEXTS)
            return [self.text("{choice}", {"choice": choice}) for choice in listed]
        return [self.text(template, record) for template in self.choices]

    def measure(self, item: Item, scored: Sequence[Scored]) -> Mapping[str, float]:
        logs = np.array([each.log_probability for each in scored])
        by = {"acc": logs, "acc_norm": logs / np.array(item.lengths)}
        return {name: float(by[name].argmax() == item.answer) for name in self.metrics}

    def chance(self, items: Sequence[Item]) -> Mapping[str, float]:
        share = float(np.mean([1 / len(item.requests) for item in items]))
        return dict.fromkeys(self.metrics, share)
