"""One process's part of a run: everything built, joined and handed to the loop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import torch
from rich.console import Console
from torch import Tensor

from pellucid import checkpoint
from pellucid.config import to_tree
from pellucid.data.loader import TensorBatch, TrainingLoader
from pellucid.data.objectives import Objective
from pellucid.data.order import Order
from pellucid.evaluate.perplexity import Perplexity, evaluate_split
from pellucid.generate.sampling import preset
from pellucid.generate.text import generate_text
from pellucid.model import Transformer
from pellucid.model.stats import count_parameters
from pellucid.optim import report, summary
from pellucid.runtime.distributed import ALONE, Processes
from pellucid.runtime.files import storage_errors
from pellucid.runtime.precision import allow_tf32
from pellucid.train.building import build_model, build_state, build_updater, make_deterministic, memory_policy
from pellucid.train.facts import EndFacts, StartFacts
from pellucid.train.guard import Guard
from pellucid.train.hooks import (
    Hook,
    Interrupt,
    InterruptedWorkError,
    MetricsFile,
    PeriodicSave,
    Progress,
    Samples,
)
from pellucid.train.loop import Limits, Loop
from pellucid.train.numerics import require_sound
from pellucid.train.opening import OpenedData, build_objective
from pellucid.train.out_of_memory import FittingUpdate, naming_shortage
from pellucid.train.plan import Plan
from pellucid.train.recorder import Record, Recorder
from pellucid.train.rollback import forget_later, newest_whole, put_back
from pellucid.train.run_files import METRICS, SAMPLES
from pellucid.train.rundir import RunDirectory, environment
from pellucid.train.saving import Saver
from pellucid.train.state import TrainState
from pellucid.train.step import Outcome, Updater, go_on


@dataclass(frozen=True)
class RunResult:
    """How a run ended and where it lies."""

    directory: Path
    end: EndFacts
    sample: str | None
    """The last sample of text, if any was written."""
    signal: int | None = None
    """The signal that interrupted the run, if one did."""
    is_main: bool = True
    """Whether this process is the only one of its run, or the one that speaks for all."""


SAMPLE_PRESET = "creative"
"""How samples are drawn: nearly from the model's own distribution, so that they show what it has learned."""


@dataclass
class Session:
    """A run in this process, from its first update here to its last."""

    run: RunDirectory
    plan: Plan
    order: Order
    objective: Objective
    data: OpenedData
    console: Console
    model: Transformer
    state: TrainState
    processes: Processes
    """Those that train together. All update; the main one does everything else."""
    metrics: MetricsFile
    saver: Saver
    clock_start: float
    """When its data was open, by `time.perf_counter`: planning, building and compiling count as the run's time."""
    interrupt: Interrupt = field(default_factory=Interrupt, init=False)
    last_sample: str | None = field(default=None, init=False)

    @classmethod
    def begin(
        cls,
        run: RunDirectory,
        plan: Plan,
        order: Order,
        data: OpenedData,
        console: Console,
        processes: Processes = ALONE,
        *,
        clock_start: float,
        weights: Mapping[str, Tensor] | None = None,
        state: checkpoint.StoredState | None = None,
    ) -> Self:
        """Build the model and its training state: as a checkpoint left them (`state`), or anew.

        clock_start: when the run's time began, by `time.perf_counter`. `weights` replace fresh initial ones.
        """
        make_deterministic()
        allow_tf32(plan.precision)
        if plan.device.type == "mps":
            require_sound(plan.device.torch)
        for reason in plan.reasons:
            console.print(reason, style="dim")
        model = build_model(plan, state.model if state else weights)
        training = build_state(plan, model)
        console.print(summary(report(training.optimizer)), style="dim")
        if state:
            training.restore(state.tensors, state.values, state.averaged)
        metrics = MetricsFile(run.file(METRICS))
        saver = Saver(
            run,
            plan.config.train.keep_checkpoints,
            console,
            saved_step=training.step if run.has_checkpoint(training.step) else None,
        )
        objective = build_objective(plan.config, data.tokenizer)
        return cls(
            run,
            plan,
            order,
            objective,
            data,
            console,
            model,
            training,
            processes,
            metrics,
            saver,
            clock_start,
        )

    def train(self, hooks: Sequence[Hook] = ()) -> RunResult:
        """Run the loop to its end."""
        plan, config = self.plan, self.plan.config.train
        progress = Progress(self.console)
        standard: list[Hook] = [self.saver, self.metrics, PeriodicSave(config.checkpoint_every), progress]
        if config.sample_tokens:
            samples = self.run.file(SAMPLES)
            standard.append(Samples(samples, config.sample_prompt, self.write_sample, progress.sample))
        # The interrupt is the last, so that it knows of a signal that came while another one worked.
        side_jobs = [*standard, self.interrupt, *hooks] if self.processes.is_main else [self.interrupt]
        # Of several processes none may leave the others waiting for its gradient.
        check = self.interrupt.check if self.processes.world == 1 else go_on
        loader = TrainingLoader(
            self.data.shards.train,
            self.order,
            objective=self.objective,
            batch_windows=plan.batch_windows,
            micro_batch=plan.micro_batch,
            rank=self.processes.rank,
            world=self.processes.world,
            device=plan.device.torch,
            while_waiting=check,
        )
        update = build_updater(plan, self.model, self.state, self.processes, while_working=check)
        loop = Loop(
            state=self.state,
            update=FittingUpdate(
                update,
                plan,
                self.objective,
                self.run.path,
                recut=lambda plan: self.go_on_with(plan, progress),
            ),
            loader=loader,
            evaluate=self.evaluate,
            save=self.save,
            guard=Guard(
                config.guard, self.state, record=self.recorder(update, loader), restore=self.put_back
            ),
            hooks=side_jobs,
            processes=self.processes,
            limits=Limits(plan.steps, config.max_seconds),
            schedule=config.schedule,
            peak_lr=config.lr,
            final_dropout=config.final_dropout,
            eval_every=config.eval_every,
            device_type=plan.device.type,
        )
        start = self.start_facts()
        self.console.print(
            f"run {self.run.path}: {start.parameters:,} parameters, {self._amount_of_data()}, vocabulary "
            f"{self.model.vocab_size:,} (ln = {math.log(self.model.vocab_size):.2f})",
        )
        with storage_errors(self.run.path):
            try:
                with loader, self.saver, memory_policy(plan):
                    end = loop.run(start, self.clock_start)
            finally:
                self.interrupt.restore()
                self.metrics.close()
                self.data.shards.close()
        stopped_by = self.processes.union(self.interrupt.received or 0)
        return RunResult(
            self.run.path,
            end,
            self.last_sample,
            signal=stopped_by or None if end.reason == "interrupted" else None,
            is_main=self.processes.is_main,
        )

    def go_on_with(self, plan: Plan, progress: Progress) -> None:
        """Take over a plan with a smaller micro-batch, and leave it to whoever resumes the run."""
        self.plan = plan
        self.run.write_config(plan.config)
        progress.note(plan.reasons[-1])

    def _amount_of_data(self) -> str:
        train = self.data.shards.train
        if not train.is_complete:
            return f"training tokens from a stream of {len(train.shards):,} shards"
        steps_per_epoch = self.order.windows_per_epoch / self.plan.batch_windows
        return f"{train.tokens:,} training tokens ({steps_per_epoch:,.1f} steps an epoch)"

    def start_facts(self) -> StartFacts:
        plan, config = self.plan, self.plan.config.train
        return StartFacts(
            step=self.state.step,
            run=str(self.run.path),
            steps=plan.steps,
            max_seconds=config.max_seconds,
            parameters=count_parameters(self.model).total,
            device=plan.device.type,
            precision=plan.precision.name,
            compiled=plan.compiled,
            micro_batch=plan.micro_batch,
            accumulation=plan.accumulation,
            batch_tokens=config.batch_tokens,
            flops_per_token=plan.flops_per_token,
        )

    def recorder(self, update: Updater, loader: TrainingLoader) -> Record:
        """What writes a faulty step down: the main process, with the batch of all, as if it were alone."""
        now = environment(torch.get_num_threads(), self.plan.device.type, self.processes.world)
        record = Recorder(
            self.run.path,
            replace(update, processes=ALONE, while_working=go_on),
            lambda: self.plan,
            {**self.run.read_environment(), **now},
            self.console,
        )
        if self.processes.world == 1:
            return record

        def record_whole(
            share: Sequence[TensorBatch], outcome: Outcome, lr: float, progress: float
        ) -> Path | None:
            del share
            if not self.processes.is_main:
                return None
            return record(loader.whole_step(self.state.step - 1), outcome, lr, progress)

        return record_whole

    def evaluate(self) -> Perplexity:
        """Score the validation split, or its stated first part, with the averaged weights where the run keeps them.

        The main process does so, while others wait. Raises InterruptedWorkError once a signal has come to it.
        """
        score = self.processes.on_main(self._score)
        if score is None:
            raise InterruptedWorkError
        return score

    def _score(self) -> Perplexity | None:
        one_window = (
            f"train.eval_tokens={self.plan.seq_len}  (one window, from now on, instead of several at once)"
        )
        shortage = self._naming_shortage("evaluation", one_window)
        with shortage, self.state.evaluated_weights(), suppress(InterruptedWorkError):
            return evaluate_split(
                self.model,
                self.data.tokenizer,
                self.data.shards.val,
                self.plan.precision,
                objective=self.objective,
                max_tokens=self.plan.config.train.eval_tokens,
                before_batch=self.interrupt.check,
            )
        return None

    def save(self) -> None:
        """Hand the present step over to be saved and marked, and older checkpoints to be pruned."""
        if not self.processes.is_main:
            return
        state = self.state
        self.metrics.sync()
        contents = checkpoint.Contents(
            config=to_tree(self.plan.config),
            model=dict(self.model.named_parameters()),
            tokenizer=self.data.tokenizer,
            averaged=state.average.tensors() if state.average else {},
            train_tensors=state.tensors(),
            train_values={**state.values(), "data": self.data.shards.fingerprint},
        )
        self.saver.save(
            contents, step=state.step, best_step=state.best_step, good_step=state.health.good_step
        )

    def put_back(self, step: int) -> bool:
        """Return to the newest checkpoint up to `step`; whether there was one."""
        self.saver.wait()
        found = self.processes.on_main(lambda: newest_whole(self.run, step))
        if found is None:
            return False
        put_back(self.state, found)
        self.processes.on_main(lambda: forget_later(self.run, self.state))
        return True

    def write_sample(self) -> str | None:
        """Continue the config's sample prompt, always with the same draws; None once a signal has come."""
        config = self.plan.config.train
        sampling = preset(SAMPLE_PRESET).model_copy(
            update={"max_new_tokens": config.sample_tokens, "seed": config.seed}
        )
        try:
            shortage = self._naming_shortage("sample", "train.sample_tokens=0")
            with shortage, self.state.evaluated_weights(), self.plan.precision.autocast():
                generation = generate_text(
                    self.model,
                    self.data.tokenizer,
                    config.sample_prompt,
                    sampling,
                    on_text=lambda _: self.interrupt.check(),
                )
        except InterruptedWorkError:
            return None
        self.last_sample = generation.text
        return generation.text

    def _naming_shortage(self, what: str, change: str) -> AbstractContextManager[None]:
        return naming_shortage(
            f"the {what} after step {self.state.step}",
            f"go on with pellucid train --resume {self.run.path} {change}",
        )
