"""An ablation's runs: which are there, what each scored, and what is missing and why."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from pellucid.evaluate.record import TextEvaluation
from pellucid.report.ablation.record import FINAL, AblationRecord, Cell
from pellucid.report.run.record import FAILED, RunRecord, read_run
from pellucid.train.run_files import CONFIG


@dataclass(frozen=True, eq=False)
class ScoredRun:
    """One finished run and what its last model scored."""

    cell: Cell
    seed: int
    run: RunRecord
    text: TextEvaluation

    @property
    def bits_per_byte(self) -> float:
        return self.text.bits_per_byte


@dataclass(frozen=True)
class MissingRun:
    """A run that has no score, and why."""

    cell: Cell
    seed: int
    why: str
    log: str = ""
    """What it said when it failed."""

    @property
    def name(self) -> str:
        return f"{self.cell.name}-s{self.seed}"


def read_runs(record: AblationRecord, directory: Path) -> tuple[list[ScoredRun], list[MissingRun]]:
    """Every run of the plan, in one list or the other."""
    scored: list[ScoredRun] = []
    missing: list[MissingRun] = []
    for cell in record.cells:
        for seed in record.seeds:
            found = _read(cell, seed, record.run_directory(directory, cell, seed))
            if isinstance(found, ScoredRun):
                scored.append(found)
            else:
                missing.append(found)
    return scored, missing


def _read(cell: Cell, seed: int, path: Path) -> ScoredRun | MissingRun:
    if not (path / CONFIG).is_file() and not (path / FAILED).is_file():
        return MissingRun(cell, seed, "not begun")
    run = read_run(path)
    if run.failure:
        return MissingRun(cell, seed, "failed", run.failure)
    if not run.is_whole:
        return MissingRun(cell, seed, f"{run.state} at step {run.step:,}")
    evaluation = run.evaluations.get(Path(FINAL).stem)
    if evaluation is None or not evaluation.texts:
        return MissingRun(cell, seed, next(iter(run.faults), "trained, and not scored yet"))
    if not math.isfinite(evaluation.texts[0].bits_per_byte):
        return MissingRun(cell, seed, "its score is not a number")
    return ScoredRun(cell, seed, run, evaluation.texts[0])
