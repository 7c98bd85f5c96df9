"""Data parallelism: every process takes its share of a batch, and all of them get the gradient of the whole."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pellucid.data.loader import TensorBatch
from pellucid.losses import LinearCrossEntropy, LossSums
from pellucid.model import LanguageModel, Recompute
from pellucid.model.interface import Auxiliary
from pellucid.runtime.distributed import Processes


class Forward(nn.Module):
    """A micro-batch → its loss sums and side losses, as one module: what DistributedDataParallel can wrap."""

    def __init__(self, model: LanguageModel, loss: LinearCrossEntropy, recompute: Recompute) -> None:
        super().__init__()
        self.model, self.loss, self.recompute = model, loss, recompute

    def forward(self, micro: TensorBatch) -> tuple[LossSums, Auxiliary]:
        hidden = self.model.hidden(**micro.model_inputs(), recompute=self.recompute)
        sums = self.loss(
            hidden.states.flatten(0, 1),
            self.model.head_parameters(),
            micro.targets.flatten(),
            micro.weights.flatten(),
        )
        return sums, hidden.auxiliary


class ParallelForward:
    """`Forward`, after whose backward pass every process has the mean of all processes' gradients.

    Gradients are exchanged while the backward pass of a step's last micro-batch is under way, those of earlier
    ones being added up before. Alone, nothing is exchanged.
    Source: Li et al. 2020, arXiv:2006.15704.
    """

    def __init__(self, forward: Forward, processes: Processes) -> None:
        self._alone = forward
        self._together = None
        if processes.world > 1:
            # One block is one graph here: to cut it at the borders of gradient buckets would only cost.
            torch._dynamo.config.optimize_ddp = False
            self._together = DistributedDataParallel(forward, gradient_as_bucket_view=True)

    def __call__(self, micro: TensorBatch, *, is_last: bool) -> tuple[LossSums, Auxiliary]:
        if self._together is None:
            return self._alone(micro)
        if is_last:
            return cast(tuple[LossSums, Auxiliary], self._together(micro))
        with self._together.no_sync():  # what is decided in the forward pass holds for its backward pass
            return cast(tuple[LossSums, Auxiliary], self._together(micro))
