"""A measurement in a process of its own: a peak of memory belongs to a process, and nothing is warm from before."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from pellucid.errors import TrainingError
from pellucid.experiments.bench.training import TrainingSpeed


def measure_apart(arguments: Sequence[str], row: str, *, steps: int) -> TrainingSpeed:
    """`pellucid bench train ARGUMENTS` for one row, in a fresh process. Raises TrainingError with what it said."""
    command = ["bench", "train", *arguments, "--only", row, "--steps", str(steps), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "pellucid", *command], capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise TrainingError(
            f"pellucid {' '.join(command)} ended with status {done.returncode}:\n{done.stderr}"
        )
    return TrainingSpeed(**json.loads(done.stdout)["rows"][0])
