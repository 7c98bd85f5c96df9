"""ALiBi: each head's scores fall in a straight line with the distance."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.config import Config
from pellucid.model.positions.base import Position, exact_dtype


class AlibiPosition(Position):
    """score(i, j) - slope · (i - j), with one fixed slope a head; |i - j| where attention looks both ways.

    For H a power of two, slopes are 2^(-8/H), 2^(-16/H), …, 2^(-8): steep heads look near, flat ones far. For
    another H they are those of the largest power of two n below it, followed by every other one of 2 n's, as in
    the authors' code. No parameters, and any length can be read. Keys after the query have a bonus under
    `is_causal`; the mask hides them.  The bias is float64 (float32 on MPS).
    Source: Press, Smith & Lewis 2022, arXiv:2108.12409, sec. 3; slopes for any H: github.com/ofirpress/
    attention_with_linear_biases, `get_slopes`.
    """

    def __init__(self, num_heads: int, is_causal: bool = True) -> None:
        super().__init__()
        self.num_heads, self.is_causal = num_heads, is_causal

    def slopes(self, device: torch.device) -> Float[Tensor, " H"]:
        """One slope a head. Computed where it is used: a stored table would be lost by a build on meta."""
        whole = 2 ** int(math.log2(self.num_heads))
        head = torch.arange(self.num_heads, device=device, dtype=exact_dtype(device))
        between = (2 * (head - whole) + 1) / (2 * whole)  # 1/2n, 3/2n, …: every other slope of 2 n heads
        return 2.0 ** (-8 * torch.where(head < whole, (head + 1) / whole, between))

    def bias(
        self, query_positions: Int[Tensor, "*B T"], key_positions: Int[Tensor, "*B S"]
    ) -> Float[Tensor, "*B H T S"]:
        distance = query_positions[..., :, None] - key_positions[..., None, :]  # [*B, T, S]
        if not self.is_causal:
            distance = distance.abs()
        return -self.slopes(distance.device)[:, None, None] * distance[..., None, :, :]


class AlibiPositionConfig(Config):
    """ALiBi: each head's scores fall with the distance, by a fixed slope."""

    kind: Literal["alibi"] = "alibi"

    def build(
        self, *, d_model: int, num_heads: int, head_dim: int, max_seq_len: int, is_causal: bool
    ) -> AlibiPosition:
        del d_model, head_dim, max_seq_len
        return AlibiPosition(num_heads, is_causal=is_causal)
