"""Which runs a report is about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pellucid.errors import DataError
from pellucid.report.run.record import RunRecord, read_run
from pellucid.train.run_files import METRICS, is_run

RUNS = Path("runs")


def find_runs(paths: Sequence[Path], runs: Path = RUNS) -> list[Path]:
    """The paths, each once; the newest run below `runs` where there are none. Raises DataError."""
    if paths:
        return list(dict.fromkeys(paths))
    found = [path for path in runs.glob("*") if is_run(path)]
    if not found:
        raise DataError(f"{runs}: no run is there yet; train one first: pellucid train quick")
    return [max(found, key=lambda path: (path / METRICS).stat().st_mtime)]


def read_runs(paths: Sequence[Path]) -> list[RunRecord]:
    """The runs, those of one name told apart by their paths. Raises DataError."""
    runs = [read_run(path) for path in paths]
    names = Counter(run.name for run in runs)
    return [replace(run, label=str(run.path)) if names[run.name] > 1 else run for run in runs]
