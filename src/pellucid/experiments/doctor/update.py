"""One training update, as the run's own code makes it, against plain torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pellucid.data.batch import Origin
from pellucid.data.loader import TensorBatch
from pellucid.losses import LinearCrossEntropy
from pellucid.model import DecoderLM
from pellucid.runtime.precision import Precision
from pellucid.train.config import TrainConfig
from pellucid.train.numerics import (
    TOLERANCE_FP32,
    TOLERANCE_NARROW,
    Comparison,
    Pass,
    relative_error,
    tiny_ids,
)
from pellucid.train.optimizer import build_optimizer
from pellucid.train.state import TrainState
from pellucid.train.step import Updater
from pellucid.train.techniques import Techniques

_TILE_IDS = 32
"""Fewer than the tiny model's 101 ids, so that there are several tiles, the last one incomplete."""
_LR = 0.1
"""Large beside the weights, so that what the optimizer adds to them is not lost in their rounding."""


def compare_updates(
    precision: Precision, plain: Pass, build: Callable[[], DecoderLM]
) -> tuple[Comparison, ...]:
    """In float32, and in the precision that a run here would use where that is another.

    Gradients by the loss and the linear layers of training against those of `plain`: logits, F.cross_entropy and
    F.linear in float32. The optimizer's step against torch's own loop over parameters with the same gradients.
    """
    fp32 = replace(precision, name="fp32", tf32=False)
    wanted = [fp32] if precision.name == "fp32" else [fp32, precision]
    return tuple(comparison for each in wanted for comparison in _compare(each, plain, build))


def _compare(
    precision: Precision, plain: Pass, build: Callable[[], DecoderLM]
) -> tuple[Comparison, Comparison]:
    updater = _updater(precision, build())
    parameters = list(updater.state.model.parameters())
    batch = [_batch(precision.device.torch)]
    mean_loss = updater.gradients(batch)
    gradients = [_gradient(parameter) for parameter in parameters]
    before = [parameter.detach().clone() for parameter in parameters]
    updater.apply(batch, mean_loss, _LR)
    given = dict(zip(parameters, zip(before, gradients, strict=True), strict=True))
    expected = _plain_step(updater.state.optimizer, given)
    steps = zip(parameters, before, (expected[parameter] for parameter in parameters), strict=True)
    tolerance = TOLERANCE_FP32 if precision.name == "fp32" else TOLERANCE_NARROW
    return (
        Comparison(
            f"gradients, a training update in {precision.name} against plain torch in fp32",
            max(
                relative_error(found.cpu().double(), wanted)
                for found, wanted in zip(gradients, plain.gradients, strict=True)
            ),
            tolerance,
        ),
        Comparison(
            f"weights, the optimizer's step after {precision.name} against torch's plain one",
            max(relative_error(found.detach() - old, new - old) for found, old, new in steps),
            TOLERANCE_FP32,
        ),
    )


def _updater(precision: Precision, model: DecoderLM) -> Updater:
    """As a session builds it for a config that leaves every choice open, but for the size of a tile and without a
    gradient scaler, which tiny gradients need as little as a single pass does.
    """
    model = model.to(precision.device.torch)
    techniques = Techniques().resolved(precision.device)
    return Updater(
        state=TrainState(model, build_optimizer(model, TrainConfig(steps=1)), None),
        model=model,
        loss=LinearCrossEntropy(tile_ids=_TILE_IDS if techniques.tiled_loss else None),
        precision=precision,
        grad_clip=1e9,  # not reached: clipping would hide a gradient's size
        recompute="none",
        seed=0,
        window_tokens=tiny_ids().shape[1],
    )


def _batch(device: torch.device) -> TensorBatch:
    """The ids of `run_pass`, each row learned but for its first id."""
    ids = tiny_ids().to(device)
    inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    return TensorBatch(inputs, targets, torch.ones(inputs.shape, device=device), Origin.of([]))


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.clone()


def _plain_step(
    optimizer: torch.optim.Optimizer, before: dict[Any, tuple[Tensor, Tensor]]
) -> dict[Any, Tensor]:
    """The weights after AdamW's step as torch's loop makes it, from (weight, gradient) of each parameter."""
    copies: dict[Any, Tensor] = {}
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            weight, gradient = before[parameter]
            copies[parameter] = weight.clone().requires_grad_()
            copies[parameter].grad = gradient
        own = {
            "params": [copies[parameter] for parameter in group["params"]],
            "fused": False,
            "foreach": False,
        }
        groups.append({**group, **own})
    torch.optim.AdamW(groups, fused=False, foreach=False).step()
    return {parameter: copy.detach() for parameter, copy in copies.items()}
