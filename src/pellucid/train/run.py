"""A new run: open the data, plan, make the directory, train."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from pellucid import checkpoint
from pellucid.checkpoint.weights import fill
from pellucid.data.order import Order
from pellucid.errors import CheckpointError
from pellucid.model.stats import on_meta
from pellucid.runtime.console import message_console, told
from pellucid.runtime.device import Device, choose_device
from pellucid.runtime.distributed import Processes, from_environment
from pellucid.tokenizers import Tokenizer
from pellucid.train.building import require_checkpoint_space
from pellucid.train.config import RunConfig
from pellucid.train.fitting import with_fitting_micro_batch
from pellucid.train.hooks import Hook
from pellucid.train.opening import OpenedData, open_data, plan_run, preparing_progress
from pellucid.train.plan import Plan
from pellucid.train.rundir import RUNS, RunDirectory, environment
from pellucid.train.session import RunResult, Session


def train(
    config: RunConfig,
    *,
    device: str | None = None,
    init: Path | None = None,
    console: Console | None = None,
    hooks: Sequence[Hook] = (),
) -> RunResult:
    """Train a new run, from fresh weights or from those of the checkpoint `init` (averaged ones where it has them).

    Progress goes to `console` (default: standard error). Raises a UserError before anything is trained when
    the config, the data or the directory cannot be used.

    In processes that torchrun started, all call this: they train one run together, of which the main one writes
    the files and says how it goes.
    """
    chosen = choose_device(device)
    with from_environment(chosen.type) as processes:
        console = main_console(processes, console)
        with told(console, "pellucid.data.stream"):
            return _train(config, chosen, processes, init=init, console=console, hooks=hooks)


def main_console(processes: Processes, console: Console | None) -> Console:
    """Where the main process speaks, by default standard error; the others are silent."""
    return (console or message_console()) if processes.is_main else Console(quiet=True)


def _train(
    config: RunConfig,
    device: Device,
    processes: Processes,
    *,
    init: Path | None,
    console: Console,
    hooks: Sequence[Hook],
) -> RunResult:
    data = open_in_all(processes, config, console)
    clock_start = time.perf_counter()
    plan, order = plan_in_all(processes, config, data, device)
    if init:
        init, why = checkpoint.find_checkpoint(init)
        console.print(f"starting from the weights of {why}", style="dim")
    weights = initial_weights(init, plan, data.tokenizer) if init else None
    require_checkpoint_space(plan, Path(config.run.dir) if config.run.dir else RUNS)
    run = processes.on_main(lambda: RunDirectory.create(config))
    with run.alone() if processes.is_main else nullcontext():
        if processes.is_main:
            surroundings = environment(torch.get_num_threads(), plan.device.type, processes.world)
            surroundings["data"] = data.shards.fingerprint
            run.write_environment({**surroundings, "init": str(init.absolute())} if init else surroundings)
            run.write_passport(data.shards.passport)
            run.write_config(plan.config)
        session = Session.begin(
            run, plan, order, data, console, processes, clock_start=clock_start, weights=weights
        )
        return session.train(hooks)


def open_in_all(processes: Processes, config: RunConfig, console: Console) -> OpenedData:
    """The run's data, which the main process prepares, where that is needed, and verifies before the others open it."""
    return processes.main_first(
        lambda: open_data(config, progress=preparing_progress(console), verify=processes.is_main)
    )


def plan_in_all(
    processes: Processes, config: RunConfig, data: OpenedData, device: Device
) -> tuple[Plan, Order]:
    """One plan for all processes, with each batch dealt out to them."""
    plan, order = plan_run(config, data, device)
    shared = plan.shared_by(processes.world)
    return processes.on_main(lambda: with_fitting_micro_batch(config, shared, order, data)), order


def initial_weights(init: Path, plan: Plan, tokenizer: Tokenizer) -> Mapping[str, Tensor]:
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
