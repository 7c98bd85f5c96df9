"""RoPE: rotate each pair of query and key features by an angle proportional to the position."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from pellucid.config import Config
from pellucid.model.positions.base import Angles, Position, exact_dtype
from pellucid.model.positions.rope_scaling import NoScaling, RopeScaling


def rotated_features(head_dim: int, fraction: float) -> int:
    """R, how many of a head's features turn. Raises ValueError unless fraction · head_dim is an even number."""
    rotated = round(head_dim * fraction)
    if abs(rotated - head_dim * fraction) > 1e-6 or rotated % 2 or rotated < 2:
        raise ValueError(
            f"RoPE turns pairs of features: fraction ({fraction:g}) · head_dim ({head_dim}) must be an even number "
            f"from 2 on, not {head_dim * fraction:g}; change position.fraction, or head_dim (d_model / num_heads)"
        )
    return rotated


class RotaryPosition(Position):
    """Feature pairs (i, i + R/2) of q and k turn by position · theta^(-2i/R), so q·k depends only on distance.

    rotate(x) = x · cos + half_turn(x) · sin with half_turn([a, b]) = [-b, a]: the "half" layout of Llama's
    Hugging Face weights; the paper's own layout interleaves the pairs. R = fraction · E: the first R features
    of a head turn, the others pass as they are. `scaling` changes the frequencies theta^(-2i/R), to read
    further than in training (rope_scaling.py). Angles are computed in float64 (float32 on MPS) and given as
    they are; the product is returned in x's dtype. No parameters.
    Raises ValueError unless R is even and enough for `scaling`.
    Source: Su et al. 2021, arXiv:2104.09864, eq. 34; a part of the head: Black et al. 2022, arXiv:2204.06745.
    """

    def __init__(
        self,
        head_dim: int,
        theta: float = 10_000.0,
        fraction: float = 1.0,
        scaling: RopeScaling = NoScaling(),  # noqa: B008 - a frozen value
    ) -> None:
        super().__init__()
        self.head_dim, self.rotated = head_dim, rotated_features(head_dim, fraction)
        scaling.check(self.rotated)
        self.theta, self.scaling = theta, scaling

    def frequencies(self, device: torch.device) -> Float[Tensor, " pairs"]:
        """Radians that each pair turns from one place to the next, highest first."""
        pair = torch.arange(0, self.rotated, 2, device=device, dtype=exact_dtype(device))
        return self.scaling.scale(self.theta ** (-pair / self.rotated), self.theta)

    def angles(
        self, positions: Int[Tensor, "*B T"]
    ) -> tuple[Float[Tensor, "*B T R"], Float[Tensor, "*B T R"]]:
        frequencies = self.frequencies(positions.device)
        turns = positions[..., None].to(frequencies.dtype) * frequencies
        turns = torch.cat((turns, turns), dim=-1)
        return turns.cos() * self.scaling.magnitude, turns.sin() * self.scaling.magnitude

    def rotate(self, x: Float[Tensor, "B heads T E"], angles: Angles) -> Float[Tensor, "B heads T E"]:
        assert angles is not None, "RotaryPosition.angles always gives angles"
        cos, sin = angles
        if cos.dim() == 3:  # [B, T, R]: a row each, the same for all heads
            cos, sin = cos[:, None], sin[:, None]
        turning, resting = x[..., : self.rotated], x[..., self.rotated :]
        first, second = turning.chunk(2, dim=-1)
        half_turn = torch.cat((-second, first), dim=-1)
        turned = (turning * cos + half_turn * sin).to(x.dtype)
        return torch.cat((turned, resting), dim=-1) if self.rotated < self.head_dim else turned


class RotaryPositionConfig(Config):
    """RoPE: q and k turn with their position."""

    kind: Literal["rope"] = "rope"
    theta: float = Field(default=10_000.0, gt=1)
    """Base of the geometric series of frequencies; larger ones reach further."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of each head's features that turn; fraction · head_dim must be an even number."""
    scaling: RopeScaling = NoScaling()
    """How the frequencies change so that the model reads further than it was trained."""

    def build(
        self, *, d_model: int, num_heads: int, head_dim: int, max_seq_len: int, is_causal: bool
    ) -> RotaryPosition:
        del d_model, num_heads, max_seq_len, is_causal
        return RotaryPosition(head_dim, self.theta, self.fraction, self.scaling)
