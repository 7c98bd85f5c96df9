"""A new run: open the data, plan, make the directory, train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from pellucid import checkpoint
from pellucid.checkpoint.weights import fill
from pellucid.errors import CheckpointError
from pellucid.model.stats import on_meta
from pellucid.runtime.console import message_console, told
from pellucid.runtime.device import choose_device
from pellucid.tokenizers import Tokenizer
from pellucid.train.config import RunConfig
from pellucid.train.hooks import Hook
from pellucid.train.opening import open_data, plan_run, preparing_progress
from pellucid.train.plan import Plan
from pellucid.train.rundir import RUNS, RunDirectory, environment
from pellucid.train.session import RunResult, Session, require_checkpoint_space


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
    with told(console, "pellucid.data.stream"):
        return _train(config, device=device, init=init, console=console, hooks=hooks)


def _train(
    config: RunConfig, *, device: str | None, init: Path | None, console: Console, hooks: Sequence[Hook]
) -> RunResult:
    data = open_data(config, progress=preparing_progress(console))
    plan, order = plan_run(config, data, choose_device(device))
    init = checkpoint.find_checkpoint(init)[0] if init else None
    weights = initial_weights(init, plan, data.tokenizer) if init else None
    require_checkpoint_space(plan, Path(config.run.dir) if config.run.dir else RUNS)
    run = RunDirectory.create(config)
    with run.alone():
        surroundings = environment(torch.get_num_threads(), plan.device.type)
        surroundings["data"] = data.shards.fingerprint
        run.write_environment({**surroundings, "init": str(init.absolute())} if init else surroundings)
        run.write_passport(data.shards.passport)
        run.write_config(plan.config)
        return Session.begin(run, plan, order, data, console, weights=weights).train(hooks)


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
