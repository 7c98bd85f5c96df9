"""How long an ablation will take here, from a few updates of its first cell."""

from __future__ import annotations

import time
from collections.abc import Collection

from pellucid.experiments.ablation.vary import PRESET
from pellucid.experiments.bench.apart import measure_apart
from pellucid.presets import MODELS, RUNS
from pellucid.report.ablation.record import AblationRecord, Cell

_STEPS = 3


def estimate_seconds(
    record: AblationRecord, waiting: Collection[tuple[Cell, int]], *, device: str | None = None
) -> float:
    """Seconds of these runs one after another, without their scoring.

    Cells that end by the clock take what they are given; of the others the first is timed in a process of its own,
    and a FLOP is taken to cost as much in each.
    """
    if not waiting or record.match == "time":
        return sum(cell.max_seconds or 0.0 for cell, _ in waiting)
    first = record.cells[0]
    preset = str(first.values.get(PRESET, record.preset))
    start = [preset] if preset in RUNS | MODELS else ["--config", preset]
    began = time.monotonic()
    words = [*start, *first.overrides, *(["--device", device] if device else [])]
    speed = measure_apart(words, "training", steps=_STEPS)
    measured_s = _STEPS * speed.ms_per_step / 1e3
    start_s = max(0.0, time.monotonic() - began - measured_s)
    flops_per_s = speed.tokens_per_s * speed.flops_per_token
    return sum(start_s + (cell.flops or 0) / flops_per_s for cell, _ in waiting)
