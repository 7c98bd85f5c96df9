"""The files of a run directory, and what can be read from them without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

CONFIG, METRICS, SAMPLES, ENVIRONMENT = "config.toml", "metrics.jsonl", "samples.jsonl", "environment.json"
PASSPORT = "data.json"
"""What the run's data was made from, and how."""
EVALUATIONS = "evaluations"
"""A folder: what was measured of its checkpoints, one file an evaluation."""
LOCK = ".lock"


def is_run(path: Path) -> bool:
    return (path / CONFIG).is_file() and (path / METRICS).is_file()


def is_complete(run: Path) -> bool:
    """Whether training came to its end, by its updates or by the clock."""
    facts = list(read_facts(run / METRICS))
    return bool(facts) and facts[-1]["event"] == "end" and facts[-1]["reason"] != "interrupted"


def is_held(run: Path) -> bool:
    """Whether a process trains the run: it holds its lock. A killed one leaves the file, which nobody holds."""
    lock = run / LOCK
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a disk that cannot be written: nobody trains there
        return False


def read_facts(path: Path) -> Iterator[dict[str, Any]]:
    """The facts of a JSON-lines file; a last line that a killed process left half-written is passed over."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                return
