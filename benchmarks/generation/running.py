"""A row's process, which stays alive from round to round, and what it answers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faults import what_happened
from generation.rows import Row
from pellucid.cli.main import SPIN_COUNT

WORKER = Path(__file__).parents[1] / "peers" / "generation" / "worker.py"


class ProcessError(Exception):
    """A process could not do what was asked of it."""


def run(command: list[str], environment: Mapping[str, str], given: str = "") -> str:
    """Standard output of a process. Raises ProcessError with what it said."""
    done = subprocess.run(
        command, input=given, env=dict(environment), capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise ProcessError(f"{how_it_ended(done.returncode)}: {what_happened(done.stderr)}")
    return done.stdout


def how_it_ended(status: int) -> str:
    return f"status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"


class Process:
    """One row's model, loaded. Raises ProcessError where the library cannot do it, or takes longer than limit_s."""

    def __init__(
        self, row: Row, files: Path, threads: int, length: int, environment: Mapping[str, str], limit_s: float
    ) -> None:
        self._limit_s = limit_s
        env = dict(environment)
        if row.waits_briefly:
            env.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
        words = ["--engine", row.engine, "--files", str(files), "--setting", json.dumps(dict(row.setting))]
        command = [sys.executable, str(WORKER), *words, "--threads", str(threads), "--length", str(length)]
        run([*command, "--convert"], env)
        self._said = files / f"{row.name}.log".replace(" ", "-")
        with self._said.open("w", encoding="utf-8") as said:
            self._process = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                encoding="utf-8",
            )
        try:
            self.weight_bytes: int = self._read()["weight_bytes"]
        except ProcessError:
            self.close()
            raise

    def write(self, prompts: list[list[int]], count: int) -> dict[str, Any]:
        """The answer of worker.py."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"prompts": prompts, "count": count}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what it died of is read by what follows
        return self._read()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        too_late = threading.Event()
        timer = threading.Timer(self._limit_s, lambda: (too_late.set(), self._process.kill()))
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if line:
            return json.loads(line)
        if too_late.is_set():
            raise ProcessError(f"it took longer than {self._limit_s:g} s")
        status = self._process.wait()
        said = self._said.read_text(encoding="utf-8", errors="replace")
        raise ProcessError(f"{how_it_ended(status)}: {what_happened(said)}")
