"""SwiGLU: a feed-forward layer with a gate."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.config import Config


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)), with silu(z) = z · sigmoid(z). Input and output: [..., D]; inside: [..., F].

    Three matrices where the classic layer has two, so F is usually 8/3 · D instead of 4 · D.
    Source: Shazeer 2020, arXiv:2002.05202, eq. 6.
    """

    def __init__(self, d_model: int, d_ff: int, bias: bool = False) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, d_ff, bias=bias)
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class SwiGLUConfig(Config):
    """Gated feed-forward layer with SiLU."""

    kind: Literal["swiglu"] = "swiglu"
    d_ff: int | None = Field(default=None, gt=0)
    """Width inside. Left out: 8/3 · d_model, rounded up to a multiple of 64."""

    def build(self, d_model: int, *, bias: bool) -> SwiGLU:
        return SwiGLU(d_model, self.d_ff or 64 * -(-8 * d_model // (3 * 64)), bias=bias)
