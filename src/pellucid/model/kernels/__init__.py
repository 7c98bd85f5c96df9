"""How attention is computed: one function, several kernels that agree. Read in this order: reference → fused.

`auto` takes torch's fused attention, but for what it cannot do (a soft-cap: FlexAttention on CUDA, else the
reference) and for the two cases where it is slow: training over short sequences (short.py), and one query
a row on CPUs (pellucid.model.native).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.model import native
from pellucid.model.kernels.context import AttentionContext
from pellucid.model.kernels.flex import block_mask, flex
from pellucid.model.kernels.fused import sdpa
from pellucid.model.kernels.reference import attention_weights, reference_attention
from pellucid.model.kernels.short import is_faster, short_attention

Kernel = Literal["auto", "sdpa", "flex", "reference"]


def attend(
    q: Float[Tensor, "B H T E"],
    k: Float[Tensor, "B K S E"],
    v: Float[Tensor, "B K S E"],
    context: AttentionContext,
    *,
    scale: float,
    softcap: float | None = None,
    dropout: float | Tensor = 0.0,
    kernel: Kernel = "auto",
) -> Float[Tensor, "B H T E"]:
    """softmax(cap(q kᵀ · scale) + bias + mask) v, each of K key/value heads serving H / K query heads.

    Keys and values may come in a cache's narrower dtype.
    A dropout rate that is a tensor, which fused kernels do not take, is the reference's.
    """
    if (
        kernel == "auto"
        and not isinstance(dropout, Tensor)
        and not dropout
        and native.can_attend_one(q, k, v)
    ):
        seen = context.seen(1, k.shape[2], q.device)
        return native.attend_one(q, k, v, scale=scale, softcap=softcap, seen=seen, bias=context.bias)
    k, v = k.to(q.dtype), v.to(q.dtype)
    if kernel == "flex" or (kernel == "auto" and context.blocks is not None):
        return flex(q, k, v, context, scale=scale, softcap=softcap)
    if kernel == "reference" or softcap is not None or isinstance(dropout, Tensor):
        return reference_attention(q, k, v, context, scale=scale, softcap=softcap, dropout=dropout)
    is_triangle = context.mask.is_plain and context.mask.is_causal and context.bias is None and not dropout
    if kernel == "auto" and is_triangle and is_faster(q, k):
        return short_attention(q, k, v, scale=scale)
    return sdpa(q, k, v, context, scale=scale, dropout=dropout)


def wants_blocks(
    kernel: Kernel,
    device: torch.device,
    *,
    is_plain: bool,
    has_bias: bool,
    softcap: float | None,
    dropout: float,
) -> bool:
    """Whether FlexAttention will be the kernel: as asked, or on CUDA where the fused one would need a dense mask.

    A bias, which is a dense tensor here in any case, and dropout, which FlexAttention has not, stay with the others.
    """
    if kernel != "auto":
        return kernel == "flex"
    return device.type == "cuda" and not has_bias and not dropout and (softcap is not None or not is_plain)


__all__ = ["AttentionContext", "Kernel", "attend", "attention_weights", "block_mask", "wants_blocks"]
