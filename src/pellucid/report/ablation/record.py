"""What an ablation is: its cells, their matched budgets, and where its runs lie. Read and written without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pellucid.errors import DataError
from pellucid.runtime.files import write_atomic

ABLATION, RUNS, FAILED = "ablation.json", "runs", "failed.txt"
FORMAT_VERSION = 1
Match = Literal["steps", "flops", "params", "time"]


@dataclass(frozen=True)
class Cell:
    """One combination of the varied values, and the budget that it gets."""

    name: str
    values: Mapping[str, Any]
    """By varied key, as written on the command line."""
    overrides: tuple[str, ...]
    """What makes the run of this cell from the preset: the varied values, then what matching changed."""
    parameters: int
    flops: int | None
    """Of one run's training; None where the clock ends it."""
    tokens: int | None
    steps: int | None
    max_seconds: float | None


@dataclass(frozen=True)
class AblationRecord:
    """The plan of an ablation; its results are in its runs' own directories."""

    preset: str
    overrides: tuple[str, ...]
    vary: Mapping[str, tuple[Any, ...]]
    seeds: tuple[int, ...]
    match: Match
    cells: tuple[Cell, ...]
    created: str
    baseline: int = 0
    """The cell that the others are compared with."""

    def run_of(self, cell: Cell, seed: int) -> str:
        """The name of a run's directory below `runs/`."""
        return f"{cell.name}-s{seed}"

    def runs(self) -> Iterator[tuple[Cell, int]]:
        """Seed after seed, so that an ablation cut short has whole rows to compare."""
        return ((cell, seed) for seed in self.seeds for cell in self.cells)

    def write(self, directory: Path) -> None:
        text = json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}, indent=2)
        write_atomic(directory / ABLATION, text + "\n")

    @classmethod
    def read(cls, directory: Path) -> AblationRecord:
        """Raises DataError where there is no ablation, or its file is damaged or of another version."""
        path = directory / ABLATION
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if (version := found.pop("format_version")) != FORMAT_VERSION:
                raise DataError(f"{path}: written in format {version}; this program reads {FORMAT_VERSION}")
            cells = tuple(Cell(**{**cell, "overrides": tuple(cell["overrides"])}) for cell in found["cells"])
            vary = {key: tuple(values) for key, values in found["vary"].items()}
            tuples = {key: tuple(found[key]) for key in ("overrides", "seeds")}
            record = cls(**{**found, **tuples, "vary": vary, "cells": cells})
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(f"{directory}: there is no ablation (no {ABLATION} in it)") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: altered or truncated: {error!r}") from None
        if not 0 <= record.baseline < len(record.cells):
            raise DataError(f"{path}: names cell {record.baseline} as its baseline and has {len(record.cells)}")
        return record
