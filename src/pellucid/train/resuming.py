"""Going on with a run where it was left, and refusing to go on with another one in its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pellucid import checkpoint
from pellucid.checkpoint import layout
from pellucid.config import Config, Tree, differences, from_tree, override, read_toml, to_tree
from pellucid.errors import CheckpointError, ResumeError
from pellucid.runtime.console import message_console, told
from pellucid.runtime.device import choose_device
from pellucid.train.config import RunConfig
from pellucid.train.hooks import Hook
from pellucid.train.hooks.metrics import forget_after
from pellucid.train.opening import open_data, plan_run, preparing_progress
from pellucid.train.run import initial_weights
from pellucid.train.rundir import CONFIG, EXACT, METRICS, SAMPLES, RunDirectory, environment
from pellucid.train.session import RunResult, Session, require_checkpoint_space


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
    run, console = RunDirectory.existing(directory), console or message_console()
    with run.alone(), told(console, "pellucid.data.stream"):
        return _resume(run, changes, device=device, console=console, hooks=hooks)


def _resume(
    run: RunDirectory, changes: Sequence[str], *, device: str | None, console: Console, hooks: Sequence[Hook]
) -> RunResult:
    directory = run.path
    stored = read_toml(run.file(CONFIG))
    config = from_tree(RunConfig, override(stored, changes), where=str(directory) if not changes else "")
    refuse_another_run(from_tree(RunConfig, stored), config)
    recorded = run.read_environment()
    if threads := recorded.get("threads"):
        torch.set_num_threads(threads)
    device = device or recorded.get("device")
    now = environment(torch.get_num_threads(), choose_device(device).type)
    known = [key for key in EXACT if key in recorded]
    for line in differences({key: recorded[key] for key in known}, {key: now[key] for key in known}):
        console.print(
            f"not the machine it began on ({line}): it goes on, but not equal to the bit", style="yellow"
        )
    data = open_data(config, progress=preparing_progress(console))
    expected, found = recorded.get("data"), data.shards.fingerprint
    if expected not in (None, found):
        raise ResumeError(
            f"{directory}: was trained on data with fingerprint {expected[:12]}, and {data.shards.name} now has "
            f"{found[:12]}; give the same text and tokenizer, or start a new run with --init {directory}"
            + run.changes_of_data(data.shards.passport)
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
    weights = initial_weights(init, plan, data.tokenizer) if init else None
    step = layout.step_of(newest) if newest else 0
    _say_changes(console, stored, to_tree(plan.config), step)
    console.print(f"resuming {directory} from step {step:,}" + ("" if newest else " (no checkpoint yet)"))
    forget_after(run.file(METRICS), step)
    forget_after(run.file(SAMPLES), step)
    run.write_config(plan.config)
    if newest and state:  # a kill between a save and its marks leaves them behind
        run.mark_latest(step)
        if (best_step := state[2]["best_step"]) is not None and run.has_checkpoint(best_step):
            run.mark_best(best_step)
    require_checkpoint_space(plan, directory)
    return Session.begin(run, plan, order, data, console, weights=weights, state=state).train(hooks)


def refuse_another_run(before: RunConfig, after: RunConfig) -> None:
    """Raise ResumeError, showing the difference, when a change would continue another run than the stored one."""
    fixed = {
        "model": (before.model, after.model),
        "data.tokenizer": (before.data.tokenizer, after.data.tokenizer),
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


def _plain(value: Any) -> Any:
    return to_tree(value) if isinstance(value, Config) else value


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
