"""Muon over many matrices at once: those of one shape are multiplied together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the Newton-Schulz step, by Jordan et al. 2024, kellerjordan.github.io/posts/muon: singular values end near 1."""
_EPSILON = 1e-7
_AT_ONCE = 1 << 22
"""Numbers of matrices that are multiplied together: more save no time, and take memory."""

Pairs = list[tuple[Tensor, Tensor]]


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
            by_shape: dict[tuple[int, int], Pairs] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rows, columns = parameter.shape[-2:]
                    matrices = (
                        parameter.view(-1, rows, columns),
                        self._moving(parameter).view(-1, rows, columns),
                    )
                    by_shape[rows, columns] += zip(*matrices, strict=True)
            for shape, pairs in by_shape.items():
                rate = group["lr"] * 0.2 * math.sqrt(max(shape))
                for some in _pieces(pairs, max(1, _AT_ONCE // math.prod(shape))):
                    updates = orthogonal(torch.stack([moving for _, moving in some]), self._ns_steps)
                    for (weight, _), update in zip(some, updates, strict=True):
                        weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)

    def _moving(self, parameter: Tensor) -> Tensor:
        """The running mean of gradients, which moves by this one; with Nesterov's look ahead."""
        gradient = parameter.grad
        assert gradient is not None
        held = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
        held.lerp_(gradient, 1 - self._momentum)
        return gradient.lerp(held, self._momentum) if self._nesterov else held


def orthogonal(matrices: Tensor, steps: int) -> Tensor:
    """[X, m, n] → nearly UVᵀ of each UΣVᵀ, in bf16, by so many Newton-Schulz steps."""
    a, b, c = _COEFFICIENTS
    x = matrices.bfloat16()
    is_tall = x.shape[-2] > x.shape[-1]
    x = x.mT if is_tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=_EPSILON)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def _pieces(pairs: Pairs, length: int) -> Iterator[Pairs]:
    return (pairs[start : start + length] for start in range(0, len(pairs), length))
