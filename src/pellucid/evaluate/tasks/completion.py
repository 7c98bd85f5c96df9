"""The one right continuation of a context, such as the last word of a passage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pellucid.errors import DataError
from pellucid.evaluate.requests import Request, Scored
from pellucid.evaluate.tasks.base import Item, TaskBase
from pellucid.evaluate.tasks.templates import Record, Template


class CompletionTask(TaskBase):
    """acc: greedy decoding writes it. perplexity: exp of the mean -log p of the whole continuation, a word of several
    tokens counting as one.

    Source: Paperno et al. 2016, arXiv:1606.06031; Radford et al. 2019, sec. 3.3.
    """

    kind: Literal["completion"] = "completion"
    context: Template
    """What is given."""
    continuation: Template
    """What is asked for, the space before it included."""

    @property
    def templates(self) -> Sequence[str]:
        return (self.context, self.continuation)

    @property
    def summaries(self) -> Mapping[str, str]:
        return {"acc": "mean", "perplexity": "perplexity"}

    def item(self, record: Record) -> Item:
        continuation = self.text(self.continuation, record)
        if not continuation.strip():
            raise DataError("there is no text to complete with")
        return Item((Request(self.text(self.context, record), continuation),))

    def measure(self, item: Item, scored: Sequence[Scored]) -> Mapping[str, float]:
        (found,) = scored
        return {"acc": float(found.is_greedy), "perplexity": -found.log_probability}

    def chance(self, items: Sequence[Item]) -> Mapping[str, float]:
        return {}
