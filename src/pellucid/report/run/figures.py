"""The numbers at the top of a report: what a run is and how far it came."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pellucid.report.charts.scales import number
from pellucid.report.run.record import RunRecord, as_number


@dataclass(frozen=True)
class Figure:
    """One number of a run. is_best_low: whether less is better; None: neither is."""

    key: str
    """For programs."""
    title: str
    values: tuple[float, ...]
    """One a run; not a number where it is not known."""
    texts: tuple[str, ...]
    is_best_low: bool | None = None

    @property
    def best(self) -> int | None:
        """The run whose value is best; None where there is nothing to choose."""
        known = [(v, at) for at, v in enumerate(self.values) if math.isfinite(v)]
        if self.is_best_low is None or len(known) < 2:
            return None
        return min(known)[1] if self.is_best_low else max(known)[1]


def figures(runs: Sequence[RunRecord]) -> list[Figure]:
    """Final numbers, those of the last validation first.

    What no run knows is left out, and so is the lowest loss where it is everywhere the last.
    """
    last, best = [run.validation for run in runs], [run.best for run in runs]
    loss = "validation loss, nats/token"
    found = [
        _figure("val_loss", loss, _column(last, "val_loss"), "{:.4f}", True),
        _figure("bits_per_byte", "bits/byte", _column(last, "bits_per_byte"), "{:.4f}", True),
        _figure("perplexity", "perplexity", _column(last, "perplexity"), "{:,.2f}", True),
        _figure("best_val_loss", "lowest validation loss", _column(best, "val_loss"), "{:.4f}", True),
        _figure("best_step", "at step", _column(best, "step"), "{:,.0f}"),
        _figure("steps", "steps", [float(run.step) for run in runs], "{:,.0f}"),
        _figure("tokens", "tokens", [run.tokens for run in runs], "{:,.0f}"),
        _figure("seconds", "time", [run.seconds for run in runs], duration),
        _figure("parameters", "parameters", [float(run.parameters or math.nan) for run in runs], "{:,.0f}"),
        _figure("flops", "training FLOPs", [_flops(run) for run in runs], "{:.3g}"),
        _figure(
            "tokens_per_second", "tokens a second", [r.tokens_per_second for r in runs], "{:,.0f}", False
        ),
        _figure("peak_memory_bytes", "peak memory", [run.peak_memory_bytes for run in runs], memory, True),
    ]
    if last == best:
        found = [figure for figure in found if not figure.key.startswith("best_")]
    return [figure for figure in found if any(math.isfinite(value) for value in figure.values)]


def _flops(run: RunRecord) -> float:
    return run.flops_per_token * run.tokens or math.nan


def _column(facts: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [as_number(fact.get(key)) for fact in facts]


def _figure(
    key: str,
    title: str,
    values: Sequence[float],
    form: str | Callable[[float], str],
    is_best_low: bool | None = None,
) -> Figure:
    write = form.format if isinstance(form, str) else form
    texts = tuple("–" if math.isnan(value) else write(value) for value in values)
    return Figure(key, title, tuple(values), texts, is_best_low)


def duration(seconds: float) -> str:
    """130 → 2 min 10 s."""
    if not math.isfinite(seconds):
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{number(seconds)} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def memory(size: float) -> str:
    if not math.isfinite(size) or size <= 0:
        return "–"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
