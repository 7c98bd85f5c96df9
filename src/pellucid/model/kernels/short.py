"""Causal attention for training on CPUs in bf16 over short sequences, by batched matrix products.

torch's fused CPU kernel saves memory, not time, at short lengths: in bf16, forward and backward together take
2 to 3.5 times as long as this up to T = 256, and as long at T = 512 (docs/experiments.md has the numbers).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

LONGEST = 512
"""Tokens up to which this is the faster kernel."""


def is_faster(q: Tensor, k: Tensor) -> bool:
    """Whether `short_attention` is the better kernel: training in bf16 on a CPU, T = S ≤ 512."""
    return (
        q.device.type == "cpu"
        and q.dtype == torch.bfloat16
        and torch.is_grad_enabled()
        and q.shape[2] == k.shape[2] <= LONGEST
    )


def short_attention(
    q: Float[Tensor, "B H T E"],
    k: Float[Tensor, "B K T E"],
    v: Float[Tensor, "B K T E"],
    *,
    scale: float,
) -> Float[Tensor, "B H T E"]:
    """softmax(q kᵀ · scale + causal mask) v; the probabilities [B, H, T, T] are kept for backward in q's dtype."""
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    return cast(Tensor, _ShortAttention.apply(q, k, v, scale))


class _ShortAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        time = q.shape[2]
        mask = torch.full((time, time), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
        p = F.softmax(torch.add(mask, q @ k.transpose(-1, -2), alpha=scale), dim=-1)
        ctx.save_for_backward(q, k, v, p)
        ctx.scale = scale
        return p @ v

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (of_output,) = gradients
        q, k, v, p = ctx.saved_tensors
        of_p = of_output @ v.transpose(-1, -2)
        # Through the softmax: dS = P * (dP - rowsum(P * dP)), in one fused pass.
        of_scores = torch.ops.aten._softmax_backward_data(of_p, p, -1, p.dtype) * ctx.scale
        return of_scores @ k, of_scores.transpose(-1, -2) @ q, p.transpose(-1, -2) @ of_output, None
