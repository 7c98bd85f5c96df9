"""T5's relative positions: a learned bias for each head and each bucket of distances."""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.config import Config
from pellucid.model.positions.base import Position


class T5Position(Position):
    """score(i, j) + table[bucket(j - i), head], one table for all layers.

    Of n buckets, the first n/2 hold the distances 0, 1, …, n/2 - 1, one each; the others grow in width by a
    constant factor and hold those up to max_distance, the last one everything beyond:

        bucket(d) = n/2 + floor(ln(d / (n/2)) / ln(max_distance / (n/2)) · n/2)    for d ≥ n/2

    A causal scheme spends all num_buckets on what lies behind; with `is_causal` False half of them are for keys
    at or before the query and half for those after it. Unlike T5 itself, scores here are divided by sqrt(E)
    unless attention is told otherwise.  Raises ValueError for numbers that leave no bucket for larger distances.
    Source: Raffel et al. 2020, arXiv:1910.10683, sec. 2.1; the buckets: Mesh TensorFlow,
    transformer_layers.py, `_relative_position_bucket`.
    """

    def __init__(
        self, num_heads: int, num_buckets: int = 32, max_distance: int = 128, is_causal: bool = True
    ) -> None:
        super().__init__()
        _check_buckets(num_buckets, max_distance)
        self.num_buckets, self.max_distance, self.is_causal = num_buckets, max_distance, is_causal
        self.table = nn.Parameter(torch.empty(num_buckets, num_heads).normal_(std=0.02))

    def buckets(
        self, query_positions: Int[Tensor, "*B T"], key_positions: Int[Tensor, "*B S"]
    ) -> Int[Tensor, "*B T S"]:
        """The row of the table for each pair of query and key."""
        ahead = key_positions[..., None, :] - query_positions[..., :, None]  # above 0: after the query
        if self.is_causal:
            return self._bucket((-ahead).clamp(min=0), self.num_buckets)
        half = self.num_buckets // 2
        return self._bucket(ahead.abs(), half) + half * (ahead > 0)

    def _bucket(self, distance: Int[Tensor, "*B T S"], count: int) -> Int[Tensor, "*B T S"]:
        exact = count // 2
        # float32 and T5's own order of operations: a distance at the edge of a bucket must not move by rounding.
        share = (distance.clamp(min=exact).float() / exact).log() / math.log(self.max_distance / exact)
        wider = exact + (share * (count - exact)).long()
        return torch.where(distance < exact, distance, wider.clamp(max=count - 1))

    def bias(
        self, query_positions: Int[Tensor, "*B T"], key_positions: Int[Tensor, "*B S"]
    ) -> Float[Tensor, "*B H T S"]:
        rows = F.embedding(self.buckets(query_positions, key_positions), self.table)  # [*B, T, S, H]
        return rows.movedim(-1, -3).contiguous()  # CUDA's fused kernels want the keys of a query side by side


def _check_buckets(num_buckets: int, max_distance: int) -> None:
    if num_buckets < 4 or num_buckets % 2:
        raise ValueError(f"num_buckets must be an even number from 4 on, not {num_buckets}")
    if max_distance <= num_buckets // 2:
        raise ValueError(
            f"max_distance ({max_distance}) must be more than half of num_buckets ({num_buckets}), which hold "
            "one distance each; raise max_distance or lower num_buckets"
        )


class T5PositionConfig(Config):
    """T5's relative positions: a learned bias for each head and each bucket of distances."""

    kind: Literal["t5"] = "t5"
    num_buckets: int = Field(default=32, ge=4)
    """Rows of the table; even: half for single small distances, half for ranges of larger ones."""
    max_distance: int = Field(default=128, gt=0)
    """Distances from here on share the last bucket; more than num_buckets / 2."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_buckets(self.num_buckets, self.max_distance)
        return self

    def build(
        self, *, d_model: int, num_heads: int, head_dim: int, max_seq_len: int, is_causal: bool
    ) -> T5Position:
        del d_model, head_dim, max_seq_len
        return T5Position(num_heads, self.num_buckets, self.max_distance, is_causal=is_causal)
