"""A GPT as people write it by hand in one file: learned positions, LayerNorm, GELU, no biases, a tied head.

An independent rebuild in plain PyTorch of the shape that nanoGPT trains, at any size.
Source: github.com/karpathy/nanoGPT (MIT), read for its choices; no line is taken from it.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Causal self-attention. [B, T, D] → [B, T, D]."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.queries_keys_values = nn.Linear(d_model, 3 * d_model, bias=False)
        self.residual_out = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.queries_keys_values(x).chunk(3, dim=-1)  # each [B, T, D]
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.residual_out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)), which is D → 4D, exact GELU, 4D → D."""

    def __init__(self, d_model: int, num_heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(d_model, bias=False)
        self.attention = Attention(d_model, num_heads)
        self.feed_forward_norm = nn.LayerNorm(d_model, bias=False)
        self.widen = nn.Linear(d_model, 4 * d_model, bias=False)
        self.residual_out = nn.Linear(4 * d_model, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.residual_out(F.gelu(self.widen(self.feed_forward_norm(x))))


class GPT(nn.Module):
    """ids and targets [B, T] → the mean cross-entropy, all logits at once."""

    def __init__(self, vocab_size: int, d_model: int, num_layers: int, num_heads: int, seq_len: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, d_model)
        self.positions = nn.Embedding(seq_len, d_model)
        self.blocks = nn.Sequential(*(Block(d_model, num_heads) for _ in range(num_layers)))
        self.norm = nn.LayerNorm(d_model, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                std = 0.02 / math.sqrt(2 * num_layers) if name.endswith("residual_out.weight") else 0.02
                nn.init.normal_(weight, std=std)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        logits = F.linear(self.norm(self.blocks(x)), self.tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())
