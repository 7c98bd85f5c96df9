"""AdamW: Adam with weight decay applied to the weights, not to the gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field

from pellucid.optim.decay import Decay
from pellucid.optim.groups import ParameterGroup


class AdamWSettings(Decay):
    """AdamW's keys, for itself and for the optimizers that leave a part of the model to it."""

    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Memory of AdamW's running mean of gradients."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """Memory of AdamW's running mean of squared gradients."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to AdamW's denominator."""
    fused: bool = True
    """Whether AdamW's arithmetic is one kernel. On a CPU the other way is a Python loop, four times slower."""

    def build_adamw(self, groups: Sequence[ParameterGroup], lr: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            [self.settings(group, "adamw") for group in groups],
            lr=lr,
            betas=(self.beta1, self.beta2),
            eps=self.eps,
            fused=self.fused,
        )


class AdamWConfig(AdamWSettings):
    """AdamW.

    w ← w - lr · (m̂ / (sqrt(v̂) + eps) + decay · w), m̂ and v̂ the bias-corrected running means of g and g².
    Source: Loshchilov & Hutter 2017, arXiv:1711.05101.
    """

    kind: Literal["adamw"] = "adamw"

    def build(self, groups: Sequence[ParameterGroup], lr: float) -> torch.optim.Optimizer:
        return self.build_adamw(groups, lr)

    def state_bytes(self, groups: Sequence[ParameterGroup]) -> int:
        """Twice the weights: m and v."""
        return 2 * sum(group.nbytes for group in groups)
