"""Attention as it is written in the papers: every score is computed, masked, and normalised. To read and to compare."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.model.dropout import drop
from pellucid.model.interface import soft_cap
from pellucid.model.kernels.context import AttentionContext


def attention_weights(
    q: Float[Tensor, "B H T E"],
    k: Float[Tensor, "B K S E"],
    context: AttentionContext,
    *,
    scale: float,
    softcap: float | None = None,
) -> Float[Tensor, "B H T S"]:
    """softmax(cap(q kᵀ · scale) + bias + mask), in q's dtype; the softmax itself in float32 at least.

    A query that sees no key has weight 0 everywhere.
    """
    scores = (q @ _for_each_query_head(k, q).transpose(-1, -2)) * scale
    if softcap is not None:
        scores = soft_cap(scores, softcap)
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if context.bias is not None:
        scores = scores + context.bias.to(scores.dtype)
    seen = context.seen(q.shape[2], k.shape[2], q.device)
    if seen is None:
        return scores.softmax(dim=-1).to(q.dtype)
    weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)
    # softmax over nothing is 0 / 0
    return weights.masked_fill(~seen.any(dim=-1, keepdim=True), 0).to(q.dtype)


def reference_attention(
    q: Float[Tensor, "B H T E"],
    k: Float[Tensor, "B K S E"],
    v: Float[Tensor, "B K S E"],
    context: AttentionContext,
    *,
    scale: float,
    softcap: float | None = None,
    dropout: float | Tensor = 0.0,
) -> Float[Tensor, "B H T E"]:
    """attention_weights · v, with dropout on the weights.  Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1."""
    weights = attention_weights(q, k, context, scale=scale, softcap=softcap)
    return drop(weights, dropout) @ _for_each_query_head(v, q)


def _for_each_query_head(
    x: Float[Tensor, "B K S E"], q: Float[Tensor, "B H T E"]
) -> Float[Tensor, "B H S E"]:
    groups = q.shape[1] // x.shape[1]
    return x if groups == 1 else x.repeat_interleave(groups, dim=1)
