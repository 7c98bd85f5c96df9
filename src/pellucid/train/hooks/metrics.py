"""metrics.jsonl: one fact a line, in the order of the run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from pellucid.runtime.files import write_atomic
from pellucid.train.facts import (
    EndFacts,
    EvaluationFacts,
    Facts,
    Request,
    RollbackFacts,
    StartFacts,
    StepFacts,
)
from pellucid.train.hooks.base import Hook
from pellucid.train.run_files import read_facts


class MetricsFile(Hook):
    """Appends every fact to a file and pushes each line to the operating system at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO = path.open("a", encoding="utf-8")

    def on_start(self, facts: StartFacts) -> None:
        self._write(facts)

    def on_step(self, facts: StepFacts) -> Request:
        self._write(facts)
        return Request.NOTHING

    def on_evaluation(self, facts: EvaluationFacts) -> Request:
        self._write(facts)
        return Request.NOTHING

    def on_rollback(self, facts: RollbackFacts) -> None:
        self.close()
        forget_after(self.path, facts.step, keep_rollbacks=True)
        self._file = self.path.open("a", encoding="utf-8")
        self._write(facts)

    def on_end(self, facts: EndFacts) -> None:
        self._write(facts)
        self.sync()

    def close(self) -> None:
        """Close the file: for the owner to call, however the run ended."""
        self._file.close()

    def sync(self) -> None:
        """Make every line written so far survive a power cut; called before a checkpoint that follows them."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def _write(self, facts: Facts) -> None:
        self._file.write(json.dumps(facts.to_dict()) + "\n")
        self._file.flush()


def forget_after(
    path: Path, step: int, *, keep_rollbacks: bool = False, evaluation_due: bool = False
) -> None:
    """Drop what was logged after `step`: a resumed run goes through those steps again and logs them anew.

    So it does with rollbacks to `step`, which its checkpoint does not know of; the run that makes them keeps them.
    And so, where the checkpoint was saved before the evaluation of its step was done, with that evaluation and its
    sample (a line that names no event).
    """

    def stays(facts: Mapping[str, Any]) -> bool:
        if facts.get("event") == "rollback":
            return facts["step"] < step or (facts["step"] == step and keep_rollbacks)
        if evaluation_due and facts["step"] == step and facts.get("event") in ("evaluation", None):
            return False
        return facts["step"] <= step and facts.get("event") != "end"

    if path.exists():
        kept = [facts for facts in read_facts(path) if stays(facts)]
        write_atomic(path, "".join(json.dumps(facts) + "\n" for facts in kept))
