"""The moving average of the weights: smoother than any single update's, and what is scored and sampled."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pellucid.errors import ResumeError


class WeightAverage:
    """An exponential moving average of a model's weights, in float32 beside them.

        average ← d · average + (1 - d) · weights,   d = min(decay, (1 + t) / (10 + t))

    t is the number of updates averaged before this one. The early, smaller d makes the average forget the initial
    weights, which it starts from; with decay 0.999 that warm-up lasts 9,000 updates.
    Source: Polyak & Juditsky 1992 (averaging of iterates); the warm-up is that of TensorFlow's
    `ExponentialMovingAverage(num_updates=t)`.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._parameters: list[Tensor] = list(model.parameters())
        self._names = [name for name, _ in model.named_parameters()]
        self._averages = [p.detach().to(torch.float32, copy=True) for p in self._parameters]
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights in."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._averages, self._parameters, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        self.updates += 1

    @contextmanager
    def swapped(self) -> Generator[None]:
        """The model has the averaged weights inside, and its own again after: the same memory, not a copy of it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for index, parameter in enumerate(self._parameters):
            self._averages[index], parameter.data = parameter.data, self._averages[index]

    def tensors(self) -> dict[str, Tensor]:
        """The averaged weights by the names of the model's parameters."""
        return dict(zip(self._names, self._averages, strict=True))

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Go on from a checkpoint's average. Raises ResumeError when it is of another model."""
        for name, average in self.tensors().items():
            if name not in tensors or tensors[name].shape != average.shape:
                raise ResumeError(
                    f"the checkpoint's averaged weights are of another model: {name} does not fit"
                )
            average.copy_(tensors[name])
        self.updates = updates
