"""A linear layer whose weight gradient is computed the way the CPU's matrix units like it."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Linear):
    """x · weightᵀ + bias, [..., in] → [..., out], as `torch.nn.Linear`.

    contiguous_gradient: the weight's gradient gᵀ x is multiplied with gᵀ written out first, under autocast. oneDNN
    multiplies a transposed left factor in bf16 at half the speed of a contiguous one (docs/experiments.md).
    """

    contiguous_gradient = False

    def forward(self, input: Float[Tensor, "*N in"]) -> Float[Tensor, "*N out"]:  # noqa: A002
        kind = input.device.type
        if self.contiguous_gradient and torch.is_grad_enabled() and torch.is_autocast_enabled(kind):
            y = cast(Tensor, _ContiguousGradient.apply(input, self.weight, torch.get_autocast_dtype(kind)))
            bias = cast(Tensor | None, self.bias)
            return y if bias is None else y + bias.to(y.dtype)
        return F.linear(input, self.weight, self.bias)


class _ContiguousGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        narrow_x, narrow_weight = x.to(dtype), weight.to(dtype)
        ctx.save_for_backward(narrow_x, narrow_weight)
        ctx.dtypes = x.dtype, weight.dtype
        return narrow_x @ narrow_weight.T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (of_y,) = gradients
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, _ = ctx.needs_input_grad
        of_x = (of_y @ weight).to(ctx.dtypes[0]) if wants_x else None
        if not wants_weight:
            return of_x, None, None
        rows = of_y.reshape(-1, of_y.shape[-1])
        of_weight = rows.T.contiguous() @ x.reshape(-1, x.shape[-1])
        return of_x, of_weight.to(ctx.dtypes[1]), None
