"""A whole run: open the data, build the model, join the parts, train; or take up where a run was left."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from pellucid import checkpoint, tokenizers
from pellucid.checkpoint import layout
from pellucid.checkpoint.store import SMALL_FILES_BYTES
from pellucid.checkpoint.weights import fill
from pellucid.config import Tree, from_tree, override, read_toml, to_tree
from pellucid.data.cache import prepare_cached
from pellucid.data.evaluation import evaluation_batches
from pellucid.data.loader import TrainingLoader
from pellucid.data.order import TrainingOrder
from pellucid.data.shards import ShardSet, open_shards
from pellucid.errors import CheckpointError, ResumeError
from pellucid.evaluate import Perplexity, evaluate_split
from pellucid.generate.sampling import SamplingConfig
from pellucid.generate.text import generate_text
from pellucid.losses import LinearCrossEntropy
from pellucid.model import DecoderLM
from pellucid.model.stats import count_parameters, count_token_flops, count_training_state, on_meta
from pellucid.optim import group_by_role
from pellucid.runtime.console import message_console
from pellucid.runtime.device import Device, choose_device
from pellucid.runtime.files import require_space, storage_errors
from pellucid.tokenizers import Tokenizer
from pellucid.train.config import RunConfig
from pellucid.train.facts import EndFacts, StartFacts
from pellucid.train.hooks import Hook, Interrupt, MetricsFile, PeriodicSave, Progress, Samples
from pellucid.train.hooks.metrics import forget_after
from pellucid.train.loop import Limits, Loop
from pellucid.train.plan import Plan, make_plan
from pellucid.train.rundir import METRICS, SAMPLES, RunDirectory, environment
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


@dataclass(frozen=True)
class OpenedData:
    """Prepared shards and the tokenizer that reads them."""

    shards: ShardSet
    tokenizer: Tokenizer


def open_data(config: RunConfig, *, progress: Callable[[int, int], None] | None = None) -> OpenedData:
    """Open `data.path`, preparing raw text into the cache first. Every shard is checked against its SHA-256."""
    data = config.data
    directory = prepare_cached(
        data.path,
        data.tokenizer,
        val_fraction=data.val_fraction,
        text_field=data.text_field,
        cache_dir=data.cache_dir,
        num_threads=os.cpu_count() or 1,
        progress=progress,
    )
    shards = open_shards(directory)
    shards.verify()
    return OpenedData(shards, tokenizers.load(shards.tokenizer_directory))


def plan_run(config: RunConfig, data: OpenedData, device: Device) -> tuple[Plan, TrainingOrder]:
    """Resolve a config against its data and device. Raises DataError for too little data on either side."""
    seq_len = config.train.seq_len or config.model.max_seq_len
    order = TrainingOrder(
        data.shards.train.shard_tokens,
        seq_len,
        seed=config.train.seed,
        shuffle_shards=config.data.shuffle_shards,
        tokens_per_epoch=config.data.tokens_per_epoch,
    )
    evaluation_batches(data.shards.val, seq_len, batch_windows=1)  # raises where there is nothing to score
    sized = config.model.model_copy(
        update={"vocab_size": config.model.vocab_size or data.tokenizer.vocab_size}
    )
    plan = make_plan(
        config,
        device,
        vocab_size=data.tokenizer.vocab_size,
        windows_per_epoch=order.windows_per_epoch,
        training_flops_per_token=count_token_flops(on_meta(sized), seq_len).training,
    )
    return plan, order


def train(
    config: RunConfig,
    *,
    device: str | None = None,
    init: Path | None = None,
    console: Console | None = None,
    hooks: Sequence[Hook] = (),
) -> RunResult:
    """Train a new run, from fresh weights or from those of the checkpoint `init`.

    Progress goes to `console` (default: standard error). Raises a UserError before anything is trained when
    the config, the data or the directory cannot be used.
    """
    console = console or message_console()
    data = open_data(config, progress=_preparing(console))
    plan, order = plan_run(config, data, choose_device(device))
    init = checkpoint.find_checkpoint(init)[0] if init else None
    weights = _initial_weights(init, plan, data.tokenizer) if init else None
    run = RunDirectory.create(config)
    surroundings = {**environment(torch.get_num_threads()), "data": data.shards.manifest.fingerprint}
    run.write_environment({**surroundings, "init": str(init.absolute())} if init else surroundings)
    run.write_config(plan.config)
    return _session(run, plan, order, data, console, hooks, weights=weights)


def resume(
    directory: Path,
    changes: Sequence[str] = (),
    *,
    device: str | None = None,
    console: Console | None = None,
    hooks: Sequence[Hook] = (),
) -> RunResult:
    """Go on with a run from its newest whole checkpoint, or from its start when it was killed before one.

    `changes` are overrides such as `train.steps=2000`. What would make it another run (its model, tokenizer,
    data, seed, batch) is refused with ResumeError; every other change is said. Raises CheckpointError when
    checkpoints are there and every one is damaged.
    """
    console = console or message_console()
    run = RunDirectory.existing(directory)
    stored = read_toml(run.file("config.toml"))
    config = from_tree(RunConfig, override(stored, changes), where=str(directory) if not changes else "")
    refuse_another_run(from_tree(RunConfig, stored), config)
    recorded = run.read_environment()
    if threads := recorded.get("threads"):
        torch.set_num_threads(threads)
    data = open_data(config, progress=_preparing(console))
    expected, found = recorded.get("data"), data.shards.manifest.fingerprint
    if expected not in (None, found):
        raise ResumeError(
            f"{directory}: was trained on data with fingerprint {expected[:12]}, and {config.data.path} now has "
            f"{found[:12]}; give the same text and tokenizer, or start a new run with --init {directory}"
        )
    newest, faults = checkpoint.newest_valid(directory)
    if faults and newest is None:
        raise CheckpointError(
            "\n".join([f"{directory}: no whole checkpoint is left to resume from", *faults])
        )
    for fault in faults:
        console.print(f"passed over: {fault}", style="yellow")
    plan, order = plan_run(config, data, choose_device(device))
    state = checkpoint.load_train_state(newest) if newest else None
    init = Path(recorded["init"]) if "init" in recorded and newest is None else None
    weights = _initial_weights(init, plan, data.tokenizer) if init else None
    step = layout.step_of(newest) if newest else 0
    _say_changes(console, stored, to_tree(plan.config), step)
    console.print(f"resuming {directory} from step {step:,}" + ("" if newest else " (no checkpoint yet)"))
    forget_after(run.file(METRICS), step)
    forget_after(run.file(SAMPLES), step)
    run.write_config(plan.config)
    return _session(run, plan, order, data, console, hooks, weights=weights, state=state)


def refuse_another_run(before: RunConfig, after: RunConfig) -> None:
    """Raise ResumeError, showing the difference, when a change would continue another run than the stored one."""
    fixed = {
        "model": (before.model, after.model),
        "data.tokenizer": (before.data.tokenizer, after.data.tokenizer),
        "data.shuffle_shards": (before.data.shuffle_shards, after.data.shuffle_shards),
        "data.tokens_per_epoch": (before.data.tokens_per_epoch, after.data.tokens_per_epoch),
        "train.seed": (before.train.seed, after.train.seed),
        "train.seq_len": (before.train.seq_len, after.train.seq_len),
        "train.batch_tokens": (before.train.batch_tokens, after.train.batch_tokens),
        "train.optimizer.kind": (before.train.optimizer.kind, after.train.optimizer.kind),
    }
    for name, (old, new) in fixed.items():
        if old != new:
            lines = differences({name: _plain(old)}, {name: _plain(new)})
            raise ResumeError(
                f"--resume would continue another run: {'; '.join(lines)}. "
                "Leave it as it was, or start a new run from these weights with --init"
            )


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The keys in which two trees differ, as `path: old → new`."""
    lines: list[str] = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(
                f"{prefix}{key}: {'(left out)' if old is None else old} → {'(left out)' if new is None else new}"
            )
    return lines


def _plain(value: Any) -> Any:
    return to_tree(value) if hasattr(value, "model_dump") else value


def _say_changes(console: Console, stored: Tree, now: Tree, step: int) -> None:
    lines = differences(stored, now)
    for line in lines:
        console.print(f"changed: {line}")
    if any(line.startswith(("train.steps", "train.epochs", "train.max_seconds")) for line in lines):
        old, new = (from_tree(RunConfig, tree).train for tree in (stored, now))
        if old.steps and new.steps:
            rates = [t.lr * t.schedule.factor(step, step / t.steps) for t in (old, new) if t.steps]
            console.print(
                f"the {new.schedule.kind} schedule now spans {new.steps:,} steps: at step {step:,} the learning rate "
                f"goes on at {rates[1]:.2e} where it would have been {rates[0]:.2e}",
            )


def _initial_weights(init: Path, plan: Plan, tokenizer: Tokenizer) -> Mapping[str, Tensor]:
    """The weights of the checkpoint `init`, which are known to fit the planned model and its ids."""
    loaded = checkpoint.load(init)
    if loaded.tokenizer.fingerprint != tokenizer.fingerprint:
        raise CheckpointError(
            f"--init {init}: its tokenizer ({loaded.tokenizer!r}) is not the one of the data ({tokenizer!r}); "
            "the ids would mean other text"
        )
    weights = loaded.model.state_dict()
    fill(on_meta(plan.config.model), weights, where=f"--init {init}")
    return weights


def _session(
    run: RunDirectory,
    plan: Plan,
    order: TrainingOrder,
    data: OpenedData,
    console: Console,
    hooks: Sequence[Hook],
    *,
    weights: Mapping[str, Tensor] | None = None,
    state: tuple[Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Any]] | None = None,
) -> RunResult:
    """Build everything and run the loop. `state` is that of a checkpoint, `weights` replace fresh ones."""
    clock_start = time.perf_counter()
    make_deterministic()
    config, train_config = plan.config, plan.config.train
    for reason in plan.reasons:
        console.print(reason, style="dim")
    model = build_model(plan, state[0] if state else weights)
    training = TrainState(
        model,
        train_config.optimizer.build(group_by_role(model, model.parameter_roles()), train_config.lr),
        plan.precision.gradient_scaler(),
    )
    if state:
        training.restore(state[1], state[2])

    def evaluate() -> Perplexity:
        return evaluate_split(
            model,
            data.tokenizer,
            data.shards.val,
            plan.precision,
            seq_len=plan.seq_len,
            max_tokens=train_config.eval_tokens,
        )

    size = count_training_state(model)
    needed_bytes = size.weights + size.optimizer + SMALL_FILES_BYTES
    require_space(run.path, needed_bytes, purpose="the first checkpoint")
    metrics, interrupt, progress = MetricsFile(run.file(METRICS)), Interrupt(), Progress(console)

    def save() -> None:
        metrics.sync()
        target = layout.step_directory(run.path, training.step)
        contents = checkpoint.Contents(
            config=to_tree(config),
            model=dict(model.named_parameters()),
            tokenizer=data.tokenizer,
            train_tensors=training.tensors(),
            train_values={**training.values(), "data": data.shards.manifest.fingerprint},
        )
        checkpoint.save(target, contents)
        run.mark_latest(training.step)
        if training.best_step == training.step:
            run.mark_best(training.step)
        run.prune(train_config.keep_checkpoints, step=training.step, best_step=training.best_step)

    samples: list[str] = []

    def write_sample() -> str:
        sampling = SamplingConfig(
            temperature=0.8, max_new_tokens=train_config.sample_tokens, seed=train_config.seed
        )
        with plan.precision.autocast():
            samples.append(generate_text(model, data.tokenizer, train_config.sample_prompt, sampling).text)
        return samples[-1]

    standard: list[Hook] = [metrics, interrupt, PeriodicSave(train_config.checkpoint_every), progress]
    if train_config.sample_tokens:
        standard.append(Samples(run.file(SAMPLES), train_config.sample_prompt, write_sample, progress.sample))
    loader = TrainingLoader(
        data.shards.train,
        order,
        batch_windows=plan.batch_windows,
        micro_batch=plan.micro_batch,
        device=plan.device.torch,
    )
    loop = Loop(
        state=training,
        update=Updater(
            state=training,
            model=model,
            loss=LinearCrossEntropy(train_config.label_smoothing, compiled=plan.compiled),
            precision=plan.precision,
            grad_clip=train_config.grad_clip,
            recompute=train_config.activation_checkpointing == "full",
            seed=train_config.seed,
        ),
        loader=loader,
        evaluate=evaluate,
        save=save,
        hooks=[*standard, *hooks],
        limits=Limits(plan.steps, train_config.max_seconds),
        schedule=train_config.schedule,
        peak_lr=train_config.lr,
        eval_every=train_config.eval_every,
        device_type=plan.device.type,
    )
    start = StartFacts(
        step=training.step,
        run=str(run.path),
        steps=plan.steps,
        max_seconds=train_config.max_seconds,
        parameters=count_parameters(model).total,
        device=plan.device.type,
        precision=plan.precision.name,
        compiled=plan.compiled,
        micro_batch=plan.micro_batch,
        accumulation=plan.accumulation,
        batch_tokens=train_config.batch_tokens,
    )
    console.print(
        f"run {run.path}: {start.parameters:,} parameters, {data.shards.train.tokens:,} training tokens "
        f"({order.windows_per_epoch / plan.batch_windows:,.1f} steps an epoch), vocabulary {model.vocab_size:,} "
        f"(ln = {math.log(data.tokenizer.vocab_size):.2f})",
    )
    try:
        with storage_errors(run.path), loader:
            end = loop.run(start, clock_start)
    finally:
        interrupt.restore()
        metrics.close()
    stopped_by = interrupt.received if end.reason == "interrupted" else None
    return RunResult(run.path, end, samples[-1] if samples else None, stopped_by)


def build_model(plan: Plan, weights: Mapping[str, Tensor] | None = None) -> DecoderLM:
    """The run's model on its device, in training mode, its blocks compiled where the plan says so."""
    model = plan.config.model.build(seed=plan.config.train.seed)
    if weights is not None:
        fill(model, weights, where="the checkpoint")
    model.to(plan.device.torch).train()
    if plan.compiled:
        # One block at a time: they share one graph, so compiling costs the same at any depth.
        for block in model.blocks:
            block.compile(dynamic=False)
    return model


def make_deterministic() -> None:
    """Ask torch for kernels whose result does not depend on timing, wherever it has them."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would also fill every new tensor with NaN, at a price; nothing here reads memory before writing it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]


def _preparing(console: Console) -> Callable[[int, int], None]:
    """Says how far preparing has come, at most once a second."""
    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 1 or (done == total and total > 10_000_000):
            last = time.monotonic()
            console.print(f"preparing data: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB")

    return show
