"""Muon over many matrices at once: those of one shape are multiplied together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from pellucid.runtime.device import cpu_has_bf16

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the Newton-Schulz step, by Jordan et al. 2024, kellerjordan.github.io/posts/muon: singular values end near 1."""
_EPSILON = 1e-7
_AT_ONCE = 1 << 22
"""Numbers of matrices that are multiplied together; a larger matrix goes alone. More save no time, and take memory."""

_Matrix = tuple[Tensor, Tensor, Tensor]
"""A weight, its gradient and the running mean of its gradients."""


class BatchedMuon(torch.optim.Optimizer):
    """torch.optim.Muon with `match_rms_adamw`, of matrices [m, n] and of stacks [X, m, n], each matrix for itself.

    torch's own takes matrix after matrix, which in small models takes three times as long (docs/experiments.md), and
    no stacks. It rounds a little differently. State: momentum_buffer, shaped as the parameter.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, *, momentum: float, nesterov: bool, ns_steps: int
    ) -> None:
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0})
        self._momentum, self._nesterov, self._ns_steps = momentum, nesterov, ns_steps

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update once. Takes no closure."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[_Matrix]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rows, columns = parameter.shape[-2:]
                    three = (parameter, parameter.grad, self._mean_gradient(parameter))
                    by_shape[rows, columns] += zip(
                        *(each.view(-1, rows, columns) for each in three), strict=True
                    )
            for shape, matrices in by_shape.items():
                rate = group["lr"] * 0.2 * math.sqrt(max(shape))
                length = max(1, _AT_ONCE // math.prod(shape))
                for first in range(0, len(matrices), length):
                    some = matrices[first : first + length]
                    for (weight, _, _), update in zip(some, self._updates(some), strict=True):
                        weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)

    def _mean_gradient(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]

    def _updates(self, matrices: list[_Matrix]) -> Tensor:
        """[X, m, n] for X matrices, whose mean gradients move by the new ones first."""
        for _, gradient, mean in matrices:
            mean.lerp_(gradient, 1 - self._momentum)
        moving = torch.stack([mean for _, _, mean in matrices])
        if self._nesterov:
            moving = torch.stack([gradient for _, gradient, _ in matrices]).lerp_(moving, self._momentum)
        return orthogonal(moving, self._ns_steps)


def orthogonal(matrices: Tensor, steps: int) -> Tensor:
    """[X, m, n] → nearly UVᵀ of each UΣVᵀ, by so many Newton-Schulz steps: in bf16, which is enough for them, but on
    CPUs that can only imitate it.
    """
    a, b, c = _COEFFICIENTS
    is_narrow = matrices.device.type != "cpu" or cpu_has_bf16()
    x = matrices.to(torch.bfloat16 if is_narrow else torch.float32)
    is_tall = x.shape[-2] > x.shape[-1]
    x = x.mT if is_tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=_EPSILON)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x
