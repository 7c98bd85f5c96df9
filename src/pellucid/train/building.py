"""A plan's parts, built: model, training state, update, and the settings of the process that they run in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from pellucid.checkpoint.store import SMALL_FILES_BYTES
from pellucid.checkpoint.weights import fill
from pellucid.losses import LinearCrossEntropy
from pellucid.model import Transformer
from pellucid.model.stats import on_meta
from pellucid.runtime.allocator import freed_memory_kept
from pellucid.runtime.distributed import ALONE, Processes
from pellucid.runtime.files import require_space
from pellucid.train.averaging import WeightAverage
from pellucid.train.optimizer import build_optimizer, count_training_state
from pellucid.train.plan import Plan
from pellucid.train.state import TrainState
from pellucid.train.step import Updater, go_on
from pellucid.train.techniques import LOSS_TILE


def require_checkpoint_space(plan: Plan, path: Path) -> None:
    """Raise StorageError unless `path`'s disk has room for one checkpoint of the planned run."""
    size = count_training_state(on_meta(plan.config.model), plan.config.train)
    needed_bytes = size.weights + size.average + size.optimizer + SMALL_FILES_BYTES
    require_space(path, needed_bytes, purpose="the first checkpoint")


def memory_policy(plan: Plan) -> AbstractContextManager[None]:
    """In which a planned run trains."""
    return freed_memory_kept() if plan.config.train.techniques.kept_memory else nullcontext()


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


def build_state(plan: Plan, model: Transformer) -> TrainState:
    """The planned optimizer and gradient scaler around a model, before the first update."""
    train = plan.config.train
    return TrainState(
        model,
        build_optimizer(model, train),
        plan.precision.gradient_scaler(),
        average=None if train.weight_average is None else WeightAverage(model, train.weight_average),
    )


def build_updater(
    plan: Plan,
    model: Transformer,
    state: TrainState,
    processes: Processes = ALONE,
    while_working: Callable[[], None] = go_on,
) -> Updater:
    """What turns the plan's batches into updates."""
    train = plan.config.train
    return Updater(
        state=state,
        model=model,
        loss=LinearCrossEntropy(
            train.label_smoothing,
            train.z_loss,
            tile_ids=LOSS_TILE if train.techniques.tiled_loss else None,
            compiled=plan.compiled,
        ),
        precision=plan.precision,
        grad_clip=train.grad_clip,
        recompute=train.activation_checkpointing,
        seed=train.seed,
        window_tokens=plan.seq_len,
        processes=processes,
        while_working=while_working,
    )


CUBLAS_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""The environment variable, and its value, with which cuBLAS sums in a fixed order. Read when it is first used."""


def make_deterministic() -> None:
    """Ask torch for kernels whose result does not depend on timing, wherever it has them."""
    os.environ.setdefault(*CUBLAS_WORKSPACE)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would also fill every new tensor with NaN, at a price; nothing here reads memory before writing it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
