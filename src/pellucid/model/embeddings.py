"""Token ids → vectors, and vectors → logits through the same table or a free one."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


class TokenEmbedding(nn.Module):
    """table[ids]: [B, T] → [B, T, D]. As a tied head, the same table gives logits = states · tableᵀ.

    Source of tying: Press & Wolf 2017, arXiv:1608.05859.
    """

    def __init__(self, vocab_size: int, d_model: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(vocab_size, d_model).normal_(std=0.02))

    def forward(self, input_ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        return F.embedding(input_ids, self.table)
