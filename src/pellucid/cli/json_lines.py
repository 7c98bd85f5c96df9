"""The facts of a run as JSON lines on standard output."""

from __future__ import annotations

from pellucid.cli.options import print_json
from pellucid.train.facts import EndFacts, EvaluationFacts, Request, RollbackFacts, StartFacts, StepFacts
from pellucid.train.hooks import Hook


class JsonLines(Hook):
    def on_start(self, facts: StartFacts) -> None:
        print_json(facts.to_dict())

    def on_step(self, facts: StepFacts) -> Request:
        print_json(facts.to_dict())
        return Request.NOTHING

    def on_evaluation(self, facts: EvaluationFacts) -> Request:
        print_json(facts.to_dict())
        return Request.NOTHING

    def on_rollback(self, facts: RollbackFacts) -> None:
        print_json(facts.to_dict())

    def on_end(self, facts: EndFacts) -> None:
        print_json(facts.to_dict())
