"""Causal self-attention with any grouping of key/value heads: MHA = GQA = MQA in one class."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.model.cache import KVCache
from pellucid.model.positions import Position
from pellucid.model.short_attention import is_faster, short_attention

Angles = tuple[Float[Tensor, "T E"], Float[Tensor, "T E"]] | None


class Attention(nn.Module):
    """softmax(q kᵀ / sqrt(E) + mask) v, with each of K key/value heads shared by H / K query heads.

    K = H is multi-head attention, K = 1 multi-query, between them grouped-query. Input and output [B, T, D].
    With a cache, T new positions attend to all S = length + T; without one, S = T.
    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1; grouping: Ainslie et al. 2023, arXiv:2305.13245.
    """

    def __init__(
        self, d_model: int, num_heads: int, num_kv_heads: int, head_dim: int, bias: bool = False
    ) -> None:
        super().__init__()
        if num_heads % num_kv_heads:
            raise ValueError(f"num_heads ({num_heads}) must be a multiple of num_kv_heads ({num_kv_heads})")
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        self.query = nn.Linear(d_model, num_heads * head_dim, bias=bias)
        self.key = nn.Linear(d_model, num_kv_heads * head_dim, bias=bias)
        self.value = nn.Linear(d_model, num_kv_heads * head_dim, bias=bias)
        self.output = nn.Linear(num_heads * head_dim, d_model, bias=bias)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        position: Position,
        angles: Angles = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "B T D"]:
        batch, time, _ = x.shape
        q = self.query(x).view(batch, time, self.num_heads, self.head_dim).transpose(1, 2)  # [B, H, T, E]
        k = self.key(x).view(batch, time, self.num_kv_heads, self.head_dim).transpose(1, 2)  # [B, K, T, E]
        v = self.value(x).view(batch, time, self.num_kv_heads, self.head_dim).transpose(1, 2)
        q, k = position.rotate(q, angles), position.rotate(k, angles)
        if cache is not None:
            k, v = cache.append(layer, k, v)  # [B, K, S, E]
            k, v = k.to(q.dtype), v.to(q.dtype)
        mixed = causal_attention(q, k, v)  # [B, H, T, E]
        return self.output(mixed.transpose(1, 2).reshape(batch, time, self.num_heads * self.head_dim))


def causal_attention(
    q: Float[Tensor, "B H T E"], k: Float[Tensor, "B K S E"], v: Float[Tensor, "B K S E"]
) -> Float[Tensor, "B H T E"]:
    """Attention in which query t stands at place S - T + t and sees the places up to its own.

    Computed by torch's scaled_dot_product_attention, which picks the kernel of the device, but for the one
    case where it is slow (see short_attention.py).
    """
    if is_faster(q, k):
        return short_attention(q, k, v)
    new, total = q.shape[2], k.shape[2]
    is_grouped = q.shape[1] != k.shape[1]
    if new == total:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=is_grouped)
    # One new position sees everything. Several after a cached prefix need the diagonal moved to the
    # right, which `is_causal` does not do (it aligns the first query with the first key).
    mask = None if new == 1 else _causal_mask(new, total, q.device)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=is_grouped)


def _causal_mask(new: int, total: int, device: torch.device) -> Bool[Tensor, "T S"]:
    return torch.ones(new, total, dtype=torch.bool, device=device).tril(diagonal=total - new)
