"""A run directory → one value with all that it tells: its curves as arrays, its end, its texts, its evaluations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from pellucid.config import Tree, read_toml
from pellucid.errors import ConfigError, DataError
from pellucid.evaluate.record import Evaluation
from pellucid.report.charts.values import Numbers
from pellucid.train.run_files import (
    CONFIG,
    ENVIRONMENT,
    EVALUATIONS,
    METRICS,
    PASSPORT,
    SAMPLES,
    is_held,
    is_run,
    read_facts,
)

FAILED = "failed.txt"
"""Where an ablation writes down why a run of it failed."""
_TABLES = ("model", "data", "train", "run")
_NUMBERS = (
    "step", "tokens", "elapsed_seconds", "step_seconds", "loss", "lr", "grad_norm", "val_loss", "perplexity",
    "bits_per_byte", "parameters", "flops_per_token", "peak_memory_bytes",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class RunRecord:
    """All that a run directory tells. A run that is still under way is told as far as it has come."""

    path: Path
    config: Tree
    facts: Sequence[Mapping[str, Any]]
    """metrics.jsonl."""
    samples: Sequence[Mapping[str, Any]]
    environment: Tree
    passport: Tree
    evaluations: Mapping[str, Evaluation]
    """By the names of their files."""
    failure: str = ""
    is_held: bool = False
    """Whether a process is training it now."""
    faults: tuple[str, ...] = ()
    """What could not be read."""
    label: str = ""
    """Its name on a page where the directory's name alone says too little."""

    @property
    def name(self) -> str:
        return self.label or self.path.absolute().name

    def of(self, event: str) -> list[Mapping[str, Any]]:
        return [fact for fact in self.facts if fact.get("event") == event]

    @cached_property
    def steps(self) -> list[Mapping[str, Any]]:
        return self.of("step")

    @cached_property
    def validations(self) -> list[Mapping[str, Any]]:
        return self.of("evaluation")

    @cached_property
    def start(self) -> Mapping[str, Any]:
        """Of the last session; empty where none has begun."""
        return (self.of("start") or [{}])[-1]

    @cached_property
    def end(self) -> Mapping[str, Any] | None:
        """None while it runs, and where it was killed."""
        return self.facts[-1] if self.facts and self.facts[-1].get("event") == "end" else None

    def column(self, key: str, facts: Sequence[Mapping[str, Any]] | None = None) -> Numbers:
        """One number a step (or a fact): not a number where there is none."""
        chosen = self.steps if facts is None else facts
        return np.array([as_number(fact.get(key)) for fact in chosen], dtype=np.float64)

    @property
    def step(self) -> int:
        """How far it has come."""
        return max((int(known(fact.get("step"))) for fact in self.facts), default=0)

    @property
    def tokens(self) -> float:
        return self._last("tokens")

    @property
    def seconds(self) -> float:
        return self._last("elapsed_seconds")

    def _last(self, key: str) -> float:
        numbers = (as_number(fact.get(key)) for fact in reversed(self.facts))
        return next((number for number in numbers if np.isfinite(number)), 0.0)

    @property
    def parameters(self) -> int:
        return int(known(self.start.get("parameters")))

    @property
    def flops_per_token(self) -> float:
        """Of training; 0 for runs that began before this was written down."""
        return known(self.start.get("flops_per_token"))

    @cached_property
    def validation(self) -> Mapping[str, Any]:
        """The last validation; empty before the first."""
        return self.validations[-1] if self.validations else {}

    @cached_property
    def best(self) -> Mapping[str, Any]:
        """The validation with the lowest loss."""
        return min(
            self.validations,
            key=lambda fact: nan_last(as_number(fact.get("val_loss"))),
            default=cast(Tree, {}),
        )

    @property
    def tokens_per_second(self) -> float:
        """Of the median step, so that neither compiling nor evaluations count."""
        seconds = self.column("step_seconds")
        tokens = np.diff(self.column("tokens"), prepend=np.nan)
        is_there = np.isfinite(seconds) & np.isfinite(tokens) & (seconds > 0) & (tokens > 0)
        return float(np.median(tokens[is_there] / seconds[is_there])) if is_there.any() else np.nan

    @property
    def peak_memory_bytes(self) -> float:
        return max((as_number(fact.get("peak_memory_bytes")) for fact in self.of("end")), default=np.nan)

    @property
    def state(self) -> str:
        """One of finished, time is up, interrupted, failed, running, stopped."""
        if self.failure:
            return "failed"
        if self.end is not None:
            return str(self.end.get("reason", "finished"))
        return "running" if self.is_held else "stopped"

    @property
    def is_whole(self) -> bool:
        return self.state in ("finished", "time is up")


def read_run(path: Path) -> RunRecord:
    """Raises DataError where there is no run; what is damaged inside of one is named in its `faults`."""
    if not is_run(path) and not (path / CONFIG).is_file() and not (path / FAILED).is_file():
        raise DataError(
            f"{path}: not a run: it has no {CONFIG}; name a run directory, such as runs/quick-001, or train one: "
            "pellucid train quick"
        )
    faults: list[str] = []
    return RunRecord(
        path=path,
        config=_config(path, faults),
        facts=_facts(path / METRICS, faults),
        samples=_lines(path / SAMPLES, faults),
        environment=_tree(path / ENVIRONMENT, faults),
        passport=_tree(path / PASSPORT, faults),
        evaluations=_evaluations(path / EVALUATIONS, faults),
        failure=_failure(path),
        is_held=is_held(path),
        faults=tuple(faults),
    )


def as_number(value: Any) -> float:
    """A JSON value as a number; not a number where it is none, or too large for one."""
    try:
        return float(value) if isinstance(value, int | float) else np.nan
    except OverflowError:
        return np.nan


def known(value: Any) -> float:
    """A JSON value as a number; 0 where it is none."""
    number = as_number(value)
    return number if np.isfinite(number) else 0.0


def nan_last(value: float) -> float:
    """For sorting: what is not a number comes after all numbers."""
    return value if np.isfinite(value) else np.inf


def _config(path: Path, faults: list[str]) -> Tree:
    if not (path / CONFIG).is_file():
        return {}
    try:
        tree = read_toml(path / CONFIG)
    except ConfigError as error:
        faults.append(str(error))
        return {}
    wrong = {key: tree.pop(key) for key in _TABLES if not isinstance(tree.get(key, {}), dict)}
    faults += [f"{path / CONFIG}: {key} is {value!r}, not a table" for key, value in wrong.items()]
    return tree


def _facts(path: Path, faults: list[str]) -> list[Mapping[str, Any]]:
    """What is no number where one belongs is named, the first of each key, and counts as unknown."""
    facts = _lines(path, faults)
    for key in _NUMBERS:
        wrong = [(at, fact[key]) for at, fact in enumerate(facts, 1) if not _is_number(fact.get(key))]
        if wrong:
            more = f", and {len(wrong) - 1:,} more like it" if len(wrong) > 1 else ""
            faults.append(f"{path}: entry {wrong[0][0]}: {key} is {wrong[0][1]!r:.60}, not a number{more}")
    return facts


def _is_number(value: Any) -> bool:
    """None stands for what is not finite."""
    return value is None or isinstance(value, int | float)


def _lines(path: Path, faults: list[str]) -> list[Mapping[str, Any]]:
    try:
        found = cast(Iterable[Any], read_facts(path))
        return [fact for fact in found if isinstance(fact, dict)]
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path}: cannot be read: {error}")
        return []


def _tree(path: Path, faults: list[str]) -> Tree:
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:  # runs of earlier versions have no passport
        return {}
    except (OSError, ValueError) as error:
        faults.append(f"{path}: cannot be read: {error}")
        return {}
    return cast(Tree, found) if isinstance(found, dict) else {}


def _evaluations(folder: Path, faults: list[str]) -> dict[str, Evaluation]:
    found: dict[str, Evaluation] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path.stem] = Evaluation.read(path)
        except DataError as error:
            faults.append(str(error))
    return found


def _failure(path: Path) -> str:
    with suppress(OSError):
        return (path / FAILED).read_text(encoding="utf-8", errors="replace").strip()
    return ""
