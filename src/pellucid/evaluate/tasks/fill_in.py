"""The likeliest of several words for a blank, by what follows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from pellucid.errors import DataError
from pellucid.evaluate.requests import Request, Scored
from pellucid.evaluate.tasks.base import Item, TaskBase, label_of
from pellucid.evaluate.tasks.templates import Record, Template


class FillInTask(TaskBase):
    """acc: the right beginning makes the same ending the likeliest ("partial evaluation").

    Source: Trinh & Le 2018, arXiv:1806.02847, sec. 3.
    """

    kind: Literal["fill_in"] = "fill_in"
    contexts: tuple[Template, ...] = Field(min_length=2)
    """The beginnings, each with its word in the blank."""
    continuation: Template
    """What stands behind the blank in all of them."""
    label: str | int
    """The field that says which is right, or the place, from 0, that always is."""
    first_label: int = 0
    """The number of the first choice, where labels are numbers."""
    separator: str = " "
    """What stands between context and continuation."""

    @property
    def templates(self) -> Sequence[str]:
        return (*self.contexts, self.continuation)

    @property
    def summaries(self) -> Mapping[str, str]:
        return {"acc": "mean"}

    def item(self, record: Record) -> Item:
        ending = self.text(self.continuation, record)
        if not ending:
            raise DataError("nothing stands behind the blank, so that nothing tells the choices apart")
        requests = tuple(
            Request(self.text(template, record), self.separator + ending) for template in self.contexts
        )
        return Item(requests, label_of(self.label, None, record, len(requests), self.first_label))

    def measure(self, item: Item, scored: Sequence[Scored]) -> Mapping[str, float]:
        return {"acc": float(np.argmax([each.log_probability for each in scored]) == item.answer)}

    def chance(self, items: Sequence[Item]) -> Mapping[str, float]:
        return {"acc": float(np.mean([1 / len(item.requests) for item in items]))}
