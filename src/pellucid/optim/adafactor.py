"""Adafactor: squared gradients remembered by rows and columns alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pellucid.optim.decay import Decay
from pellucid.optim.groups import ParameterGroup

_EPS = 1e-16
"""Least root of the estimate v, whose square float32 can hold: ids that were never seen have gradients of exactly 0.
torch's own default, 1.2e-7, also bounds the mean of g² from below, and clipped gradients of a model with millions of
parameters lie under that."""


class AdafactorConfig(Decay):
    """Adafactor as torch has it: no momentum, and of g² [m, n] only m + n running means. The state is almost nothing.

    u = g / sqrt(v), v the outer product of the means by rows and columns, their memory 1 - step^beta2_decay;
    w ← w - max(least_scale, RMS(w)) · min(lr, 1 / sqrt(step)) · u / max(1, RMS(u) / clip_threshold).
    So train.lr is relative to the size of the weights: 0.01 is the paper's.
    Source: Shazeer & Stern 2018, arXiv:1804.04235, algorithms 4 and 5.
    """

    kind: Literal["adafactor"] = "adafactor"
    beta2_decay: float = Field(default=-0.8, lt=0)
    """Exponent by which the memory of squared gradients grows with the steps."""
    least_scale: float = Field(default=1e-3, gt=0)
    """What stands for the size of weights that are smaller, so that zeros can leave zero."""
    clip_threshold: float = Field(default=1.0, ge=1)
    """Largest RMS of a parameter's update before the rate; longer ones are scaled down to it."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decay of the decayed roles, as a share of the learning rate."""

    def build(self, groups: Sequence[ParameterGroup], lr: float) -> torch.optim.Optimizer:
        return torch.optim.Adafactor(
            [self.settings(group, "adafactor") for group in groups],
            lr=lr,
            beta2_decay=self.beta2_decay,
            eps=(_EPS, self.least_scale),
            d=self.clip_threshold,
        )

    def state_bytes(self, groups: Sequence[ParameterGroup]) -> int:
        """A mean for each row and each column of a matrix, and for each number of a vector."""
        return sum(_kept(parameter) for group in groups for parameter in group.parameters.values())


def _kept(parameter: Tensor) -> int:
    if parameter.dim() == 1:
        return parameter.nbytes
    return parameter.nbytes // parameter.shape[-1] + parameter.nbytes // parameter.shape[-2]
