"""Dropout whose rate may move while a run goes on, compiled or not."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DropoutRate:
    """With which probability a part of the model zeroes a value in training: a constant, unless `move` changes it.

    Compiled code would be built anew for every number it meets (and, after eight, no more), so there a rate that
    moves is a tensor, an input of the graph; everywhere else it is a plain number.
    Source: Liu et al. 2023, arXiv:2303.01500, who let it fall or rise over a run.
    """

    def __init__(self, rate: float) -> None:
        self.rate = self.initial_rate = rate
        self._moving_rate: Tensor | None = None

    def move(self, rate: float, device: torch.device) -> None:
        """Drop with this rate from now on."""
        self.rate = rate
        if self._moving_rate is None:
            self._moving_rate = torch.zeros((), device=device)
        self._moving_rate.fill_(rate)

    def now(self, *, training: bool) -> float | Tensor:
        """The rate: 0 outside training, a tensor [] where compiled code must not know the number."""
        if not training:
            return 0.0
        if self._moving_rate is not None and torch.compiler.is_compiling():
            return self._moving_rate
        return self.rate


def drop(x: Tensor, rate: float | Tensor) -> Tensor:
    """Zero each value with probability `rate`, divide the others by 1 - rate. [...] → [...].

    Source: Srivastava et al. 2014 (JMLR 15).
    """
    if isinstance(rate, Tensor):
        return torch.where(torch.rand(x.shape, device=x.device) >= rate, x / (1 - rate), 0.0)
    return F.dropout(x, rate) if rate else x


def move_dropout(model: nn.Module, final: float, progress: float) -> None:
    """Set every dropout rate of a model to where it is after a share `progress` (0 … 1) of the run.

    rate = initial + (final - initial) · progress, from each one's own initial rate.
    """
    device = next(model.parameters()).device
    for module in model.modules():
        if isinstance(dropout := getattr(module, "dropout", None), DropoutRate):
            dropout.move(dropout.initial_rate + (final - dropout.initial_rate) * progress, device)
