"""LayerNorm: zero mean and unit variance."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.config import Config


class LayerNorm(nn.Module):
    """Zero mean and unit variance for each vector, then a learned gain and bias: (x - μ) / sqrt(σ² + eps) · g + b.

    σ² is the biased variance over d_model. Computed in float32 (float64 stays float64), returned in x's
    dtype. Input and output: [..., d_model].  Source: Ba, Kiros & Hinton 2016, arXiv:1607.06450, eq. 4.
    """

    def __init__(self, d_model: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model)) if bias else None
        self.eps = eps

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        wide = x if x.dtype == torch.float64 else x.float()
        bias = None if self.bias is None else self.bias.to(wide.dtype)
        return F.layer_norm(wide, self.gain.shape, self.gain.to(wide.dtype), bias, self.eps).to(x.dtype)


class LayerNormConfig(Config):
    """LayerNorm: mean and variance, with or without a bias."""

    kind: Literal["layernorm"] = "layernorm"
    eps: float = Field(default=1e-5, gt=0)
    """Added to the variance so that a constant vector stays finite."""
    bias: bool = True
    """Whether a learned bias is added after the gain."""

    def build(self, d_model: int) -> LayerNorm:
        return LayerNorm(d_model, eps=self.eps, bias=self.bias)
