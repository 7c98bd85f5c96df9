"""How fast and how lean training is here: the run's own update and scoring, on random ids instead of data."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from pellucid.config import from_tree, override, to_tree
from pellucid.data.loader import TrainingLoader
from pellucid.data.objectives import Objective
from pellucid.errors import ConfigError
from pellucid.evaluate.scoring import score_windows
from pellucid.experiments.bench.peak import gemm_flops_per_s
from pellucid.experiments.bench.synthetic import plan_synthetic, synthetic_split
from pellucid.model import Transformer
from pellucid.model.dropout import move_dropout
from pellucid.model.stats import count_flops, count_parameters
from pellucid.runtime.device import Device
from pellucid.runtime.memory import peak_bytes
from pellucid.train.building import build_model, build_state, build_updater, make_deterministic, memory_policy
from pellucid.train.config import RunConfig
from pellucid.train.plan import Plan

WARMUP_STEPS = 3
"""Updates before the clock runs: kernels are built in the first, and what they assumed may be mended in the next."""

HALFWAY = 0.5
"""The share of the run after which a dropout that moves is timed: its rate is 0 there only if it always is."""


@dataclass(frozen=True)
class Row:
    """One thing that is measured: a run's update, or its scoring, with some keys of the config changed."""

    name: str
    overrides: tuple[str, ...] = ()
    is_forward_only: bool = False


ROWS = (
    Row("training"),
    Row("forward only", is_forward_only=True),
    Row("activation checkpointing", ("train.activation_checkpointing=full",)),
)


def find_row(name: str) -> Row:
    """Raises ConfigError for a name that is no row's."""
    for row in ROWS:
        if row.name == name:
            return row
    raise ConfigError(
        f"--only {name!r}: there is no such row; choose one of {', '.join(r.name for r in ROWS)}"
    )


@dataclass(frozen=True)
class TrainingSpeed:
    """What one row came to. Times are medians over the measured steps."""

    name: str
    tokens_per_s: float
    ms_per_step: float
    min_ms: float
    max_ms: float
    peak_rss_mib: float
    """The most memory of the process so far, torch's own included; on CUDA, of the GPU."""
    mfu: float
    """Model FLOP utilisation: FLOPs of matrix products that the model needs a second, by `gemm_flops_per_s`."""
    gemm_flops_per_s: float
    """The most that a matrix product of this dtype reached here, right after the steps."""
    flops_per_token: float
    first_step_s: float
    """The first step, for which kernels are built or fetched from torch's cache of earlier ones."""
    cpu_share: float
    """CPU time by wall time while steps were measured; below the number of threads, others held the machine up."""
    first_loss: float
    last_loss: float
    parameters: int
    dtype: str
    batch_tokens: int
    steps: int
    threads: int
    choices: Sequence[str]
    """What the plan decided for the user, a line each."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(config: RunConfig, device: Device, row: Row, *, steps: int = 8) -> TrainingSpeed:
    """Measure one row in this process, whose peak memory so far counts: start a fresh one for each.

    The plan is the one that `pellucid train` would make, and so are model, optimizer, loader and update; the
    ids are random and the same in every step, so a loss begins near ln V and falls. Raises ConfigError for what
    cannot be planned.
    """
    make_deterministic()
    config = from_tree(RunConfig, override(to_tree(config), row.overrides))
    plan, objective = plan_synthetic(config, device)
    model = build_model(plan)
    flops = count_flops(model, objective.decoder_len, objective.encoder_len)
    flops_per_token = (flops.forward if row.is_forward_only else flops.training) / plan.seq_len
    stepping = (_scoring if row.is_forward_only else _training)(plan, objective, model)
    with memory_policy(plan), stepping as step:
        clocked = _clock(step, steps)
    peak = peak_bytes(device.type)
    fastest = max(gemm_flops_per_s(plan.precision.dtype, device).values())
    median, tokens = statistics.median(clocked.seconds), config.train.batch_tokens
    return TrainingSpeed(
        name=row.name,
        tokens_per_s=tokens / median,
        ms_per_step=1e3 * median,
        min_ms=1e3 * min(clocked.seconds),
        max_ms=1e3 * max(clocked.seconds),
        peak_rss_mib=peak / 2**20,
        mfu=tokens / median * flops_per_token / fastest,
        gemm_flops_per_s=fastest,
        flops_per_token=flops_per_token,
        first_step_s=clocked.first_step_s,
        cpu_share=clocked.cpu_share,
        first_loss=clocked.losses[0],
        last_loss=clocked.losses[-1],
        parameters=count_parameters(model).total,
        dtype=plan.precision.name,
        batch_tokens=tokens,
        steps=steps,
        threads=torch.get_num_threads(),
        choices=plan.reasons,
    )


@dataclass(frozen=True)
class _Clocked:
    first_step_s: float
    seconds: Sequence[float]
    """Of the measured steps alone."""
    cpu_share: float
    losses: Sequence[float]
    """Of all steps."""


def _clock(step: Callable[[], float], steps: int) -> _Clocked:
    began = time.perf_counter()
    losses = [step()]
    first_step_s = time.perf_counter() - began
    losses += [step() for _ in range(1, WARMUP_STEPS)]
    cpu, marks = time.process_time(), [time.perf_counter()]
    for _ in range(steps):
        losses.append(step())
        marks.append(time.perf_counter())
    cpu_share = (time.process_time() - cpu) / (marks[-1] - marks[0])
    return _Clocked(first_step_s, [end - start for start, end in pairwise(marks)], cpu_share, losses)


@contextmanager
def _training(plan: Plan, objective: Objective, model: Transformer) -> Generator[Callable[[], float]]:
    """Whole updates, the waiting for their batches included. Each returns its loss."""
    train, split = plan.config.train, synthetic_split(plan)
    state = build_state(plan, model)
    update = build_updater(plan, model, state)

    def step() -> float:
        if train.final_dropout is not None:
            move_dropout(model, train.final_dropout, HALFWAY)
        outcome = update(loader.step(state.step), train.lr * train.schedule.factor(state.step, 0.0))
        if state.average is not None and outcome.status == "updated":
            state.average.update()
        return outcome.loss

    with TrainingLoader(
        split,
        objective.order(split, seed=train.seed),
        objective=objective,
        batch_windows=plan.batch_windows,
        micro_batch=plan.micro_batch,
        device=plan.device.torch,
    ) as loader:
        yield step


@contextmanager
def _scoring(plan: Plan, objective: Objective, model: Transformer) -> Generator[Callable[[], float]]:
    """The evaluation's forward pass over the batch of one update. Each returns the mean loss."""
    split = synthetic_split(plan)
    windows = objective.order(split, seed=plan.config.train.seed).step(0, plan.batch_windows)
    batches = [
        objective.batch(split, windows[start : start + plan.micro_batch])
        for start in range(0, len(windows), plan.micro_batch)
    ]

    def score() -> float:
        losses = [losses for _, losses in score_windows(model, batches, plan.precision)]
        return float(np.concatenate(losses).mean(dtype=np.float64))

    yield score
