"""Sinusoidal positions: a fixed vector a place, of sines and cosines, added to the token embedding."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pellucid.config import Config
from pellucid.model.positions.base import Position, exact_dtype


class SinusoidalPosition(Position):
    """x + wave(position), wave(p)[2i] = sin(p · 10000^(-2i/D)), wave(p)[2i + 1] = cos(p · 10000^(-2i/D)).

    Nothing is learned or stored, so any length can be read; the wave at p + k is a rotation of the wave at p.
    Its features lie in [-1, 1], far above freshly drawn embeddings (deviation 0.02): the paper scales those by
    sqrt(D), which is `scale_embeddings` here. Computed in float64 and added in x's dtype.
    Source: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.5.
    """

    def embed(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "*B T"]) -> Float[Tensor, "B T D"]:
        wide, d_model = exact_dtype(positions.device), x.shape[-1]
        pair = torch.arange(0, d_model, 2, device=positions.device, dtype=wide)
        turns = positions[..., None].to(wide) * 10_000.0 ** (-pair / d_model)
        waves = torch.stack((turns.sin(), turns.cos()), dim=-1).flatten(-2)  # sines and cosines take turns
        return x + waves[..., :d_model].to(x.dtype)  # an odd D leaves the last cosine out


class SinusoidalPositionConfig(Config):
    """A fixed wave of sines and cosines, added to the embedding of each place."""

    kind: Literal["sinusoidal"] = "sinusoidal"

    def build(
        self, *, d_model: int, num_heads: int, head_dim: int, max_seq_len: int, is_causal: bool
    ) -> SinusoidalPosition:
        del d_model, num_heads, head_dim, max_seq_len, is_causal
        return SinusoidalPosition()
