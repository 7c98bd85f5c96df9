"""Which parameters are updated alike, decided by their role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class ParameterGroup:
    """The parameters of one role, by name: they share the optimizer's settings."""

    role: str
    parameters: Mapping[str, nn.Parameter]

    @property
    def nbytes(self) -> int:
        """Bytes of its weights."""
        return sum(parameter.nbytes for parameter in self.parameters.values())


def group_by_role(model: nn.Module, roles: Mapping[str, str]) -> list[ParameterGroup]:
    """A group for each role that the model has, each in the model's own order.  roles: by parameter name."""
    grouped: dict[str, dict[str, nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        grouped.setdefault(roles[name], {})[name] = parameter
    return [ParameterGroup(role, parameters) for role, parameters in grouped.items()]
