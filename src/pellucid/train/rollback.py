"""Back to an earlier checkpoint of the same run, in the process that trains it."""

from __future__ import annotations

import shutil
from pathlib import Path

from pellucid import checkpoint
from pellucid.checkpoint import layout
from pellucid.checkpoint.weights import fill
from pellucid.errors import CheckpointError
from pellucid.train.averaging import WeightAverage
from pellucid.train.rundir import RunDirectory
from pellucid.train.state import TrainState


def newest_whole(run: RunDirectory, step: int) -> Path | None:
    """The newest undamaged checkpoint of a step up to `step`."""
    saved = reversed(layout.checkpoints(run.path))
    return next((c for c in saved if layout.step_of(c) <= step and _is_whole(c)), None)


def put_back(state: TrainState, found: Path) -> None:
    """Make the state that of a checkpoint."""
    stored = checkpoint.load_train_state(found)
    fill(state.model, stored.model, where=str(found))
    state.optimizer.state.clear()
    if state.average is not None:
        state.average = WeightAverage(state.model, state.average.decay)
    state.restore(stored.tensors, stored.values, stored.averaged)


def forget_later(run: RunDirectory, state: TrainState) -> None:
    """Remove the checkpoints after the state's step, to which the run comes again, and their marks."""
    run.mark_latest(state.step)
    run.file(layout.BEST).unlink(missing_ok=True)  # it may name a later one
    if state.best_step is not None and run.has_checkpoint(state.best_step):
        run.mark_best(state.best_step)
    for later in reversed(layout.checkpoints(run.path)):  # a kill in between leaves no gap
        if layout.step_of(later) > state.step:
            shutil.rmtree(later, ignore_errors=True)


def _is_whole(path: Path) -> bool:
    try:
        layout.verify(path)
    except CheckpointError:
        return False
    return True
