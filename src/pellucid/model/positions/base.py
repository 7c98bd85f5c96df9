"""The one protocol of every position scheme: up to three hooks, each doing nothing unless a scheme says otherwise."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Angles = tuple[Float[Tensor, "*B T R"], Float[Tensor, "*B T R"]] | None
"""Cosines and sines of the R features of a head that turn; None for schemes without rotation."""


class Position(nn.Module):
    """How a model knows where a token stands. Override the hooks that the scheme uses.

    `positions` are the integer places of the tokens in their sequence, cached ones counted: [T] where every
    row has the same, [B, T] where each has its own (padded prompts, packed documents).
    """

    def embed(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, "*B T"]) -> Float[Tensor, "B T D"]:
        """Hook 1: change the token embeddings before the first block."""
        del positions
        return x

    def angles(self, positions: Int[Tensor, "*B T"]) -> Angles:
        """What `rotate` uses, computed once a forward pass."""
        del positions
        return None

    def rotate(self, x: Float[Tensor, "B heads T E"], angles: Angles) -> Float[Tensor, "B heads T E"]:
        """Hook 2: change queries and keys inside attention."""
        del angles
        return x

    def bias(
        self, query_positions: Int[Tensor, "*B T"], key_positions: Int[Tensor, "*B S"]
    ) -> Float[Tensor, "*B H T S"] | None:
        """Hook 3: what is added to the scores of every layer, computed once a forward pass."""
        del query_positions, key_positions
        return None


def exact_dtype(device: torch.device) -> torch.dtype:
    """What angles and distances are computed in: float64 costs little here and is exact at large positions.

    MPS has no float64.
    """
    return torch.float32 if device.type == "mps" else torch.float64
