"""Which runs a report is about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pellucid.errors import DataError
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
