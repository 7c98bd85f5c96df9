"""Feed-forward layers with a gate: SwiGLU and GEGLU."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.config import Config
from pellucid.model.feedforward.mlp import Activation, gelu, gelu_tanh


class GatedMLP(nn.Module):
    """down(activation(gate(x)) · up(x)). Input and output: [..., D]; inside: [..., F].

    Three matrices where the classic layer has two, so F is usually 8/3 · D instead of 4 · D.
    Source: Shazeer 2020, arXiv:2002.05202, sec. 2.
    """

    def __init__(self, d_model: int, d_ff: int, activation: Activation, bias: bool = False) -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, d_ff, bias=bias)
        self.up = nn.Linear(d_model, d_ff, bias=bias)
        self.down = nn.Linear(d_ff, d_model, bias=bias)
        self.activation = activation

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        return self.down(self.activation(self.gate(x)) * self.up(x))


class SwiGLU(GatedMLP):
    """down(silu(gate(x)) · up(x)), with silu(z) = z · sigmoid(z).  Source: Shazeer 2020, arXiv:2002.05202, eq. 6."""

    def __init__(self, d_model: int, d_ff: int, bias: bool = False) -> None:
        super().__init__(d_model, d_ff, F.silu, bias=bias)


class GEGLU(GatedMLP):
    """down(gelu(gate(x)) · up(x)), by tanh unless told otherwise.  Source: Shazeer 2020, arXiv:2002.05202, eq. 6."""

    def __init__(self, d_model: int, d_ff: int, approximate: bool = True, bias: bool = False) -> None:
        super().__init__(d_model, d_ff, gelu_tanh if approximate else gelu, bias=bias)


def gated_width(d_model: int, num_parallel: int = 1) -> int:
    """The d_ff of a gated layer where none is given: 8/3 · d_model / num_parallel, rounded up to a multiple of 64.

    8/3 makes its three matrices together as large as the two of a classic layer that is 4 · d_model wide;
    `num_parallel` layers that are added up share that width.
    """
    return 64 * -(-8 * d_model // (3 * 64 * num_parallel))


class SwiGLUConfig(Config):
    """Gated feed-forward layer with SiLU."""

    kind: Literal["swiglu"] = "swiglu"
    d_ff: int | None = Field(default=None, gt=0)
    """Width inside. Left out: 8/3 · d_model, rounded up to a multiple of 64."""

    def build(self, d_model: int, *, bias: bool) -> SwiGLU:
        return SwiGLU(d_model, self.d_ff or gated_width(d_model), bias=bias)


class GEGLUConfig(Config):
    """Gated feed-forward layer with GELU."""

    kind: Literal["geglu"] = "geglu"
    d_ff: int | None = Field(default=None, gt=0)
    """Width inside. Left out: 8/3 · d_model, rounded up to a multiple of 64."""
    approximate: bool = True
    """Whether GELU is computed by tanh, as T5 v1.1 does. False: exact."""

    def build(self, d_model: int, *, bias: bool) -> GEGLU:
        return GEGLU(d_model, self.d_ff or gated_width(d_model), self.approximate, bias=bias)
