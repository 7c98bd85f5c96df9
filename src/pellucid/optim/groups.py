"""Which parameters are updated alike, decided by their role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

DECAYED_ROLES = frozenset({"matrix", "residual_matrix", "head"})
"""Weight decay pulls matrices towards zero. Gains, biases and tables of vectors are left alone: decaying
them changes what a token or a norm means, not how much it is used."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share the optimizer's settings, by name."""

    parameters: Mapping[str, nn.Parameter]
    is_decayed: bool


def group_by_role(model: nn.Module, roles: Mapping[str, str]) -> list[ParameterGroup]:
    """Two groups, with and without decay, each in the model's own order."""
    named = dict(model.named_parameters())
    return [
        ParameterGroup({n: p for n, p in named.items() if (roles[n] in DECAYED_ROLES) == decayed}, decayed)
        for decayed in (True, False)
    ]
