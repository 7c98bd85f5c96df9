"""What an ablation found: means, differences from the baseline, and the effect of each key. No torch.

Everything is in bits/byte on the validation text, less is better. Two kinds of chance are told apart: that of seeds
(other initial weights, another order of the data), by Student's t over paired runs, and that of the text, by resampling
its units for losses averaged over runs. A p-value is of seeds; Holm's correction makes all of a table hold together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pellucid.evaluate.interval import Interval
from pellucid.evaluate.record import interval_or_none
from pellucid.evaluate.student import holm, paired_p_value, student_interval
from pellucid.report.ablation.record import AblationRecord, Cell
from pellucid.report.ablation.scored import MissingRun, ScoredRun, read_runs

SIGNIFICANT = 0.05
"""A corrected p-value below this is called no chance."""

Pair = tuple[ScoredRun, ScoredRun]
Verdict = Literal["better", "worse", "this text", "undecided", "one pair"]


@dataclass(frozen=True)
class Difference:
    """Of something against what it is compared with: the first less the second, so negative is better."""

    values: tuple[float, ...]
    """One a pair of runs with the same seed."""
    over_seeds: Interval | None
    """None for one pair."""
    over_text: Interval | None
    """None where the texts are not the same or have too few units."""
    p: float | None = None
    corrected_p: float | None = None

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)

    @property
    def verdict(self) -> Verdict:
        """What may be said.

        better, worse: seeds agree, and the units of the text do; this text: seeds agree, and other units might not.
        """
        if self.corrected_p is None:
            return "one pair"
        if self.corrected_p >= SIGNIFICANT:
            return "undecided"
        if self.over_text is not None and self.over_text.low <= 0 <= self.over_text.high:
            return "this text"
        return "better" if self.mean < 0 else "worse"

    def to_dict(self) -> dict[str, Any]:
        return {
            "difference": self.mean,
            "pairs": len(self.values),
            "over_seeds": self.over_seeds.to_dict() if self.over_seeds else None,
            "over_text": self.over_text.to_dict() if self.over_text else None,
            "p": self.p,
            "corrected_p": self.corrected_p,
            "verdict": self.verdict,
        }


@dataclass(frozen=True, eq=False)
class CellResult:
    """A cell's finished runs. difference: from the baseline; None for itself and where no pair is there."""

    number: int
    cell: Cell
    runs: tuple[ScoredRun, ...]
    difference: Difference | None = None

    @property
    def mean(self) -> float:
        """Bits/byte; not a number without a run."""
        return math.fsum(run.bits_per_byte for run in self.runs) / len(self.runs) if self.runs else math.nan

    @cached_property
    def over_seeds(self) -> Interval | None:
        return student_interval([run.bits_per_byte for run in self.runs]) if len(self.runs) > 1 else None

    def average(self, of: Sequence[float]) -> float:
        """Of what is known of its runs."""
        known = [value for value in of if math.isfinite(value)]
        return math.fsum(known) / len(known) if known else math.nan


@dataclass(frozen=True)
class Effect:
    """What one value of a key does against the baseline's value, averaged over all else that varies."""

    key: str
    level: Any
    reference: Any
    difference: Difference


@dataclass(frozen=True, eq=False)
class Analysis:
    record: AblationRecord
    results: tuple[CellResult, ...]
    effects: tuple[Effect, ...]
    missing: tuple[MissingRun, ...]

    @property
    def baseline(self) -> CellResult:
        return self.results[self.record.baseline]

    @property
    def ranked(self) -> list[CellResult]:
        """The cells that have runs, the best first."""
        return sorted((result for result in self.results if result.runs), key=lambda result: result.mean)

    @cached_property
    def runs(self) -> list[ScoredRun]:
        return [run for result in self.results for run in result.runs]

    @property
    def units(self) -> str:
        """What the text was resampled by; empty where nothing was scored."""
        return f"{len(self.runs[0].text.units):,} times a {self.runs[0].text.unit}" if self.runs else ""

    @property
    def is_one_text(self) -> bool:
        return len({run.text.text_sha256 for run in self.runs}) <= 1

    def to_dict(self) -> dict[str, Any]:
        return {
            "baseline": self.baseline.cell.name,
            "cells": [
                {
                    "name": result.cell.name,
                    "bits_per_byte": result.mean if result.runs else None,
                    "over_seeds": result.over_seeds.to_dict() if result.over_seeds else None,
                    "runs": len(result.runs),
                    "against_baseline": result.difference.to_dict() if result.difference else None,
                }
                for result in self.results
            ],
            "effects": [
                {"key": e.key, "level": e.level, "reference": e.reference, **e.difference.to_dict()}
                for e in self.effects
            ],
            "missing": {run.name: run.why for run in self.missing},
        }


def analyse(directory: Path) -> Analysis:
    """From the files alone. Raises DataError where there is no ablation; missing runs are named in what it returns."""
    record = AblationRecord.read(directory)
    scored, missing = read_runs(record, directory)
    return Analysis(record, _results(record, scored), _effects(record, scored), tuple(missing))


def _results(record: AblationRecord, scored: Sequence[ScoredRun]) -> tuple[CellResult, ...]:
    by_cell = [[run for run in scored if run.cell is cell] for cell in record.cells]
    base = {run.seed: run for run in by_cell[record.baseline]}
    differences = [
        None if number == record.baseline else _compare([(r, base[r.seed]) for r in runs if r.seed in base])
        for number, runs in enumerate(by_cell)
    ]
    return tuple(
        CellResult(number, cell, tuple(runs), difference)
        for number, (cell, runs, difference) in enumerate(
            zip(record.cells, by_cell, _corrected(differences), strict=True)
        )
    )


def _effects(record: AblationRecord, scored: Sequence[ScoredRun]) -> tuple[Effect, ...]:
    """Each value of each key against the baseline's, over pairs that are alike in seed and all other keys."""
    found: list[tuple[str, Any, Any, Difference | None]] = []
    for key, levels in record.vary.items():
        reference = record.cells[record.baseline].values[key]
        by_rest = {(_rest(run, key), run.seed, run.cell.values[key]): run for run in scored}
        for level in levels:
            if level != reference:
                pairs = [
                    (run, other)
                    for (rest, seed, value), run in by_rest.items()
                    if value == level and (other := by_rest.get((rest, seed, reference))) is not None
                ]
                found.append((key, level, reference, _compare(pairs)))
    corrected = _corrected([difference for *_, difference in found])
    return tuple(
        Effect(key, level, reference, difference)
        for (key, level, reference, _), difference in zip(found, corrected, strict=True)
        if difference is not None
    )


def _rest(run: ScoredRun, key: str) -> tuple[tuple[str, Any], ...]:
    return tuple((other, value) for other, value in sorted(run.cell.values.items()) if other != key)


def _compare(pairs: Sequence[Pair]) -> Difference | None:
    if not pairs:
        return None
    values = tuple(mine.bits_per_byte - other.bits_per_byte for mine, other in pairs)
    if len(values) < 2:
        return Difference(values, None, _over_text(pairs))
    return Difference(values, student_interval(values), _over_text(pairs), paired_p_value(values))


def _over_text(pairs: Sequence[Pair]) -> Interval | None:
    """Of losses averaged over the pairs, unit by unit."""
    first = pairs[0][0].text
    texts = [run.text for pair in pairs for run in pair]
    if any(
        text.text_sha256 != first.text_sha256 or not np.array_equal(text.units.bytes, first.units.bytes)
        for text in texts
    ):
        return None
    per_pair = [(mine.text.units.told - other.text.units.told) / math.log(2) for mine, other in pairs]
    return interval_or_none(np.mean(per_pair, axis=0), first.units.bytes)


def _corrected(differences: Sequence[Difference | None]) -> list[Difference | None]:
    """All p-values of one table, so that they hold together."""
    raised = iter(holm([d.p for d in differences if d is not None and d.p is not None]))
    return [
        replace(d, corrected_p=next(raised)) if d is not None and d.p is not None else d for d in differences
    ]
