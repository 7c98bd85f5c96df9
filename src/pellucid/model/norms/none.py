"""No norm: the vector as it is."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from pellucid.config import Config


class NoNorm(nn.Module):
    """x, without any change and without parameters: to see what a norm is good for, by leaving it out.

    Input and output: [..., d_model]. Without norms the residual stream grows from block to block, and deep
    models train only with smaller learning rates.
    """

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        return x


class NoNormConfig(Config):
    """No norm: the vector as it is."""

    kind: Literal["none"] = "none"

    def build(self, d_model: int) -> NoNorm:
        del d_model
        return NoNorm()
