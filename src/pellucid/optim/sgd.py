"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import torch
from pydantic import Field, model_validator

from pellucid.optim.decay import Decay
from pellucid.optim.groups import ParameterGroup


class SGDConfig(Decay):
    """SGD by torch's fused kernel: the yardstick, and the leanest.

    b ← momentum · b + (g + decay · w);  w ← w - lr · b, or with Nesterov's w - lr · (g + decay · w + momentum · b).
    The decay is a part of the gradient (L2), unlike AdamW's. Its rates are of another size (0.5 where AdamW has
    0.002), and transformers still learn slower by it.  Source: Sutskever et al. 2013, ICML, sec. 2.
    """

    kind: Literal["sgd"] = "sgd"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Memory of the running sum of gradients; 0 keeps no state at all."""
    nesterov: bool = False
    """Whether the update looks one step of momentum ahead."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Decay of the decayed roles, added to their gradient."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError(
                "nesterov looks ahead by the momentum, and momentum is 0; set it, or nesterov=false"
            )
        return self

    def build(self, groups: Sequence[ParameterGroup], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            [self.settings(group, "sgd") for group in groups],
            lr=lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            fused=True,
        )

    def state_bytes(self, groups: Sequence[ParameterGroup]) -> int:
        """As much as the weights (b), or nothing."""
        return sum(group.nbytes for group in groups) if self.momentum else 0
