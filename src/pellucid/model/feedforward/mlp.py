"""The classic feed-forward layer: up, an activation, down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.config import Config

Activation = Callable[[Tensor], Tensor]
"""A function of each number alone."""


def gelu(x: Tensor) -> Tensor:
    """GELU, exact: x · Φ(x), with Φ(x) the share of a standard normal distribution that lies below x.

    Source: Hendrycks & Gimpel 2016, arXiv:1606.08415, sec. 2.
    """
    return F.gelu(x)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by tanh, within 0.0005 of the exact one: x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))).

    GPT-2 and T5 v1.1 were trained with it.  Source: Hendrycks & Gimpel 2016, arXiv:1606.08415, sec. 2.
    """
    return F.gelu(x, approximate="tanh")


def relu2(x: Tensor) -> Tensor:
    """ReLU, squared: max(x, 0)².  Source: So et al. 2021, arXiv:2109.08668 (Primer)."""
    return F.relu(x).square()


class MLP(nn.Module):
    """down(activation(up(x))). Input and output: [..., D]; inside: [..., F].

    Source: Vaswani et al. 2017, arXiv:1706.03762, sec. 3.3, with ReLU; the default, GELU by tanh, is that of
    Radford et al. 2019 (GPT-2).
    """

    def __init__(
        self, d_model: int, d_ff: int, activation: Activation = gelu_tanh, bias: bool = False
    ) -> None:
        super().__init__()
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)
        self.activation = activation

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        return self.down(self.activation(self.up(x)))


class GELUConfig(Config):
    """Plain feed-forward layer with GELU."""

    kind: Literal["gelu"] = "gelu"
    d_ff: int | None = Field(default=None, gt=0)
    """Width inside. Left out: 4 · d_model."""
    approximate: bool = True
    """Whether GELU is computed by tanh, as GPT-2 does. False: exact, as BERT does."""

    def build(self, d_model: int, *, bias: bool) -> MLP:
        return MLP(d_model, self.d_ff or 4 * d_model, gelu_tanh if self.approximate else gelu, bias=bias)


class ReLUConfig(Config):
    """Plain feed-forward layer with ReLU, max(x, 0): the first transformer's."""

    kind: Literal["relu"] = "relu"
    d_ff: int | None = Field(default=None, gt=0)
    """Width inside. Left out: 4 · d_model."""

    def build(self, d_model: int, *, bias: bool) -> MLP:
        return MLP(d_model, self.d_ff or 4 * d_model, F.relu, bias=bias)


class ReLU2Config(Config):
    """Plain feed-forward layer with squared ReLU, max(x, 0)²."""

    kind: Literal["relu2"] = "relu2"
    d_ff: int | None = Field(default=None, gt=0)
    """Width inside. Left out: 4 · d_model."""

    def build(self, d_model: int, *, bias: bool) -> MLP:
        return MLP(d_model, self.d_ff or 4 * d_model, relu2, bias=bias)
