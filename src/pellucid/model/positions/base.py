"""The one protocol of every position scheme: two hooks, each doing nothing unless a scheme says otherwise."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn


class Position(nn.Module):
    """How a model knows where a token stands. Override the hooks that the scheme uses.

    `positions` are the integer places [T] of the tokens in their sequence, cached ones counted.
    """

    def embed(self, x: Float[Tensor, "B T D"], positions: Int[Tensor, " T"]) -> Float[Tensor, "B T D"]:
        """Change the token embeddings before the first block."""
        del positions
        return x

    def angles(
        self, positions: Int[Tensor, " T"]
    ) -> tuple[Float[Tensor, "T E"], Float[Tensor, "T E"]] | None:
        """Cosines and sines that `rotate` uses, computed once a forward pass; None for schemes without rotation."""
        del positions
        return None

    def rotate(
        self,
        x: Float[Tensor, "B heads T E"],
        angles: tuple[Float[Tensor, "T E"], Float[Tensor, "T E"]] | None,
    ) -> Float[Tensor, "B heads T E"]:
        """Change queries and keys inside attention."""
        del angles
        return x
