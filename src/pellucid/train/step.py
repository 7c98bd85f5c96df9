"""One update: forward and backward over the micro-batches, clip, optimizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pellucid.data.loader import TensorBatch
from pellucid.errors import TrainingError
from pellucid.losses import LinearCrossEntropy
from pellucid.model import LanguageModel, Recompute
from pellucid.runtime.precision import Precision
from pellucid.runtime.seeding import seed_torch
from pellucid.train.state import TrainState


@dataclass(frozen=True)
class Updater:
    """Turns a batch into an update.

    The loss is a sum over the whole batch divided by its whole weight, so that k micro-batches give the
    gradient of one large batch, whatever is masked in each.
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

    def __call__(self, batch: Sequence[TensorBatch], lr: float) -> tuple[float, float]:
        """Update the weights once; returns (mean loss in nats a token, gradient norm before clipping).

        Raises TrainingError, with the weights as they were, when the loss or the gradient is not finite.
        """
        state, scaler = self.state, self.state.scaler
        weight = sum((micro.weights.sum() for micro in batch), start=torch.zeros(()).to(batch[0].weights))
        total = torch.zeros((), dtype=torch.float64 if weight.device.type != "mps" else torch.float32)
        total = total.to(weight.device)
        for index, micro in enumerate(batch):
            seed_torch(self.seed, "dropout", state.step, index)
            with self.precision.autocast():
                hidden = self.model.hidden(**micro.model_inputs(), recompute=self.recompute)
                loss_sum, _ = self.loss(
                    hidden.states.flatten(0, 1),
                    self.model.head_parameters(),
                    micro.targets.flatten(),
                    micro.weights.flatten(),
                )
            total += loss_sum.detach()
            loss = loss_sum / weight
            for side_sum, side_weight in hidden.auxiliary.values():
                loss = loss + side_sum / (side_weight * len(batch))
            (scaler.scale(loss) if scaler else loss).backward()
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        if scaler:
            scaler.unscale_(state.optimizer)
        norm = clip_gradients(self.parameters(), self.grad_clip)
        mean_loss, norm_value = (total / weight).item(), norm.item()
        # With a scaler, a gradient that overflowed is expected now and then: the scaler skips that update.
        if not math.isfinite(mean_loss) or (scaler is None and not math.isfinite(norm_value)):
            state.optimizer.zero_grad(set_to_none=True)
            raise TrainingError(
                f"step {state.step + 1}: the loss is {mean_loss} and the gradient norm {norm_value}; the weights "
                f"were left as they were. Lower train.lr (it was {lr:.2e} here) or set train.precision=fp32"
            )
        if scaler:
            scaler.step(state.optimizer)
            scaler.update()
        else:
            state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.tokens += sum(len(micro.inputs) for micro in batch) * self.window_tokens
        return mean_loss, norm_value

    def parameters(self) -> list[nn.Parameter]:
        return [p for p in self.state.model.parameters() if p.grad is not None]


def clip_gradients(parameters: Sequence[nn.Parameter], largest: float) -> Tensor:
    """Scale all gradients together so that their norm is at most `largest`; returns the norm before."""
    return nn.utils.clip_grad_norm_(parameters, largest)
