"""One run of an ablation: a process that trains it, and one that scores its last model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import torch

from pellucid.checkpoint import layout
from pellucid.report.ablation.record import FAILED, FINAL
from pellucid.runtime.files import write_atomic
from pellucid.train.run_files import CONFIG, is_complete, is_held

_SAID_LINES = 12


def is_finished(run: Path) -> bool:
    return is_complete(run) and (run / FINAL).is_file()


class Children:
    """The processes under way, so many at a time that share the machine's threads; signals reach them through us."""

    def __init__(self, jobs: int) -> None:
        share = {} if jobs == 1 else {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // jobs))}
        self._environment = {**os.environ, **share}
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._words: dict[str, str] = {}
        self._lock = threading.Lock()
        self.stopping = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def words(self) -> tuple[str, ...]:
        """What each says of itself, for a line on the screen."""
        with self._lock:
            return tuple(f"{name} {words}".strip() for name, words in self._words.items())

    def stop(self) -> None:
        """Ask every child to save and end; they are waited for by those who started them.

        On Windows, which has no such signal for another process, they end at once.
        """
        with self._lock:
            self.stopping = True
            for process in self._running.values():
                with suppress(OSError):
                    process.terminate()

    def run(self, name: str, arguments: Sequence[str], log: Path) -> int:
        """`pellucid ARGUMENTS --json` to its end; returns its exit status. What it says goes to the log."""
        with log.open("a", encoding="utf-8") as said:
            with self._lock:
                if self.stopping:
                    return 128 + signal.SIGINT
                process = subprocess.Popen(
                    [sys.executable, "-m", "pellucid", *arguments, "--json"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    encoding="utf-8",
                    env=self._environment,
                    # Ctrl-C on a terminal goes to a whole group: a child is to hear of it once, and from us.
                    start_new_session=os.name == "posix",
                )
                self._running[name], self._words[name] = process, ""
            try:
                with process:
                    assert process.stdout is not None
                    for line in process.stdout:
                        self._heard(name, line)
                return process.returncode
            finally:
                with self._lock:
                    del self._running[name], self._words[name]

    def _heard(self, name: str, line: str) -> None:
        try:
            facts: dict[str, Any] = json.loads(line)
        except ValueError:
            return
        if facts.get("event") == "step" and facts["loss"] is not None:
            self._words[name] = f"{facts['progress']:.0%} loss {facts['loss']:.3f}"


def run_one(children: Children, run: Path, config: Path, seed: int, log: Path, device: str | None) -> None:
    """Train a run, or go on with it, and score its last model. A failure is written down in the run's directory."""
    (run / FAILED).unlink(missing_ok=True)
    on = ["--device", device] if device else []
    if is_held(run):
        _note_failure(run, "another process is training this run; wait for it, or stop it")
        return
    if not is_complete(run):
        status = children.run(run.name, [*_training(run, config, seed), *on], log)
        if _ended_badly(children, run, status, log):
            return
    saved = layout.checkpoints(run)
    if not saved:
        _note_failure(
            run, "it was trained, but its checkpoints are gone; remove its directory to train it anew"
        )
        return
    words = ["evaluate", str(saved[-1]), "--out", str(run / FINAL), *on]
    _ended_badly(children, run, children.run(run.name, words, log), log)


def _training(run: Path, config: Path, seed: int) -> list[str]:
    """Go on where there is a whole checkpoint; else begin (again)."""
    newest, _ = layout.newest_valid(run) if (run / CONFIG).exists() else (None, [])
    if newest is not None:
        return ["train", "--resume", str(run)]
    shutil.rmtree(run, ignore_errors=True)
    return ["train", "--config", str(config), f"train.seed={seed}", f"run.dir={run}"]


def _ended_badly(children: Children, run: Path, status: int, log: Path) -> bool:
    if status and not children.stopping:
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SAID_LINES:]
        _note_failure(run, "\n".join([f"exit status {status}", *said]))
    return bool(status)


def _note_failure(run: Path, why: str) -> None:
    run.mkdir(parents=True, exist_ok=True)
    write_atomic(run / FAILED, why + "\n")


@contextmanager
def signals_stop() -> Generator[None]:
    """Let SIGTERM and a closed terminal end this process as Ctrl-C does: after its children have saved."""

    def leave(number: int, frame: object) -> None:
        del frame
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
