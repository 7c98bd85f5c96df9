"""What a hook is."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import or_

from pellucid.train.facts import EndFacts, EvaluationFacts, Request, RollbackFacts, StartFacts, StepFacts


class Hook:
    """A side job of the loop. Override the events it needs; facts are read-only, the model is out of reach."""

    def on_start(self, facts: StartFacts) -> None: ...

    def on_step(self, facts: StepFacts) -> Request:
        del facts
        return Request.NOTHING

    def on_evaluation(self, facts: EvaluationFacts) -> Request:
        del facts
        return Request.NOTHING

    def on_rollback(self, facts: RollbackFacts) -> None: ...

    def on_end(self, facts: EndFacts) -> None: ...


def collect(requests: Iterable[Request]) -> Request:
    """All that the hooks asked for."""
    return reduce(or_, requests, Request.NOTHING)
