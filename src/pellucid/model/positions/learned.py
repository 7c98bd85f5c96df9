"""Learned positions: one trained vector a place, added to the token embedding."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pellucid.config import Config
from pellucid.model.positions.base import Position


class LearnedPosition(Position):
    """x + table[position]. The table has max_seq_len rows, so nothing beyond that length can be read.

    Source: Radford et al. 2018 (GPT), sec. 3.1.
    """

    def __init__(self, d_model: int, max_seq_len: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(max_seq_len, d_model).normal_(std=0.02))

    def embed(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "*B T"]) -> Float[Tensor, "B T D"]:
        return x + self.table[positions].to(x.dtype)


class LearnedPositionConfig(Config):
    """One trained vector for each place."""

    kind: Literal["learned"] = "learned"

    def build(
        self, *, d_model: int, num_heads: int, head_dim: int, max_seq_len: int, is_causal: bool
    ) -> LearnedPosition:
        del num_heads, head_dim, is_causal
        return LearnedPosition(d_model, max_seq_len)
