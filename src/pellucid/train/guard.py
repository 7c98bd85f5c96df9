"""What follows from an update that could not be made, or from a loss that jumped."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from pellucid.config import Config
from pellucid.errors import TrainingError
from pellucid.train.facts import RollbackFacts

if TYPE_CHECKING:
    from pellucid.data.loader import TensorBatch
    from pellucid.train.state import TrainState
    from pellucid.train.step import Outcome

_SMALLEST_SCALE = 1.0
"""A gradient that overflows without being scaled up is at fault itself."""


class GuardConfig(Config):
    """What is done about losses and gradients that are not finite, and which losses are spikes."""

    max_skips: int = Field(default=5, gt=0)
    """Updates skipped, because loss or gradient is not finite, after which the run goes back to its last good
    checkpoint. They are forgotten after as many good updates in a row."""
    rollback_lr_factor: float = Field(default=0.5, gt=0, le=1)
    """What the learning rate is multiplied by, for the rest of the run, each time it goes back."""
    max_rollbacks: int = Field(default=3, ge=0)
    """How often the run may go back; instead of once more, it ends."""
    spike_window: int = Field(default=100, gt=1)
    """Memory of the running mean and deviation of the loss, in updates. The first so many are never spikes."""
    spike_deviations: float = Field(default=6.0, gt=0)
    """A spike is a loss above the running mean by more than so many deviations …"""
    spike_nats: float = Field(default=0.5, ge=0)
    """… and by more than so many nats a token."""
    max_bundles: int = Field(default=2, ge=0)
    """Newest flight-recorder bundles kept, each with a copy of the weights; 0 for none."""


@dataclass(frozen=True)
class Verdict:
    """What an update was."""

    is_skipped: bool = False
    """Loss or gradient was not finite, and nothing was updated."""
    is_overflow: bool = False
    """Nothing was updated because the gradient scaler had scaled too far."""
    is_spike: bool = False
    """The loss was far above what was to be expected."""
    bundle: Path | None = None
    """Where the step was written down."""


class Guard:
    """Judges every update, has the first one of close faults recorded, and takes the run back where it must.

    record: writes a bundle of the step just made, where one is wanted. restore: puts the newest checkpoint of a
    step up to the given one back into `state`, and says whether there was one. What the guard remembers is in
    `state.health`, so that a resumed run decides as the uninterrupted one.
    """

    def __init__(
        self,
        config: GuardConfig,
        state: TrainState,
        *,
        record: Callable[[Sequence[TensorBatch], Outcome, float, float], Path | None],
        restore: Callable[[int], bool],
    ) -> None:
        self.config, self.state, self.record, self.restore = config, state, record, restore
        self._bundle: Path | None = None

    def judge(self, batch: Sequence[TensorBatch], outcome: Outcome, *, lr: float, progress: float) -> Verdict:
        """Take note of what came of the batch in the step just made, at this rate and share of the run."""
        health = self.state.health
        if outcome.status == "overflow" and self._scale() > _SMALLEST_SCALE:
            health.overflows += 1
            return Verdict(is_overflow=True)
        if outcome.status == "updated":
            health.made_in_a_row += 1
            if health.made_in_a_row >= self.config.max_skips:
                health.skipped_lately = 0
            health.good_step = self.state.step - 1  # whose weights gave this loss and gradient
            return Verdict(is_spike=self._is_spike(outcome.loss))
        health.skipped += 1
        health.skipped_lately += 1
        health.made_in_a_row = 0
        if health.skipped_lately > 1:
            return Verdict(is_skipped=True)
        health.faulty_since = self.state.step
        self._bundle = self.record(batch, outcome, lr, progress)
        return Verdict(is_skipped=True, bundle=self._bundle)

    def fault(self) -> str | None:
        """Why the run cannot go on from where it is, if it cannot."""
        health = self.state.health
        count, among = health.skipped_lately, self.state.step - health.faulty_since + 1
        if count < self.config.max_skips:
            return None
        where = f"update{'s' * (count > 1)} in a row" if count == among else f"of {among} updates"
        return f"loss or gradient was not finite in {count} {where}"

    def go_back(self, fault: str) -> RollbackFacts:
        """Put the last good checkpoint back, with a lower rate from there on.

        Raises TrainingError where the run has gone back often enough, or there is nothing to go back to.
        """
        state, before, from_step = self.state, self.state.health, self.state.step
        if before.rollbacks >= self.config.max_rollbacks:
            times = f"train.guard.max_rollbacks={self.config.max_rollbacks}"
            raise TrainingError(self._message(fault, f"the run has gone back as often as it may ({times})"))
        if not self.restore(before.good_step):
            raise TrainingError(self._message(fault, "there is no good checkpoint to go back to yet"))
        state.health = replace(
            before,
            skipped_lately=0,
            rollbacks=before.rollbacks + 1,
            lr_factor=before.lr_factor * self.config.rollback_lr_factor,
            losses=state.health.losses,
            mean=state.health.mean,
            variance=state.health.variance,
            good_step=state.step,
        )
        return RollbackFacts(
            step=state.step,
            from_step=from_step,
            reason=fault,
            rollbacks=state.health.rollbacks,
            lr_factor=state.health.lr_factor,
        )

    def _is_spike(self, loss: float) -> bool:
        health, config, limit = self.state.health, self.config, math.inf
        if health.losses >= config.spike_window:
            limit = health.limit(deviations=config.spike_deviations, nats=config.spike_nats)
        # A spike counts for no more than the limit, or a few of them would make the next ones look ordinary.
        health.measure(min(loss, limit), config.spike_window)
        health.spikes += loss > limit
        return loss > limit

    def _scale(self) -> float:
        return self.state.scaler.get_scale() if self.state.scaler else _SMALLEST_SCALE

    def _message(self, fault: str, why: str) -> str:
        look = f" See which module began it with: pellucid replay {self._bundle}." if self._bundle else ""
        rate = self.state.health.lr_factor
        lowered = f" (rollbacks had brought it to {rate:g} of that)" if rate != 1 else ""
        return (
            f"step {self.state.step}: {fault}, and {why}. The checkpoints saved before are kept, "
            f"and none of later weights.{look} Lower train.lr{lowered}, lengthen the warmup, or set "
            "train.precision=fp32 where it is another"
        )
