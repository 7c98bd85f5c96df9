"""ablation.json: what an ablation varies, and the cells of its grid. Written before the first run begins."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pellucid.config import Config, from_tree, to_tree
from pellucid.errors import ConfigError, DataError
from pellucid.report.run.record import FAILED
from pellucid.runtime.files import write_atomic
from pellucid.train.run_files import EVALUATIONS

__all__ = ["ABLATION", "FAILED", "FINAL", "RUNS", "AblationRecord", "Cell", "Match", "Scalar"]

FORMAT_VERSION = 1
ABLATION = "ablation.json"
RUNS = "runs"
"""The folder, inside an ablation's, that its runs lie in."""
FINAL = f"{EVALUATIONS}/val.json"
"""In a run's directory: what its last model scores on the whole validation split."""

Scalar = bool | int | float | str
Match = Literal["steps", "params", "flops", "time"]


class Cell(Config):
    """One choice of a value for each varied key, which is trained once a seed."""

    name: Annotated[str, Field(pattern=r"^\w[\w.+=-]*$")]
    """Begins the names of its run directories."""
    values: dict[str, Scalar]
    """By varied key."""
    overrides: tuple[str, ...]
    """All that the preset is changed by, what makes the budgets equal included."""
    parameters: Annotated[int, Field(ge=1)]
    flops: Annotated[float, Field(gt=0)] | None = None
    """Of the whole training of one run; None where the clock ends it."""
    steps: Annotated[int, Field(ge=1)] | None = None
    max_seconds: Annotated[float, Field(gt=0)] | None = None


class AblationRecord(Config):
    """What was compared, how it was made comparable, and by which runs."""

    format_version: Literal[1] = FORMAT_VERSION
    preset: str
    overrides: tuple[str, ...] = ()
    """What all cells have in common."""
    vary: dict[str, tuple[Scalar, ...]]
    """The values of each varied key; the first is what the others are compared with in its main effect."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    match: Match
    """What is the same in all cells."""
    baseline: Annotated[int, Field(ge=0)] = 0
    """The number of the cell that the others are compared with."""
    created: str = ""
    cells: Annotated[tuple[Cell, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        names = sorted(cell.name for cell in self.cells)
        if twice := [name for name, other in pairwise(names) if name == other]:
            raise ValueError(f"two cells have the name {twice[0]!r}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"a seed stands twice in seeds = {list(self.seeds)}")
        if self.baseline >= len(self.cells):
            raise ValueError(f"baseline is cell {self.baseline} of {len(self.cells)}; the first is cell 0")
        for cell in self.cells:
            for key, levels in self.vary.items():
                if cell.values.get(key) not in levels:
                    raise ValueError(
                        f"cell {cell.name!r} has {cell.values.get(key)!r} for {key}, which is not one of its values "
                        f"{list(levels)}"
                    )
        return self

    def run_directory(self, directory: Path, cell: Cell, seed: int) -> Path:
        """Where one run of the ablation in `directory` lies."""
        return directory / RUNS / f"{cell.name}-s{seed}"

    def to_dict(self) -> dict[str, Any]:
        return to_tree(self)

    def write(self, directory: Path) -> None:
        """Write ablation.json whole or not at all. Raises StorageError."""
        write_atomic(directory / ABLATION, json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def read(cls, directory: Path) -> AblationRecord:
        """Raises DataError where there is none, or a damaged one, or one of another version."""
        path = directory / ABLATION
        try:
            tree: Any = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(
                f"{directory}: not an ablation: it has no {ABLATION}; make one with `pellucid ablate`"
            ) from None
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read: {error}; {_AGAIN}") from None
        if not isinstance(tree, dict):
            raise DataError(f"{path}: wanted an object, found {type(tree).__name__}; {_AGAIN}")
        if tree.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{path}: wanted format version {FORMAT_VERSION}, found {tree.get('format_version')!r}; "
                "read it with the version of pellucid that wrote it"
            )
        try:
            return from_tree(cls, tree, where=str(path))
        except ConfigError as error:
            raise DataError(f"{error}; {_AGAIN}") from None


_AGAIN = "the `pellucid ablate` that made it writes it anew, and keeps the runs that are there"
