"""The classic feed-forward layer: up, GELU, down."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.config import Config


class MLP(nn.Module):
    """down(gelu(up(x))), with the tanh form of GELU that GPT-2 uses. Input and output: [..., D]; inside: [..., F].

    Source: Radford et al. 2019 (GPT-2); GELU: Hendrycks & Gimpel 2016, arXiv:1606.08415.
    """

    def __init__(self, d_model: int, d_ff: int, bias: bool = False) -> None:
        super().__init__()
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class GELUConfig(Config):
    """Plain feed-forward layer with GELU."""

    kind: Literal["gelu"] = "gelu"
    d_ff: int | None = Field(default=None, gt=0)
    """Width inside. Left out: 4 · d_model."""

    def build(self, d_model: int, *, bias: bool) -> MLP:
        return MLP(d_model, self.d_ff or 4 * d_model, bias=bias)
