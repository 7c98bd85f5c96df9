"""Running an ablation: each run a process of its own, what is finished is kept, what was cut off goes on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from pellucid.config import differences, to_toml, to_tree
from pellucid.errors import ConfigError
from pellucid.experiments.ablation.planning import cell_config
from pellucid.experiments.ablation.running import Children, is_finished, run_one
from pellucid.report.ablation.record import ABLATION, FAILED, RUNS, AblationRecord
from pellucid.runtime.files import require_writable, write_atomic

CONFIGS, LOGS = "configs", "logs"


@dataclass(frozen=True)
class Progress:
    """How far an ablation has come."""

    done: int
    """Finished runs, those found finished among them."""
    total: int
    failed: tuple[str, ...]
    running: tuple[str, ...]
    """Runs under way, each with what it says of itself."""
    left_s: float | None
    """Seconds that the rest will take at the pace so far; None before the first run is done."""


def ablate(
    record: AblationRecord,
    directory: Path,
    *,
    jobs: int = 1,
    device: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Progress:
    """Train and score every run of the plan that is not finished yet; returns how it ended.

    Runs are processes of their own, `jobs` at a time, which share the machine's threads: speed and memory are
    a run's own, and one that fails is noted and stops no other. Ctrl-C lets each save what it has; the same
    call later goes on from there. Raises ConfigError where the directory holds another ablation.
    """
    record = _laid_down(record, directory)
    # Seed after seed, so that an ablation cut short has whole rows to compare.
    runs = {
        record.run_directory(directory, cell, seed): (directory / CONFIGS / f"{cell.name}.toml", seed)
        for seed in record.seeds
        for cell in record.cells
    }
    waiting = [run for run in runs if not is_finished(run)]
    pace = _Pace(len(runs), len(runs) - len(waiting), progress)
    with (
        Children(threads=max(1, (os.cpu_count() or 1) // jobs)) as children,
        ThreadPoolExecutor(jobs) as pool,
    ):
        under_way = {
            pool.submit(run_one, children, run, *runs[run], directory / LOGS / f"{run.name}.txt", device): run
            for run in waiting
        }
        try:
            while under_way:
                done, _ = wait(under_way, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                    pace.ended(under_way.pop(future))
                pace.tell(children.words())
        except BaseException:
            for future in under_way:
                future.cancel()
            children.stop()
            raise
    return pace.now(())


def _laid_down(record: AblationRecord, directory: Path) -> AblationRecord:
    """Write the plan and its configs. One that is there already must be the same, but for more seeds."""
    if (directory / ABLATION).exists():
        earlier = AblationRecord.read(directory)
        more = max(earlier.seeds, record.seeds, key=len)
        before, now = (
            to_tree(plan.model_copy(update={"seeds": more, "created": ""})) for plan in (earlier, record)
        )
        cells = [{cell["name"]: cell for cell in tree.pop("cells")} for tree in (before, now)]
        if lines := differences(before, now) or differences(*cells):
            told = "\n".join(f"  {line}" for line in lines)
            raise ConfigError(f"{directory}: holds another ablation; choose another --out\n{told}")
        record = earlier.model_copy(update={"seeds": more})
    for folder in (CONFIGS, RUNS, LOGS):
        require_writable(directory / folder)
    for cell in record.cells:
        write_atomic(directory / CONFIGS / f"{cell.name}.toml", to_toml(cell_config(record, cell)))
    record.write(directory)
    return record


class _Pace:
    """Counts runs and guesses how long the rest will take."""

    def __init__(self, total: int, found: int, progress: Callable[[Progress], None] | None) -> None:
        self._total, self._found, self._done, self._failed = total, found, 0, list[str]()
        self._began, self._progress = time.monotonic(), progress

    def ended(self, run: Path) -> None:
        self._done += 1
        if (run / FAILED).exists():
            self._failed.append(run.name)

    def now(self, running: tuple[str, ...]) -> Progress:
        done = self._found + self._done
        elapsed = time.monotonic() - self._began
        left = elapsed / self._done * (self._total - done) if self._done else None
        return Progress(done, self._total, tuple(self._failed), running, left)

    def tell(self, running: tuple[str, ...]) -> None:
        if self._progress is not None:
            self._progress(self.now(running))
