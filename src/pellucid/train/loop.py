"""The training loop. Side jobs are hooks; this file only says what follows what."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pellucid.data.loader import TensorBatch, TrainingLoader
from pellucid.evaluate.perplexity import Perplexity
from pellucid.model.dropout import move_dropout
from pellucid.optim import ScheduleConfig
from pellucid.runtime.distributed import ALONE, Processes
from pellucid.runtime.memory import peak_bytes
from pellucid.train.facts import EndFacts, EvaluationFacts, Request, StartFacts, StepFacts
from pellucid.train.guard import Guard
from pellucid.train.hooks.base import Hook, collect
from pellucid.train.hooks.interrupt import InterruptedWorkError
from pellucid.train.state import TrainState
from pellucid.train.step import Outcome

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
    update: Callable[[Sequence[TensorBatch], float], Outcome]
    loader: TrainingLoader
    evaluate: Callable[[], Perplexity]
    save: Callable[[], None]
    guard: Guard
    hooks: Sequence[Hook]
    limits: Limits
    schedule: ScheduleConfig
    peak_lr: float
    eval_every: int
    device_type: str
    final_dropout: float | None = None
    processes: Processes = ALONE

    def run(self, start: StartFacts, clock_start: float) -> EndFacts:
        """Train until a limit is reached or a hook asks to stop. `clock_start` is when the session began."""
        state, earlier = self.state, self.state.elapsed_seconds

        def tick() -> float:
            # One clock for all processes, since the learning rate and the end of the run may follow it.
            state.elapsed_seconds = self.processes.main_number(earlier + time.perf_counter() - clock_start)
            return state.elapsed_seconds

        for hook in self.hooks:
            hook.on_start(start)
        updating_s = 0.0
        reason: Reason | None = self.limits.reached(state)
        if state.evaluation_due:  # a signal had come before it was done
            reason = self.settle(Request.NOTHING, reason, tick)
        while reason is None:
            try:
                facts = self.step(tick)
            except InterruptedWorkError:  # while it waited for data, or between two micro-batches
                reason = "interrupted"
                self.save()
                break
            updating_s += facts.step_seconds
            request = self.asked(hook.on_step(facts) for hook in self.hooks)
            reason = self.limits.reached(state) or ("interrupted" if Request.STOP in request else None)
            if facts.is_skipped:
                request &= ~Request.SAVE
            state.evaluation_due = state.step % self.eval_every == 0 or reason in ("finished", "time is up")
            reason = self.settle(request, reason, tick)
        end = EndFacts(
            step=state.step,
            reason=reason,
            elapsed_seconds=tick(),
            tokens=state.tokens,
            best_loss=state.best_loss,
            peak_memory_bytes=peak_bytes(self.device_type),
            waited_share=self.loader.waited_s / updating_s if updating_s else 0.0,
            skipped=state.health.skipped,
            overflows=state.health.overflows,
            spikes=state.health.spikes,
            rollbacks=state.health.rollbacks,
        )
        for hook in self.hooks:
            hook.on_end(end)
        return end

    def step(self, tick: Callable[[], float]) -> StepFacts:
        """Make the update of the present step, where its numbers allow one, and say what came of it."""
        state, began, waited = self.state, tick(), self.loader.waited_s
        progress = self.limits.progress(state)
        lr = self.peak_lr * state.health.lr_factor * self.schedule.factor(state.step, progress)
        if self.final_dropout is not None:
            move_dropout(state.model, self.final_dropout, progress)
        batch = self.loader.step(state.step)
        outcome = self.update(batch, lr)
        if state.average is not None and outcome.status == "updated":
            state.average.update()
        verdict = self.guard.judge(batch, outcome, lr=lr, progress=progress)
        now = tick()
        return StepFacts(
            step=state.step,
            loss=outcome.loss,
            lr=lr,
            grad_norm=outcome.grad_norm,
            tokens=state.tokens,
            progress=self.limits.progress(state),
            elapsed_seconds=now,
            step_seconds=now - began,
            waited_seconds=self.loader.waited_s - waited,
            is_skipped=verdict.is_skipped,
            is_overflow=verdict.is_overflow,
            is_spike=verdict.is_spike,
            bundle=None if verdict.bundle is None else str(verdict.bundle),
        )

    def settle(self, request: Request, reason: Reason | None, tick: Callable[[], float]) -> Reason | None:
        """Evaluate where that is due, then save or go back as is called for; why the run ends now, if it does."""
        fault = self.guard.fault()
        if fault is None and self.state.evaluation_due:
            fault, asked = self.evaluation(tick)
            request |= asked
            tick()
        if fault is not None:
            self.go_back(fault)
            return "interrupted" if Request.STOP in request else None
        if self.state.evaluation_due or (reason is None and Request.STOP in request):
            reason = "interrupted"
        if reason is not None or Request.SAVE in request:
            self.save()
        return reason

    def go_back(self, fault: str) -> None:
        """Return to the last good checkpoint and tell the hooks. Raises TrainingError where that cannot be."""
        facts = self.guard.go_back(fault)
        for hook in self.hooks:
            hook.on_rollback(facts)

    def evaluation(self, tick: Callable[[], float]) -> tuple[str | None, Request]:
        """Score the validation split, remember the best, tell the hooks; (what is wrong, what they ask for).

        A signal in the meantime leaves the evaluation due: a resumed run begins with it.
        """
        state, began = self.state, tick()
        try:
            score = self.evaluate()
        except InterruptedWorkError:
            return None, Request.SAVE | Request.STOP
        state.evaluation_due = False
        if not math.isfinite(score.loss):
            return f"the validation loss is {score.loss}", Request.NOTHING
        # An average is not what training goes on from; and among faults, which may come of these weights, it is early.
        if state.average is None and not state.health.skipped_lately:
            state.health.good_step = state.step
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
            is_averaged=state.average is not None,
        )
        return None, self.asked(hook.on_evaluation(facts) for hook in self.hooks)

    def asked(self, requests: Iterable[Request]) -> Request:
        """All that the hooks of any process ask for."""
        return Request(self.processes.union(collect(requests).value))
