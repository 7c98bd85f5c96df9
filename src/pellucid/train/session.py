"""One process's part of a run: everything built, joined and handed to the loop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from rich.console import Console
from torch import Tensor

from pellucid import checkpoint
from pellucid.checkpoint import layout
from pellucid.checkpoint.store import SMALL_FILES_BYTES
from pellucid.checkpoint.weights import fill
from pellucid.config import to_tree
from pellucid.data.loader import TrainingLoader
from pellucid.data.objectives import Objective
from pellucid.data.order import Order
from pellucid.evaluate import Perplexity, evaluate_split
from pellucid.generate.sampling import preset
from pellucid.generate.text import generate_text
from pellucid.losses import LinearCrossEntropy
from pellucid.model import Transformer
from pellucid.model.stats import count_parameters, count_training_state, on_meta
from pellucid.optim import group_by_role
from pellucid.runtime.files import require_space, storage_errors
from pellucid.train.facts import EndFacts, StartFacts
from pellucid.train.hooks import Hook, Interrupt, MetricsFile, PeriodicSave, Progress, Samples
from pellucid.train.loop import Limits, Loop
from pellucid.train.opening import OpenedData, build_objective
from pellucid.train.plan import Plan
from pellucid.train.rundir import METRICS, SAMPLES, RunDirectory
from pellucid.train.state import TrainState
from pellucid.train.step import Updater


@dataclass(frozen=True)
class RunResult:
    """How a run ended and where it lies."""

    directory: Path
    end: EndFacts
    sample: str | None
    """The last sample of text, if any was written."""
    signal: int | None = None
    """The signal that interrupted the run, if one did."""


SAMPLE_PRESET = "creative"
"""How samples are drawn: nearly from the model's own distribution, so that they show what it has learned."""

CheckpointState = tuple[Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Any]]
"""What `checkpoint.load_train_state` gives: model tensors, training tensors, training values."""


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
    metrics: MetricsFile
    clock_start: float
    """When the session began, by `time.perf_counter`: building and compiling count as the run's time."""
    last_sample: str | None = field(default=None, init=False)

    @classmethod
    def begin(
        cls,
        run: RunDirectory,
        plan: Plan,
        order: Order,
        data: OpenedData,
        console: Console,
        *,
        weights: Mapping[str, Tensor] | None = None,
        state: CheckpointState | None = None,
    ) -> Self:
        """Build the model and its training state: as a checkpoint left them (`state`), or anew.

        `weights` replace fresh initial ones.
        """
        clock_start = time.perf_counter()
        make_deterministic()
        for reason in plan.reasons:
            console.print(reason, style="dim")
        model = build_model(plan, state[0] if state else weights)
        training = TrainState(
            model,
            plan.config.train.optimizer.build(
                group_by_role(model, model.parameter_roles()), plan.config.train.lr
            ),
            plan.precision.gradient_scaler(),
        )
        if state:
            training.restore(state[1], state[2])
        metrics = MetricsFile(run.file(METRICS))
        objective = build_objective(plan.config, data.tokenizer)
        return cls(run, plan, order, objective, data, console, model, training, metrics, clock_start)

    def train(self, hooks: Sequence[Hook] = ()) -> RunResult:
        """Run the loop to its end."""
        plan, config = self.plan, self.plan.config.train
        interrupt, progress = Interrupt(), Progress(self.console)
        standard: list[Hook] = [self.metrics, interrupt, PeriodicSave(config.checkpoint_every), progress]
        if config.sample_tokens:
            samples = self.run.file(SAMPLES)
            standard.append(Samples(samples, config.sample_prompt, self.write_sample, progress.sample))
        loader = TrainingLoader(
            self.data.shards.train,
            self.order,
            objective=self.objective,
            batch_windows=plan.batch_windows,
            micro_batch=plan.micro_batch,
            device=plan.device.torch,
        )
        loop = Loop(
            state=self.state,
            update=Updater(
                state=self.state,
                model=self.model,
                loss=LinearCrossEntropy(config.label_smoothing, compiled=plan.compiled),
                precision=plan.precision,
                grad_clip=config.grad_clip,
                recompute=config.activation_checkpointing,
                seed=config.seed,
                window_tokens=plan.seq_len,
            ),
            loader=loader,
            evaluate=self.evaluate,
            save=self.save,
            hooks=[*standard, *hooks],
            limits=Limits(plan.steps, config.max_seconds),
            schedule=config.schedule,
            peak_lr=config.lr,
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
                with loader:
                    end = loop.run(start, self.clock_start)
            finally:
                interrupt.restore()
                self.metrics.close()
                self.data.shards.close()
        stopped_by = interrupt.received if end.reason == "interrupted" else None
        return RunResult(self.run.path, end, self.last_sample, stopped_by)

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
        )

    def evaluate(self) -> Perplexity:
        """Score the validation split, or its stated first part."""
        return evaluate_split(
            self.model,
            self.data.tokenizer,
            self.data.shards.val,
            self.plan.precision,
            objective=self.objective,
            max_tokens=self.plan.config.train.eval_tokens,
        )

    def save(self) -> None:
        """Write a checkpoint of the present step, mark it, and remove those that need not stay."""
        state, config = self.state, self.plan.config
        self.metrics.sync()
        contents = checkpoint.Contents(
            config=to_tree(config),
            model=dict(self.model.named_parameters()),
            tokenizer=self.data.tokenizer,
            train_tensors=state.tensors(),
            train_values={**state.values(), "data": self.data.shards.fingerprint},
        )
        checkpoint.save(layout.step_directory(self.run.path, state.step), contents)
        self.run.mark_latest(state.step)
        if state.best_step == state.step:
            self.run.mark_best(state.step)
        self.run.prune(config.train.keep_checkpoints, step=state.step, best_step=state.best_step)

    def write_sample(self) -> str:
        """Continue the config's sample prompt, always with the same draws."""
        config = self.plan.config.train
        sampling = preset(SAMPLE_PRESET).model_copy(
            update={"max_new_tokens": config.sample_tokens, "seed": config.seed}
        )
        with self.plan.precision.autocast():
            generation = generate_text(self.model, self.data.tokenizer, config.sample_prompt, sampling)
        self.last_sample = generation.text
        return generation.text


def require_checkpoint_space(plan: Plan, path: Path) -> None:
    """Raise StorageError unless `path`'s disk has room for one checkpoint of the planned run."""
    size = count_training_state(on_meta(plan.config.model))
    needed_bytes = size.weights + size.optimizer + SMALL_FILES_BYTES
    require_space(path, needed_bytes, purpose="the first checkpoint")


def build_model(plan: Plan, weights: Mapping[str, Tensor] | None = None) -> Transformer:
    """The run's model on its device, in training mode, its blocks compiled where the plan says so."""
    model = plan.config.model.build(seed=plan.config.train.seed)
    if weights is not None:
        fill(model, weights, where="the checkpoint")
    model.to(plan.device.torch).train()
    if plan.compiled:
        # One block at a time: they share one graph, so compiling costs the same at any depth.
        for block in model.all_blocks:
            block.compile(dynamic=False)
    return model


def make_deterministic() -> None:
    """Ask torch for kernels whose result does not depend on timing, wherever it has them."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would also fill every new tensor with NaN, at a price; nothing here reads memory before writing it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
