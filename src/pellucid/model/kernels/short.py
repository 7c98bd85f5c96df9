"""Causal attention for training on CPUs in bf16 over short sequences, by batched matrix products.

torch's fused CPU kernel saves memory, not time, at short lengths: in bf16 its backward pass takes eight times its
forward pass, and both together two to three times as long as this up to T = 512 (docs/experiments.md has the
numbers). The whole is opaque to torch.compile, whose own masked softmax takes five times as long as torch's.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

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
    heads = [x.flatten(0, 1).contiguous() for x in (q * scale, k, v)]
    return _forward(*heads)[0].unflatten(0, q.shape[:2])


@torch.library.custom_op("pellucid::short_attention", mutates_args=())
def _forward(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """q, k, v [N, T, E] of N = B·H heads → (output [N, T, E], probabilities [N, T, T])."""
    time = q.shape[1]
    mask = torch.full((time, time), -torch.inf, dtype=q.dtype, device=q.device).triu_(1)
    p = torch.baddbmm(mask, q, k.transpose(1, 2)).softmax(dim=-1)
    return torch.bmm(p, v), p


@torch.library.custom_op("pellucid::short_attention_backward", mutates_args=())
def _backward(of_output: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    of_v = torch.bmm(p.transpose(1, 2), of_output)
    of_p = torch.bmm(of_output, v.transpose(1, 2))
    # Through the softmax: dS = P * (dP - rowsum(P * dP)), in one fused pass.
    of_scores = torch.ops.aten._softmax_backward_data(of_p, p, -1, p.dtype)
    return torch.bmm(of_scores, k), torch.bmm(of_scores.transpose(1, 2), q), of_v


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(v), q.new_empty(q.shape[0], q.shape[1], k.shape[1])


@_backward.register_fake
def _(of_output: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    del of_output, p
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])


def _differentiate(ctx: Any, of_output: Tensor, of_p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    del of_p  # the probabilities leave this file nowhere
    return _backward(of_output.contiguous(), *ctx.saved_tensors)


_forward.register_autograd(_differentiate, setup_context=_save)
