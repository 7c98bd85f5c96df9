"""Weight decay by role: the keys that every optimizer has, and the settings of torch's parameter groups."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from pellucid.config import Config
from pellucid.optim.groups import ParameterGroup

DECAYED_ROLES = ("matrix", "residual_matrix", "head")
"""Weight decay pulls matrices towards zero. Gains, biases and tables of vectors are left alone: decaying
them changes what a token or a norm means, not how much it is used."""


class Decay(Config):
    """What an optimizer pulls towards zero, and how hard."""

    weight_decay: float = Field(default=0.1, ge=0)
    """Decay of the decayed roles, as a share of the learning rate."""
    decayed_roles: tuple[str, ...] = DECAYED_ROLES
    """Roles of parameters that decay: of matrix, residual_matrix, head, embedding, position, gain, bias."""

    def settings(self, group: ParameterGroup, method: str, *, lr_scale: float = 1.0) -> dict[str, Any]:
        """A parameter group as torch's optimizers take it.

        Besides torch's own keys it has `role` and `method` for the report, and `lr_scale`, by which whoever sets
        `lr` multiplies the schedule's rate.
        """
        return {
            "params": list(group.parameters.values()),
            "weight_decay": self.weight_decay if group.role in self.decayed_roles else 0.0,
            "role": group.role,
            "method": method,
            "lr_scale": lr_scale,
        }
