"""RoPE: rotate each pair of query and key features by an angle proportional to the position."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from pellucid.config import Config
from pellucid.model.positions.base import Position


class RotaryPosition(Position):
    """Feature pairs (i, i + E/2) of q and k turn by position · theta^(-2i/E), so q·k depends only on distance.

    rotate(x) = x · cos + half_turn(x) · sin with half_turn([a, b]) = [-b, a]: the "half" layout of Llama's
    Hugging Face weights; the paper's own layout interleaves the pairs. Angles are computed in float32 (or
    in float64 for a float64 model), the product is returned in x's dtype. No parameters.
    Source: Su et al. 2021, arXiv:2104.09864, eq. 34.
    """

    def __init__(self, head_dim: int, theta: float = 10_000.0) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"RoPE turns pairs of features: head_dim must be even, not {head_dim}")
        self.head_dim, self.theta = head_dim, theta

    def angles(self, positions: Int[Tensor, " T"]) -> tuple[Float[Tensor, "T E"], Float[Tensor, "T E"]]:
        # float64 on the CPU costs nothing here and keeps angles exact at large positions; MPS has no float64.
        wide = torch.float32 if positions.device.type == "mps" else torch.float64
        pair = torch.arange(0, self.head_dim, 2, device=positions.device, dtype=wide)
        turns = torch.outer(positions.to(wide), self.theta ** (-pair / self.head_dim))
        turns = torch.cat((turns, turns), dim=-1)
        return turns.cos(), turns.sin()

    def rotate(
        self,
        x: Float[Tensor, "B heads T E"],
        angles: tuple[Float[Tensor, "T E"], Float[Tensor, "T E"]] | None,
    ) -> Float[Tensor, "B heads T E"]:
        assert angles is not None, "RotaryPosition.angles always gives angles"
        cos, sin = angles
        first, second = x.chunk(2, dim=-1)
        half_turn = torch.cat((-second, first), dim=-1)
        return (x * cos + half_turn * sin).to(x.dtype)


class RotaryPositionConfig(Config):
    """RoPE: q and k turn with their position."""

    kind: Literal["rope"] = "rope"
    theta: float = Field(default=10_000.0, gt=1)
    """Base of the geometric series of frequencies; larger ones reach further."""

    def build(self, d_model: int, head_dim: int, max_seq_len: int) -> RotaryPosition:
        del d_model, max_seq_len
        return RotaryPosition(head_dim, theta=self.theta)
