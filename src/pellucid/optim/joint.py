"""Several optimizers, each with its own parameters, as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class JointOptimizer(torch.optim.Optimizer):
    """Steps its parts one after another.

    `param_groups` are the parts' own, so that a rate set here is theirs; `state` is one mapping that they share, to be
    changed in place.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = tuple(parts)
        for part in parts:
            part.state = self.state

    def step(self, closure: Any = None) -> Any:
        """Update once. Takes no closure: a part would evaluate it after another had moved its weights."""
        if closure is not None:
            raise ValueError("JointOptimizer.step takes no closure; compute the gradients before it")
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: Any) -> None:
        """Refused: it would put a new mapping here, and the parts would go on with theirs."""
        del state_dict
        raise NotImplementedError("change JointOptimizer.state in place, as TrainState.restore does")
