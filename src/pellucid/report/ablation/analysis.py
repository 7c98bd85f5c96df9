"""What an ablation found: means, differences from the baseline, and the effect of each key. No torch.

Everything is in bits/byte on the validation text, less is better. Two kinds of chance are told apart: that of seeds
(other initial weights, another order of the data), by Student's t over one difference a seed, and that of the text, by
resampling its units for losses averaged over runs. Runs of one seed share the order of the data and random draws, so
that however many cells there are, each seed is one value. A p-value is of seeds; Holm's correction makes all of a table
hold together.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pellucid.evaluate.interval import Interval
from pellucid.evaluate.record import TextEvaluation, difference_or_none
from pellucid.evaluate.student import holm, paired_p_value, student_interval
from pellucid.report.ablation.record import AblationRecord, Cell
from pellucid.report.ablation.scored import MissingRun, ScoredRun, read_runs

SIGNIFICANT = 0.05
"""A corrected p-value below this is called no chance."""

Pair = tuple[ScoredRun, ScoredRun]
Verdict = Literal["better", "worse", "seeds only", "this text", "undecided", "one seed", "other text"]


@dataclass(frozen=True)
class Difference:
    """Of something against what it is compared with: the first less the second, so negative is better."""

    values: tuple[float, ...]
    """One a seed: the mean over its pairs of runs."""
    pairs: tuple[int, ...]
    """How many pairs each value is the mean of."""
    over_seeds: Interval | None
    """None for one seed."""
    over_text: Interval | None
    """None where the texts are not the same or have too few units."""
    is_one_text: bool = True
    """Whether all runs were scored on the same text, in the same units."""
    p: float | None = None
    """None for one seed, and where the texts are not the same."""
    corrected_p: float | None = None

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)

    @property
    def verdict(self) -> Verdict:
        """What may be said.

        better, worse: seeds agree, and the units of the text do; this text: seeds agree, and other units might not;
        seeds only: seeds agree, and the text is too short to say more; other text: the texts are not the same.
        """
        if not self.is_one_text:
            return "other text"
        if self.corrected_p is None:
            return "one seed"
        if not self.corrected_p < SIGNIFICANT:
            return "undecided"
        if self.over_text is None:
            return "seeds only"
        if self.over_text.low <= 0 <= self.over_text.high:
            return "this text"
        return "better" if self.mean < 0 else "worse"

    def to_dict(self) -> dict[str, Any]:
        return {
            "difference": self.mean,
            "seeds": len(self.values),
            "pairs": sum(self.pairs),
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
    by_combination: tuple[float, ...]
    """Bits/byte: the difference at each combination of the other keys' values, averaged over its seeds."""

    @property
    def reach(self) -> tuple[float, float] | None:
        """From the lowest to the highest of the combinations, which tells how keys act on each other; None for one."""
        return (min(self.by_combination), max(self.by_combination)) if len(self.by_combination) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "level": self.level,
            "reference": self.reference,
            **self.difference.to_dict(),
            "reach": list(self.reach) if self.reach else None,
        }


@dataclass(frozen=True, eq=False)
class Analysis:
    directory: Path
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
        return _is_one_text(run.text for run in self.runs)

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
            "effects": [effect.to_dict() for effect in self.effects],
            "missing": {run.name: run.why for run in self.missing},
        }


def analyse(directory: Path) -> Analysis:
    """From the files alone. Raises DataError where there is no ablation; missing runs are named in what it returns."""
    record = AblationRecord.read(directory)
    scored, missing = read_runs(record, directory)
    return Analysis(directory, record, _results(record, scored), _effects(record, scored), tuple(missing))


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
    """Each value of each key against the baseline's, by pairs that are alike in seed and all other keys."""
    found: list[tuple[str, Any, Any, list[Pair]]] = []
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
                found.append((key, level, reference, pairs))
    corrected = _corrected([_compare(pairs) for *_, pairs in found])
    return tuple(
        Effect(key, level, reference, difference, _by_combination(pairs, key))
        for (key, level, reference, pairs), difference in zip(found, corrected, strict=True)
        if difference is not None
    )


def _rest(run: ScoredRun, key: str) -> tuple[tuple[str, Any], ...]:
    return tuple((other, value) for other, value in sorted(run.cell.values.items()) if other != key)


def _by_combination(pairs: Sequence[Pair], key: str) -> tuple[float, ...]:
    return tuple(
        _mean_difference(group) for group in _grouped(pairs, [_rest(mine, key) for mine, _ in pairs])
    )


def _compare(pairs: Sequence[Pair]) -> Difference | None:
    """Pairs of one seed become one value: what they have in common is no new evidence, however many they are.

    A seed's value is the mean of the pairs that it has; where runs are missing, seeds may differ in these.
    """
    if not pairs:
        return None
    pairs = sorted(pairs, key=lambda pair: pair[0].seed)
    seeds = _grouped(pairs, [mine.seed for mine, _ in pairs])
    values = tuple(map(_mean_difference, seeds))
    is_one_text = _is_one_text(run.text for pair in pairs for run in pair)
    return Difference(
        values,
        tuple(map(len, seeds)),
        student_interval(values) if len(values) > 1 else None,
        _over_text(seeds) if is_one_text else None,
        is_one_text,
        paired_p_value(values) if len(values) > 1 and is_one_text else None,
    )


def _grouped(pairs: Sequence[Pair], by: Sequence[Hashable]) -> list[list[Pair]]:
    groups: dict[Hashable, list[Pair]] = {}
    for pair, key in zip(pairs, by, strict=True):
        groups.setdefault(key, []).append(pair)
    return list(groups.values())


def _mean_difference(pairs: Sequence[Pair]) -> float:
    return math.fsum(mine.bits_per_byte - other.bits_per_byte for mine, other in pairs) / len(pairs)


def _is_one_text(texts: Iterable[TextEvaluation]) -> bool:
    """Whether all are of the same text in the same units, so that losses compare unit by unit."""
    return len({(text.text_sha256, text.units.bytes.tobytes()) for text in texts}) <= 1


def _over_text(seeds: Sequence[Sequence[Pair]]) -> Interval | None:
    """Of losses averaged over the pairs of a seed, then over the seeds, unit by unit."""
    per_seed = [
        np.mean([mine.text.units.told - other.text.units.told for mine, other in pairs], axis=0)
        for pairs in seeds
    ]
    return difference_or_none(np.mean(per_seed, axis=0) / math.log(2), seeds[0][0][0].text.units.bytes)


def _corrected(differences: Sequence[Difference | None]) -> list[Difference | None]:
    """All p-values of one table, so that they hold together."""
    raised = iter(holm([d.p for d in differences if d is not None and d.p is not None]))
    return [
        replace(d, corrected_p=next(raised)) if d is not None and d.p is not None else d for d in differences
    ]
