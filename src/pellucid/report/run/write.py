"""The report of runs as files, and its numbers as plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pellucid.report.charts.pictures import write_pictures
from pellucid.report.charts.values import Chart
from pellucid.report.run.curves import loss_charts, side_charts
from pellucid.report.run.figures import figures
from pellucid.report.run.page import to_html
from pellucid.report.run.record import RunRecord
from pellucid.runtime.files import write_atomic


def write_report(runs: Sequence[RunRecord], out: Path, *, pictures: Path | None = None) -> list[Path]:
    """Write the page, and with `pictures` every chart into that folder as NAME.svg and NAME.png; returns the files.

    Raises MissingLibraryError for pictures without matplotlib, before anything is written, and StorageError.
    """
    drawn = write_pictures(charts(runs), pictures) if pictures is not None else []
    write_atomic(out, to_html(runs))
    return [out, *drawn]


def charts(runs: Sequence[RunRecord]) -> list[Chart]:
    """Every chart of the page."""
    losses = [chart for found in loss_charts(runs).values() for chart in found]
    return [chart for chart in [*losses, *side_charts(runs)] if not chart.is_empty]


def to_dict(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """The numbers at the top of the page, run by run, as JSON values."""
    found = figures(runs)
    return [
        {
            "run": str(run.path),
            "state": run.state,
            **{f.key: f.values[at] if math.isfinite(f.values[at]) else None for f in found},
            "evaluations": sorted(run.evaluations),
        }
        for at, run in enumerate(runs)
    ]
