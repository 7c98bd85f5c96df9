"""The training loop. Side jobs are hooks; this file only says what follows what."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pellucid.data.loader import TrainingLoader
from pellucid.errors import TrainingError
from pellucid.evaluate import Perplexity
from pellucid.optim import ScheduleConfig
from pellucid.runtime.memory import peak_bytes
from pellucid.train.facts import EndFacts, EvaluationFacts, Request, StartFacts, StepFacts
from pellucid.train.hooks.base import Hook, collect
from pellucid.train.state import TrainState
from pellucid.train.step import Updater

Reason = Literal["finished", "time is up", "interrupted"]


@dataclass(frozen=True)
class Limits:
    """When the run ends: by updates, by wall time, or by whichever comes first."""

    steps: int | None
    seconds: float | None

    def progress(self, state: TrainState) -> float:
        """The share of the run that is done."""
        by_steps = state.step / self.steps if self.steps else 0.0
        by_time = state.elapsed_seconds / self.seconds if self.seconds else 0.0
        return min(1.0, max(by_steps, by_time))

    def reached(self, state: TrainState) -> Reason | None:
        if self.steps is not None and state.step >= self.steps:
            return "finished"
        if self.seconds is not None and state.elapsed_seconds >= self.seconds:
            return "time is up"
        return None


@dataclass(frozen=True)
class Loop:
    """Everything a run does between its first update and its last."""

    state: TrainState
    update: Updater
    loader: TrainingLoader
    evaluate: Callable[[], Perplexity]
    save: Callable[[], None]
    hooks: Sequence[Hook]
    limits: Limits
    schedule: ScheduleConfig
    peak_lr: float
    eval_every: int
    device_type: str

    def run(self, start: StartFacts, clock_start: float) -> EndFacts:
        """Train until a limit is reached or a hook asks to stop. `clock_start` is when the session began."""
        state, earlier = self.state, self.state.elapsed_seconds

        def tick() -> float:
            state.elapsed_seconds = earlier + time.perf_counter() - clock_start
            return state.elapsed_seconds

        for hook in self.hooks:
            hook.on_start(start)
        updating_s = 0.0
        reason: Reason | None = self.limits.reached(state)
        while reason is None:
            began, waited = tick(), self.loader.waited_s
            lr = self.peak_lr * self.schedule.factor(state.step, self.limits.progress(state))
            loss, norm = self.update(self.loader.step(state.step), lr)
            now = tick()
            facts = StepFacts(
                step=state.step,
                loss=loss,
                lr=lr,
                grad_norm=norm,
                tokens=state.tokens,
                progress=self.limits.progress(state),
                elapsed_seconds=now,
                step_seconds=now - began,
                waited_seconds=self.loader.waited_s - waited,
            )
            updating_s += facts.step_seconds
            request = collect(hook.on_step(facts) for hook in self.hooks)
            reason = self.limits.reached(state) or ("interrupted" if Request.STOP in request else None)
            if state.step % self.eval_every == 0 or reason in ("finished", "time is up"):
                request |= self.evaluation(tick)
                tick()
            if Request.SAVE in request or reason is not None:
                self.save()
        end = EndFacts(
            step=state.step,
            reason=reason,
            elapsed_seconds=tick(),
            tokens=state.tokens,
            best_loss=state.best_loss,
            peak_memory_bytes=peak_bytes(self.device_type),
            waited_share=self.loader.waited_s / updating_s if updating_s else 0.0,
        )
        for hook in self.hooks:
            hook.on_end(end)
        return end

    def evaluation(self, tick: Callable[[], float]) -> Request:
        """Score the validation split, remember the best, tell the hooks.

        Raises TrainingError when the score is not finite: nothing is saved then.
        """
        state, began = self.state, tick()
        score = self.evaluate()
        if not math.isfinite(score.loss):
            raise TrainingError(
                f"step {state.step}: the validation loss is {score.loss}; the checkpoints saved before are kept. "
                "Lower train.lr or set train.precision=fp32"
            )
        is_best = state.best_loss is None or score.loss < state.best_loss
        if is_best:
            state.best_loss, state.best_step = score.loss, state.step
        facts = EvaluationFacts(
            step=state.step,
            val_loss=score.loss,
            perplexity=score.perplexity,
            bits_per_byte=score.bits_per_byte,
            val_tokens=score.tokens,
            is_best=is_best,
            seconds=tick() - began,
            elapsed_seconds=state.elapsed_seconds,
        )
        return collect(hook.on_evaluation(facts) for hook in self.hooks)
