"""Proof on this machine: a run that is killed and resumed equals the uninterrupted one to the bit.

Runs are separate processes, the kill is the operating system's (SIGKILL), and only files are compared.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pellucid.checkpoint import layout
from pellucid.errors import TrainingError
from pellucid.train.run_files import CONFIG, METRICS, read_facts

_EXACT = {"step": ("loss", "lr", "grad_norm", "tokens"), "evaluation": ("val_loss", "val_tokens", "is_best")}
"""What a resumed run must log again to the bit; seconds differ, numbers may not."""


@dataclass(frozen=True)
class Kill:
    """One interruption: so many seconds after the first update of its process, and what was there by then."""

    after_seconds: float
    logged_step: int
    """The last update that had been logged."""
    saved_step: int | None
    """The checkpoint that the next process can start from."""


@dataclass(frozen=True)
class ResumeVerdict:
    steps: int
    kills: tuple[Kill, ...]
    differences: tuple[str, ...]
    """Empty when every compared file and number is equal to the bit."""

    @property
    def is_exact(self) -> bool:
        return not self.differences

    def to_dict(self) -> dict[str, Any]:
        return {"is_exact": self.is_exact, **asdict(self)}


def verify_resume(
    words: Sequence[str], *, work: Path, steps: int = 40, kills: int = 1, seed: int | None = None
) -> ResumeVerdict:
    """Train `words` (a preset and overrides) for `steps` updates twice, the second time killed `kills` times.

    Each kill comes at a moment drawn uniformly over the time that the uninterrupted run took from its first
    update to its end, evaluations and saves included. A killed run that gets to its end before all kills are
    done is compared, and another one begun. Raises TrainingError when a run fails by itself.
    """
    draw = random.Random(seed)
    every = max(1, steps // 4)
    arguments = [
        *words,
        *("train.tokens=", "train.epochs=", "train.max_seconds="),  # updates alone end it
        f"train.steps={steps}",
        f"train.checkpoint_every={every}",
        f"train.eval_every={max(1, steps // 2)}",
        "train.eval_tokens=4096",
        "train.sample_tokens=0",
    ]
    whole = work / "uninterrupted"
    _run(_command(arguments, whole))
    elapsed = [f["elapsed_seconds"] for f in read_facts(whole / METRICS) if f["event"] in ("step", "end")]
    duration = elapsed[-1] - elapsed[0]
    done: list[Kill] = []
    differences: list[str] = []
    number = 0
    while len(done) < kills:
        number += 1
        broken = work / f"killed-{number}"
        while len(done) < kills:
            after = draw.uniform(0, duration)
            _run(_command(arguments, broken), kill_after_s=after)
            logged = list(read_facts(broken / METRICS))
            if logged[-1]["event"] == "end":
                break  # it was there before the moment came
            newest, _ = layout.newest_valid(broken)
            done.append(Kill(after, logged[-1]["step"], layout.step_of(newest) if newest else None))
        else:
            _run(_command(arguments, broken))
        differences += compare_runs(whole, broken)
    return ResumeVerdict(steps, tuple(done), tuple(differences))


def compare_runs(first: Path, second: Path) -> list[str]:
    """Every difference between two finished runs that matters: logged numbers and the last checkpoint's files."""
    found: list[str] = []
    for event, names in _EXACT.items():
        left, right = (
            [f for f in read_facts(run / METRICS) if f["event"] == event] for run in (first, second)
        )
        if [f["step"] for f in left] != [f["step"] for f in right]:
            found.append(f"{event} lines: {len(left)} against {len(right)}, or of other steps")
            continue
        for a, b in zip(left, right, strict=True):
            found += [f"step {a['step']}: {n} {a[n]!r} against {b[n]!r}" for n in names if a[n] != b[n]]
    last = [(layout.checkpoints(run) or [run])[-1] for run in (first, second)]
    if last[0].name != last[1].name:
        return [*found, f"last checkpoint: {last[0].name} against {last[1].name}"]
    for name in (layout.MODEL, layout.AVERAGED, layout.TRAIN_TENSORS):
        if _digest(last[0] / name) != _digest(last[1] / name):
            found.append(f"{name}: the bytes differ")
    values = [json.loads((path / layout.TRAIN_VALUES).read_text(encoding="utf-8")) for path in last]
    for key in values[0]:
        if key != "elapsed_seconds" and values[0][key] != values[1].get(key):
            found.append(f"{key}: {values[0][key]!r} against {values[1].get(key)!r}")
    return found


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def _command(arguments: Sequence[str], run: Path) -> list[str]:
    """Start the run, or go on with it where it got as far as writing its config."""
    if (run / CONFIG).is_file():
        return ["train", "--resume", str(run)]
    return ["train", *arguments, f"run.dir={run}"]


def _run(command: Sequence[str], *, kill_after_s: float | None = None) -> None:
    """Run a pellucid process to its own end, or kill it so long after its first update."""
    with subprocess.Popen(
        [sys.executable, "-m", "pellucid", *command, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the facts of the start
        process.stdout.readline()  # and of the first update
        try:
            _, said = process.communicate(timeout=kill_after_s)
        except subprocess.TimeoutExpired:
            process.kill()  # SIGKILL: the process cannot prepare for it
            process.communicate()
            return
    if process.returncode:
        raise TrainingError(
            f"pellucid {' '.join(command)} ended by itself with status {process.returncode}:\n{said}"
        )
