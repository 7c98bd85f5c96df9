"""samples.jsonl: what the model writes at each evaluation, from one prompt and one seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from pellucid.train.facts import EvaluationFacts, Request, RollbackFacts
from pellucid.train.hooks.base import Hook
from pellucid.train.hooks.metrics import forget_after


class Samples(Hook):
    """Writes a sample a line and hands it on to be shown."""

    def __init__(
        self, path: Path, prompt: str, write: Callable[[], str | None], show: Callable[[str], None]
    ) -> None:
        self.path, self.prompt, self.write, self.show = path, prompt, write, show

    def on_evaluation(self, facts: EvaluationFacts) -> Request:
        text = self.write()
        if text is None:  # a signal has come, and the run is about to stop
            return Request.NOTHING
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": facts.step, "prompt": self.prompt, "text": text}) + "\n")
        self.show(text)
        return Request.NOTHING

    def on_rollback(self, facts: RollbackFacts) -> None:
        forget_after(self.path, facts.step)
