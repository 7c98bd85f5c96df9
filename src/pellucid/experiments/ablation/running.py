"""One run of an ablation: a process that trains it, and one that scores its last model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from pellucid.checkpoint import layout
from pellucid.report.ablation.record import FAILED
from pellucid.runtime.files import write_atomic
from pellucid.train.run_files import CONFIG, EVALUATIONS, METRICS, read_facts

FINAL = f"{EVALUATIONS}/val.json"
"""What a run's last model scores on the whole validation split."""
_SAID_LINES = 12


def is_trained(run: Path) -> bool:
    """Whether training came to its end, by its updates or by the clock."""
    facts = list(read_facts(run / METRICS))
    return bool(facts) and facts[-1]["event"] == "end" and facts[-1]["reason"] != "interrupted"


def is_finished(run: Path) -> bool:
    return is_trained(run) and (run / FINAL).is_file()


class Children:
    """The processes under way. Each has its own share of the machine's threads; signals reach them through us."""

    def __init__(self, *, threads: int) -> None:
        self._environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
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
        """Ask every child to save and end; they are waited for by those who started them."""
        with self._lock:
            self.stopping = True
            for process in self._running.values():
                with suppress(OSError):
                    process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)

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
                    # Ctrl-C on a terminal goes to a whole group: each child is to hear of it once, from us.
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
        facts = json.loads(line)
        if facts.get("event") == "step" and facts["loss"] is not None:
            self._words[name] = f"{facts['progress']:.0%} loss {facts['loss']:.3f}"


def run_one(children: Children, run: Path, config: Path, seed: int, log: Path, device: str | None) -> None:
    """Train a run, or go on with it, and score its last model. A failure is written down in the run's directory."""
    (run / FAILED).unlink(missing_ok=True)
    on = ["--device", device] if device else []
    if not is_trained(run):
        status = children.run(run.name, [*_training(run, config, seed), *on], log)
        if _ended_badly(children, run, status, log):
            return
    last = layout.checkpoints(run)[-1]
    words = ["evaluate", str(last), "--out", str(run / FINAL), *on]
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
        run.mkdir(parents=True, exist_ok=True)
        write_atomic(run / FAILED, "\n".join([f"exit status {status}", *said]) + "\n")
    return bool(status)
