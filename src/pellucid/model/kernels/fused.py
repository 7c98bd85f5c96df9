"""torch's fused attention (`scaled_dot_product_attention`), which picks the kernel of the device."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pellucid.model.kernels.context import AttentionContext


def sdpa(
    q: Float[Tensor, "B H T E"],
    k: Float[Tensor, "B K S E"],
    v: Float[Tensor, "B K S E"],
    context: AttentionContext,
    *,
    scale: float,
    dropout: float = 0.0,
) -> Float[Tensor, "B H T E"]:
    """The same function as reference_attention without a soft-cap; the scores are never all in memory."""
    queries, keys = q.shape[2], k.shape[2]
    is_triangle = context.mask.is_plain and context.mask.is_causal and context.bias is None
    # Its own `is_causal` aligns the first query with the first key: right only where T = S.
    is_causal = is_triangle and 1 < queries == keys
    mask = None if is_causal else context.seen(queries, keys, q.device)
    if context.bias is not None:
        bias = context.bias.to(q.dtype)
        mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
        mask = mask if mask.dim() == 4 else mask[None]
    return F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )
