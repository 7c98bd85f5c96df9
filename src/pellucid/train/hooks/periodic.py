"""Asks for a checkpoint every so many updates, and whenever the validation loss is the best so far."""

from __future__ import annotations

from pellucid.train.facts import EvaluationFacts, Request, StepFacts
from pellucid.train.hooks.base import Hook


class PeriodicSave(Hook):
    def __init__(self, every: int) -> None:
        self.every = every

    def on_step(self, facts: StepFacts) -> Request:
        return Request.SAVE if facts.step % self.every == 0 else Request.NOTHING

    def on_evaluation(self, facts: EvaluationFacts) -> Request:
        return Request.SAVE if facts.is_best else Request.NOTHING
