"""The flight recorder: when faults begin, it writes down the step that began them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from pellucid.data.loader import TensorBatch
from pellucid.errors import StorageError
from pellucid.runtime.files import remove_leftovers
from pellucid.runtime.memory import is_out_of_memory
from pellucid.train.bundle import BUNDLES, Bundle
from pellucid.train.origin import Origin, find_origin
from pellucid.train.plan import Plan
from pellucid.train.step import Outcome, Updater

Record = Callable[[Sequence[TensorBatch], Outcome, float, float], Path | None]
"""Writes down an update that was skipped: its batch, outcome, rate and progress. Gives where it lies."""


@dataclass(frozen=True)
class Recorder:
    """Called after an update that was skipped, while the weights are still those before it."""

    run: Path
    update: Updater
    plan: Callable[[], Plan]
    """The plan as it is now: a run that is short of memory makes its micro-batches smaller."""
    environment: Mapping[str, Any]
    console: Console

    def __call__(
        self, batch: Sequence[TensorBatch], outcome: Outcome, lr: float, progress: float
    ) -> Path | None:
        """Write a bundle of the step just made, in place of the oldest where there are enough; returns where.

        None where the config wants none or the disk has no room, which is no reason to end the run.
        """
        plan, state = self.plan(), self.update.state
        keep = plan.config.train.guard.max_bundles
        if keep == 0:
            return None
        path = self.run / BUNDLES / f"step-{state.step:08d}"
        pieces = [piece for micro in batch for piece in micro.split(plan.micro_batch)]
        origin = self._origin(pieces, state.step - 1, plan)
        bundle = Bundle(
            config=plan.config,
            weights=dict(state.model.named_parameters()),
            batch=pieces,
            step=state.step - 1,
            lr=lr,
            progress=progress,
            scaler=self._scaler_before(outcome),
            loss=outcome.loss,
            grad_norm=outcome.grad_norm,
            origin=asdict(origin) if origin else None,
            environment=self.environment,
        )
        try:
            remove_leftovers(path.parent)
            shutil.rmtree(path, ignore_errors=True)  # of the same step, before a rollback
            bundle.write(path)
        except (StorageError, OSError) as error:
            self.console.print(f"the step was not recorded: {error}", style="yellow")
            return None
        # By age: after a rollback a newer one is of an earlier step.
        others = sorted(set(path.parent.glob("step-*")) - {path}, key=lambda bundle: bundle.stat().st_mtime)
        for old in others[: max(0, len(others) + 1 - keep)]:
            shutil.rmtree(old, ignore_errors=True)
        return path

    def _origin(self, pieces: Sequence[TensorBatch], step: int, plan: Plan) -> Origin | None:
        """Where it began. None where that cannot be told: watching takes more memory than the update itself."""
        try:
            return find_origin(self.update, pieces, step, compiled=plan.compiled)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.console.print("there is no memory to look where the fault began", style="yellow")
        return None

    def _scaler_before(self, outcome: Outcome) -> dict[str, Any] | None:
        """The gradient scaler's values as they were: it has come down since, if the gradient overflowed."""
        scaler = self.update.state.scaler
        if scaler is None:
            return None
        values: dict[str, Any] = scaler.state_dict()
        if not math.isfinite(outcome.grad_norm):
            values["scale"] /= values["backoff_factor"]
        return values
