"""RMSNorm: scale to unit root-mean-square."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.config import Config
from pellucid.model import native


class RMSNorm(nn.Module):
    """Scale each vector to unit root-mean-square, then by a learned gain: x / sqrt(mean(x²) + eps) · g.

    Unlike LayerNorm it subtracts no mean and has no bias. Computed in float32 (float64 stays float64),
    returned in x's dtype. Input and output: [..., d_model].
    Source: Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4.
    """

    def __init__(self, d_model: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(d_model))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        if native.can_normalise(x, self.gain):
            return native.rms_norm(x, self.gain, self.eps)
        wide = x if x.dtype == torch.float64 else x.float()
        return F.rms_norm(wide, self.gain.shape, self.gain.to(wide.dtype), self.eps).to(x.dtype)


class RMSNormConfig(Config):
    """RMSNorm: no mean, no bias."""

    kind: Literal["rmsnorm"] = "rmsnorm"
    eps: float = Field(default=1e-6, gt=0)
    """Added to the mean square so that a zero vector stays finite."""

    def build(self, d_model: int) -> RMSNorm:
        return RMSNorm(d_model, eps=self.eps)
