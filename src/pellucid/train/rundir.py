"""The run directory: its name, its files, and which checkpoints stay."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from pellucid.checkpoint import layout
from pellucid.config import Tree, differences, to_toml
from pellucid.errors import ResumeError, StorageError
from pellucid.runtime.files import remove_leftovers, require_writable, storage_errors, write_atomic
from pellucid.runtime.processor import cpu_features, cpu_name
from pellucid.train.config import RunConfig
from pellucid.train.run_files import CONFIG, ENVIRONMENT, LOCK, PASSPORT

RUNS = Path("runs")

EXACT = ("device", "gpu", "torch", "numpy", "processor", "features", "processes")
"""The parts of a run's environment that must stay for it to go on equal to the bit; threads are restored."""


@dataclass(frozen=True)
class RunDirectory:
    path: Path

    @classmethod
    def create(cls, config: RunConfig) -> RunDirectory:
        """A new, empty run directory. Raises StorageError when the named one already holds a run."""
        if config.run.dir is not None:
            path = Path(config.run.dir)
            if (path / CONFIG).exists() or layout.checkpoints(path):
                raise StorageError(
                    f"{path}: already holds a run; continue it with pellucid train --resume {path}, "
                    "or name another run.dir"
                )
            require_writable(path)
        else:
            require_writable(RUNS)
            path = _next_free(config.run.name)
        (path / layout.CHECKPOINTS).mkdir(exist_ok=True)
        return cls(path)

    @classmethod
    def existing(cls, path: Path) -> RunDirectory:
        """A run to go on with. Raises ResumeError when there is none."""
        if not (path / CONFIG).is_file():
            raise ResumeError(f"{path}: there is no run to resume (no {CONFIG} in it)")
        if (path / layout.MANIFEST).is_file():
            raise ResumeError(
                f"{path}: is a checkpoint, and what goes on is a run: name the run's directory, or begin another run "
                f"from these weights with --init {path}"
            )
        require_writable(path / layout.CHECKPOINTS)
        return cls(path)

    @contextmanager
    def alone(self) -> Generator[None]:
        """Hold the run: two processes that train it at once would write over each other.

        Removes what a killed process was writing. Raises ResumeError while another process holds it.
        """
        lock = FileLock(self.file(LOCK))
        with storage_errors(self.path):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise ResumeError(
                    f"{self.path}: another process is training this run; wait for it, or stop it"
                ) from None
        try:
            remove_leftovers(self.path / layout.CHECKPOINTS)
            yield
        finally:
            with suppress(OSError):
                self.file(LOCK).unlink()
            lock.release()

    def file(self, name: str) -> Path:
        return self.path / name

    def write_config(self, config: RunConfig) -> None:
        write_atomic(self.file(CONFIG), to_toml(config))

    def write_environment(self, values: Tree) -> None:
        write_atomic(self.file(ENVIRONMENT), json.dumps(values, indent=2) + "\n")

    def read_environment(self) -> dict[str, Any]:
        try:
            return json.loads(self.file(ENVIRONMENT).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except ValueError as error:
            raise ResumeError(
                f"{self.file(ENVIRONMENT)}: altered or truncated: {error}; remove it to go on without its record"
            ) from None

    def write_passport(self, passport: Tree) -> None:
        write_atomic(self.file(PASSPORT), json.dumps(passport, indent=2) + "\n")

    def changes_of_data(self, passport: Tree) -> str:
        """The lines, one below the other, in which data differs from the run's own; none where nothing is recorded."""
        try:
            recorded: Tree = json.loads(self.file(PASSPORT).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # it explains, and decides nothing
            return ""
        return "".join(f"\n  {line}" for line in differences(recorded, passport))

    def mark_latest(self, step: int) -> None:
        write_atomic(self.path / layout.LATEST, layout.step_directory(self.path, step).name + "\n")

    def mark_best(self, step: int) -> None:
        write_atomic(self.path / layout.BEST, layout.step_directory(self.path, step).name + "\n")

    def has_checkpoint(self, step: int) -> bool:
        return layout.step_directory(self.path, step).is_dir()

    def prune(self, keep: int, *, step: int, best_step: int | None, good_step: int) -> None:
        """Remove all checkpoints up to `step`, the newest one, but the last `keep` of them, the best, and the newest
        that is known to be good.

        Later ones are damaged ones that a resumed run has passed over: they do not count.
        """
        saved = [c for c in layout.checkpoints(self.path) if layout.step_of(c) <= step]
        newest_good = max((s for c in saved if (s := layout.step_of(c)) <= good_step), default=None)
        for checkpoint in saved[:-keep]:
            if layout.step_of(checkpoint) not in (best_step, newest_good):
                shutil.rmtree(checkpoint, ignore_errors=True)


def environment(threads: int, device: str, processes: int = 1) -> Tree:
    """What else decides a run's exact numbers: recorded at its start."""
    return {
        "device": device,
        "pellucid": version("pellucid"),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": cpu_name(),
        "features": " ".join(cpu_features()),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else "",
        "threads": threads,
        "processes": processes,
        "command": sys.argv,
    }


def _next_free(name: str) -> Path:
    """runs/<name>-001, -002, …: the first that no other process has taken."""
    with storage_errors(RUNS):
        taken = [
            int(p.name.rsplit("-", 1)[1])
            for p in RUNS.glob(f"{name}-*")
            if p.name.rsplit("-", 1)[1].isdigit()
        ]
        number = max(taken, default=0) + 1
        while True:
            path = RUNS / f"{name}-{number:03}"
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
            else:
                return path
