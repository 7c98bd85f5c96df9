"""Running an ablation: each run a process of its own, what is finished is kept, what was cut off goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from pellucid.config import differences, read_toml, to_toml, to_tree
from pellucid.errors import ConfigError
from pellucid.experiments.ablation.planning import cell_config
from pellucid.experiments.ablation.running import Children, is_finished, run_one, signals_stop
from pellucid.report.ablation.record import ABLATION, FAILED, RUNS, AblationRecord, Cell
from pellucid.runtime.files import require_writable, write_atomic
from pellucid.train.run_files import LOCK

CONFIGS, LOGS = "configs", "logs"


@dataclass(frozen=True)
class Progress:
    """How far an ablation has come."""

    ended: int
    """Runs that have come to an end, failed ones and those that were found finished among them."""
    total: int
    failed: tuple[str, ...]
    running: tuple[str, ...]
    """Runs under way, each with what it says of itself."""
    left_s: float | None
    """Seconds that the rest will take at the pace so far; None before the first run has ended."""


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
    a run's own, and one that fails is noted and stops no other. Ctrl-C and SIGTERM let each save what it has; the
    same call later goes on from there. Raises ConfigError where the directory holds another ablation, or another
    process runs this one.
    """
    record = merged(record, directory)
    for folder in (CONFIGS, RUNS, LOGS):
        require_writable(directory / folder)
    try:
        with FileLock(directory / LOCK, timeout=0):
            _lay_down(record, directory)
            with signals_stop():
                return _run_all(record, directory, jobs, device, progress)
    except Timeout:
        raise ConfigError(
            f"{directory}: another process runs this ablation; wait for it, or stop it"
        ) from None


def merged(record: AblationRecord, directory: Path) -> AblationRecord:
    """The plan with the seeds of the one that the directory holds, which must be the same in all else.

    Raises ConfigError, with the differences, for another plan, and for one whose preset or file has changed since.
    """
    if not (directory / ABLATION).exists():
        return record
    earlier = AblationRecord.read(directory)
    more = max(earlier.seeds, record.seeds, key=len)
    before, now = (
        to_tree(plan.model_copy(update={"seeds": more, "created": ""})) for plan in (earlier, record)
    )
    old, new = ({cell["name"]: cell for cell in tree.pop("cells")} for tree in (before, now))
    lines = differences(before, now) or differences(old, new)
    for cell in record.cells if not lines else ():
        if (config := directory / CONFIGS / f"{cell.name}.toml").exists():
            lines += differences(read_toml(config), to_tree(cell_config(record, cell)), f"{cell.name}: ")
    if lines:
        told = "\n".join(f"  {line}" for line in lines)
        raise ConfigError(f"{directory}: holds another ablation; choose another --out\n{told}")
    return earlier.model_copy(update={"seeds": more})


def runs_of(record: AblationRecord, directory: Path) -> dict[Path, tuple[Cell, int]]:
    """Every run's directory, seed after seed, so that an ablation cut short has whole rows to compare."""
    return {
        record.run_directory(directory, cell, seed): (cell, seed)
        for seed in record.seeds
        for cell in record.cells
    }


def waiting_runs(record: AblationRecord, directory: Path) -> dict[Path, tuple[Cell, int]]:
    """Those that are not trained and scored yet."""
    return {run: of for run, of in runs_of(record, directory).items() if not is_finished(run)}


def _lay_down(record: AblationRecord, directory: Path) -> None:
    for cell in record.cells:
        write_atomic(directory / CONFIGS / f"{cell.name}.toml", to_toml(cell_config(record, cell)))
    record.write(directory)


def _run_all(
    record: AblationRecord,
    directory: Path,
    jobs: int,
    device: str | None,
    progress: Callable[[Progress], None] | None,
) -> Progress:
    waiting: Mapping[Path, tuple[Cell, int]] = waiting_runs(record, directory)
    total = len(record.cells) * len(record.seeds)
    pace = _Pace(total, total - len(waiting), progress)
    with Children(jobs) as children, ThreadPoolExecutor(jobs) as pool:
        under_way = {
            pool.submit(
                run_one,
                children,
                run,
                directory / CONFIGS / f"{cell.name}.toml",
                seed,
                directory / LOGS / f"{run.name}.txt",
                device,
            ): run
            for run, (cell, seed) in waiting.items()
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


class _Pace:
    """Counts runs and guesses how long the rest will take."""

    def __init__(self, total: int, found: int, progress: Callable[[Progress], None] | None) -> None:
        self._total, self._found, self._ended, self._failed = total, found, 0, list[str]()
        self._began, self._progress = time.monotonic(), progress

    def ended(self, run: Path) -> None:
        self._ended += 1
        if (run / FAILED).exists():
            self._failed.append(run.name)

    def now(self, running: tuple[str, ...]) -> Progress:
        ended, elapsed = self._found + self._ended, time.monotonic() - self._began
        left = elapsed / self._ended * (self._total - ended) if self._ended else None
        return Progress(ended, self._total, tuple(self._failed), running, left)

    def tell(self, running: tuple[str, ...]) -> None:
        if self._progress is not None:
            self._progress(self.now(running))
