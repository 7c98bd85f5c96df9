"""Muon for stacks of matrices: the experts of a mixture, each a matrix of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class StackedMuon(torch.optim.Optimizer):
    """torch's Muon, which takes matrices only, over each matrix of parameters [X, m, n].

    `settings` are torch.optim.Muon's. State: momentum_buffer [X, m, n].
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, **settings: Any) -> None:
        super().__init__(groups, {"lr": lr})
        self._settings = settings

    def step(self, closure: Any = None) -> Any:
        """Update once. Takes no closure."""
        assert closure is None
        for group in self.param_groups:
            gradients: dict[nn.Parameter, torch.Tensor] = {}
            buffers: dict[nn.Parameter, torch.Tensor] = {}
            for stack in group["params"]:
                if stack.grad is None:
                    continue
                held = self.state[stack].setdefault("momentum_buffer", torch.zeros_like(stack))
                matrices = [
                    nn.Parameter(matrix) for matrix in stack.detach()
                ]  # views: weights change in place
                gradients |= zip(matrices, stack.grad, strict=True)
                buffers |= zip(matrices, held, strict=True)
            if not gradients:
                continue
            muon = torch.optim.Muon(
                gradients, lr=group["lr"], weight_decay=group["weight_decay"], **self._settings
            )
            for matrix, gradient in gradients.items():
                matrix.grad = gradient
                muon.state[matrix] = {"momentum_buffer": buffers[matrix]}
            muon.step()
