"""Token ids → vectors."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


class TokenEmbedding(nn.Module):
    """table[ids]: [B, T] → [B, T, D], times sqrt(D) where `scaled`. As a tied head, the same table gives
    logits.

    Source: Press & Wolf 2017, arXiv:1608.05859 (tying); Vaswani et al. 2017, sec. 3.4 (scaling).
    """

    def __init__(self, vocab_size: int, d_model: int, *, scaled: bool = False) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(vocab_size, d_model).normal_(std=0.02))
        self.factor = math.sqrt(d_model) if scaled else None

    def forward(self, input_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        x = F.embedding(input_ids, self.table)
        return x if self.factor is None else x * self.factor

    def logits(self, states: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows V"]:
        """As a tied head: how well each row of the table fits."""
        return F.linear(states, self.table)

    @property
    def device(self) -> torch.device:
        return self.table.device

    @property
    def cache_dtype(self) -> torch.dtype:
        """What keys and values are kept in unless said otherwise: the weights' own."""
        return self.table.dtype
