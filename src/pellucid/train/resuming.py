"""Going on with a run where it was left, and refusing to go on with another one in its place."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pellucid import checkpoint
from pellucid.checkpoint import layout
from pellucid.config import Config, Tree, differences, from_tree, override, read_toml, to_tree
from pellucid.data.order import Order
from pellucid.errors import CheckpointError, ResumeError
from pellucid.runtime.console import told
from pellucid.runtime.device import Device, choose_device
from pellucid.runtime.distributed import Processes, from_environment
from pellucid.tokenizers import TokenizerConfig
from pellucid.train.building import require_checkpoint_space
from pellucid.train.config import RunConfig
from pellucid.train.hooks import Hook
from pellucid.train.hooks.metrics import forget_after
from pellucid.train.plan import Plan, count_steps
from pellucid.train.run import initial_weights, main_console, open_in_all, plan_in_all
from pellucid.train.run_files import CONFIG, METRICS, SAMPLES
from pellucid.train.rundir import EXACT, RunDirectory, environment
from pellucid.train.session import RunResult, Session


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
    data, seed, batch) is refused with ResumeError, and so is a run that another process is training; every other
    change is said. Raises CheckpointError when checkpoints are there and every one is damaged.
    """
    chosen = choose_device(device or RunDirectory(directory).read_environment().get("device"))
    with from_environment(chosen.type) as processes:
        run = processes.on_main(lambda: RunDirectory.existing(directory))
        console = main_console(processes, console)
        with (
            run.alone() if processes.is_main else nullcontext(),
            told(console, "pellucid.data.stream"),
        ):
            return _resume(run, changes, chosen, processes, console=console, hooks=hooks)


def _resume(
    run: RunDirectory,
    changes: Sequence[str],
    device: Device,
    processes: Processes,
    *,
    console: Console,
    hooks: Sequence[Hook],
) -> RunResult:
    directory = run.path
    stored = read_toml(run.file(CONFIG))
    config = from_tree(RunConfig, override(stored, changes), where=str(directory) if not changes else "")
    refuse_another_run(from_tree(RunConfig, stored), config)
    recorded = run.read_environment()
    if threads := recorded.get("threads"):
        torch.set_num_threads(threads)
    now = environment(torch.get_num_threads(), device.type, processes.world)
    known = [key for key in EXACT if key in recorded]
    for line in differences({key: recorded[key] for key in known}, {key: now[key] for key in known}):
        console.print(
            f"not the machine or the processes it began with ({line}): it goes on, but not equal to the bit",
            style="yellow",
        )
    data = open_in_all(processes, config, console)
    expected, found = recorded.get("data"), data.shards.fingerprint
    if expected not in (None, found):
        raise ResumeError(
            f"{directory}: was trained on data with fingerprint {expected[:12]}, and {data.shards.name} now has "
            f"{found[:12]}; give the same text and tokenizer, or start a new run with --init {directory}"
            + run.changes_of_data(data.shards.passport)
        )
    newest, faults = processes.on_main(lambda: checkpoint.newest_valid(directory))
    if faults and newest is None:
        raise CheckpointError(
            "\n".join([f"{directory}: no whole checkpoint is left to resume from", *faults])
        )
    for fault in faults:
        console.print(f"passed over: {fault}", style="yellow")
    clock_start = time.perf_counter()
    plan, order = plan_in_all(processes, config, data, device)
    state = checkpoint.load_train_state(newest) if newest else None
    init = Path(recorded["init"]) if "init" in recorded and newest is None else None
    weights = initial_weights(init, plan, data.tokenizer) if init else None
    step = layout.step_of(newest) if newest else 0
    _say_changes(console, stored, plan, order, step)
    console.print(f"resuming {directory} from step {step:,}" + ("" if newest else " (no checkpoint yet)"))
    if state and (factor := state.values.get("health", {}).get("lr_factor", 1.0)) != 1.0:
        console.print(f"rollbacks have left {factor:g} of the learning rate, and so it stays", style="yellow")
    if processes.is_main:
        _bring_in_line(run, plan, step, state)
    require_checkpoint_space(plan, directory)
    session = Session.begin(
        run, plan, order, data, console, processes, clock_start=clock_start, weights=weights, state=state
    )
    del weights, state  # a copy of every tensor, which training has no use for
    return session.train(hooks)


def _bring_in_line(run: RunDirectory, plan: Plan, step: int, state: checkpoint.StoredState | None) -> None:
    """Make the run's files say what is true when it goes on after `step` updates."""
    is_due = state is not None and state.values.get("evaluation_due", False)
    for log in (METRICS, SAMPLES):
        forget_after(run.file(log), step, evaluation_due=is_due)
    run.write_config(plan.config)
    if state:  # a kill between a save and its marks leaves them behind
        run.mark_latest(step)
        if (best_step := state.values["best_step"]) is not None and run.has_checkpoint(best_step):
            run.mark_best(best_step)


def refuse_another_run(before: RunConfig, after: RunConfig) -> None:
    """Raise ResumeError, showing the difference, when a change would continue another run than the stored one."""
    fixed = {
        "model": (before.model, after.model),
        "data.tokenizer": (_without_places(before.data.tokenizer), _without_places(after.data.tokenizer)),
        "data.objective": (before.data.objective, after.data.objective),
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


def _without_places(tokenizer: TokenizerConfig) -> Tree:
    """What decides the ids, but for the files that a tokenizer is read from: they may have been moved.

    That they still say the same is known by the fingerprint of the data.
    """
    return {key: value for key, value in to_tree(tokenizer).items() if key not in ("ranks_file", "path")}


def _plain(value: Any) -> Any:
    return to_tree(value) if isinstance(value, Config) else value


def _say_changes(console: Console, stored: Tree, plan: Plan, order: Order, step: int) -> None:
    lines = differences(stored, to_tree(plan.config))
    for line in lines:
        console.print(f"changed: {line}")
    old, new = from_tree(RunConfig, stored).train, plan.config.train
    epoch = None if old.epochs is None else order.windows_per_epoch
    old_steps = count_steps(old, windows=plan.batch_windows, windows_per_epoch=epoch)
    if old_steps and plan.steps and old_steps != plan.steps:
        before = old.lr * old.schedule.factor(step, step / old_steps)
        now = new.lr * new.schedule.factor(step, step / plan.steps)
        console.print(
            f"the {new.schedule.kind} schedule now spans {plan.steps:,} steps: at step {step:,} the learning rate "
            f"goes on at {now:.2e} where it would have been {before:.2e}",
        )
