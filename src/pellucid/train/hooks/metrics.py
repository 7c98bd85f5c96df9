"""metrics.jsonl: one fact a line, in the order of the run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from pellucid.runtime.files import write_atomic
from pellucid.train.facts import EndFacts, EvaluationFacts, Facts, Request, StartFacts, StepFacts
from pellucid.train.hooks.base import Hook


class MetricsFile(Hook):
    """Appends every fact to a file and pushes each line to the operating system at once."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", encoding="utf-8")

    def on_start(self, facts: StartFacts) -> None:
        self._write(facts)

    def on_step(self, facts: StepFacts) -> Request:
        self._write(facts)
        return Request.NOTHING

    def on_evaluation(self, facts: EvaluationFacts) -> Request:
        self._write(facts)
        return Request.NOTHING

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


def read_facts(path: Path) -> Iterator[dict[str, Any]]:
    """The facts of a JSON-lines file; a last line that a killed process left half-written is passed over."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                return


def forget_after(path: Path, step: int) -> None:
    """Drop what was logged after `step`: a resumed run goes through those steps again and logs them anew."""
    if path.exists():
        kept = [f for f in read_facts(path) if f["step"] <= step and f.get("event") != "end"]
        write_atomic(path, "".join(json.dumps(facts) + "\n" for facts in kept))
