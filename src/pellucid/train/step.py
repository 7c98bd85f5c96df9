"""One update: forward and backward over the micro-batches, clip, optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from pellucid.data.loader import TensorBatch
from pellucid.losses import LinearCrossEntropy
from pellucid.model import LanguageModel, Recompute
from pellucid.runtime.distributed import ALONE, Processes
from pellucid.runtime.precision import Precision
from pellucid.runtime.seeding import seed_torch
from pellucid.train.parallel import Forward, ParallelForward
from pellucid.train.state import TrainState


@dataclass(frozen=True)
class Outcome:
    """What came of one batch."""

    loss: float
    """Mean cross-entropy in nats a token, without smoothing and side losses."""
    grad_norm: float
    """Norm of all gradients together, before clipping."""
    status: Literal["updated", "overflow", "not finite"]
    """overflow: the gradient scaler had scaled too far, as now and then is expected, and has come down. not finite:
    the loss or the gradient is at fault. In both cases weights and optimizer are as they were.
    """


def go_on() -> None:
    """What is called while working where nothing interrupts."""


@dataclass(frozen=True)
class Updater:
    """Turns a batch into an update.

    The loss is a sum over the whole batch divided by its whole weight, so that k micro-batches give the
    gradient of one large batch, whatever is masked in each; the mean over processes that the gradients end as is
    made up for in that weight.
    """

    state: TrainState
    model: LanguageModel
    loss: LinearCrossEntropy
    precision: Precision
    grad_clip: float
    recompute: Recompute
    seed: int
    window_tokens: int
    """Ids of the text that a row of a batch was cut from, whatever part of them is an input or a target."""

    while_working: Callable[[], None] = go_on
    """Called before each micro-batch. What it raises leaves the update undone, and everything as it was."""
    processes: Processes = ALONE
    """Those that train together: each one's batch is its share, loss and gradient are those of all shares."""

    def __call__(self, batch: Sequence[TensorBatch], lr: float) -> Outcome:
        """Update the weights once, where the loss and the gradient are finite. The step counts in any case."""
        return self.apply(batch, self.gradients(batch), lr)

    def apply(self, batch: Sequence[TensorBatch], mean_loss: Tensor, lr: float) -> Outcome:
        """The second half of an update: clip and use what `gradients` has left of this batch."""
        state, scaler = self.state, self.state.scaler
        for group in state.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        if scaler:
            scaler.unscale_(state.optimizer)
        norm = clip_gradients(self.parameters(), self.grad_clip)
        # The one place of an update that waits for the device: weights that such numbers would spoil are not touched.
        loss, norm_value = torch.stack((mean_loss, norm.to(mean_loss.dtype))).tolist()
        status: Literal["updated", "overflow", "not finite"] = "updated"
        if not math.isfinite(loss):
            status = "not finite"
        elif not math.isfinite(norm_value):
            status = "overflow" if scaler else "not finite"
        if status == "updated":
            scaler.step(state.optimizer) if scaler else state.optimizer.step()
        if scaler:
            scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        windows = sum(len(micro.inputs) for micro in batch) * self.processes.world
        state.tokens += windows * self.window_tokens
        return Outcome(loss, norm_value, status)

    def gradients(self, batch: Sequence[TensorBatch]) -> Tensor:
        """Leave the gradient of the batch in the parameters (scaled, with a scaler); returns its mean loss.

        Where it cannot be finished, no gradient is left.
        """
        try:
            return self._gradients(batch)
        except BaseException:
            self.state.optimizer.zero_grad(set_to_none=True)
            raise

    def _gradients(self, batch: Sequence[TensorBatch]) -> Tensor:
        state, scaler = self.state, self.state.scaler
        weight = sum((micro.weights.sum() for micro in batch), start=batch[0].weights.new_zeros(()))
        weight = self.processes.sum(weight)
        total = weight.new_zeros((), dtype=torch.float64 if weight.device.type != "mps" else torch.float32)
        for index, micro in enumerate(batch):
            self.while_working()
            seed_torch(self.seed, "dropout", state.step, self.processes.rank * len(batch) + index)
            with self.precision.autocast():
                sums, auxiliary = self.forward(micro, is_last=index == len(batch) - 1)
            total += sums.cross_entropy
            loss = sums.objective / (weight / self.processes.world)
            for side_sum, side_weight in auxiliary.values():
                loss = loss + side_sum / (side_weight * len(batch))
            (scaler.scale(loss) if scaler else loss).backward()
        return self.processes.sum(total) / weight

    @cached_property
    def forward(self) -> ParallelForward:
        return ParallelForward(Forward(self.model, self.loss, self.recompute), self.processes)

    def parameters(self) -> list[nn.Parameter]:
        return [p for p in self.state.model.parameters() if p.grad is not None]


def clip_gradients(parameters: Sequence[nn.Parameter], largest: float) -> Tensor:
    """Scale all gradients together so that their norm is at most `largest`; returns the norm before.

    As `torch.nn.utils.clip_grad_norm_`, but on a CPU, where looking costs nothing, gradients that are short enough are
    not multiplied by one.
    """
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if norm.device.type != "cpu" or largest / (norm + 1e-6) < 1:
        nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return norm
