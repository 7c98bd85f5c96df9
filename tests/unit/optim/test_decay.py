"""Which roles decay, and by how much."""

import pytest
import torch
from torch import nn

from pellucid.optim import AdafactorConfig, AdamWConfig, MuonConfig, ParameterGroup, SGDConfig

ROLES = ("embedding", "position", "matrix", "residual_matrix", "head", "gain", "bias")


@pytest.fixture
def groups() -> list[ParameterGroup]:
    shapes = {"gain": (3,), "bias": (3,)}
    return [ParameterGroup(r, {r: nn.Parameter(torch.ones(shapes.get(r, (3, 3))))}) for r in ROLES]


@pytest.mark.parametrize("config", [AdamWConfig, MuonConfig, AdafactorConfig, SGDConfig])
@pytest.mark.parametrize(
    ("words", "decayed"),
    [
        ({}, {"matrix", "residual_matrix", "head"}),
        ({"decayed_roles": ("embedding", "bias")}, {"embedding", "bias"}),
        ({"decayed_roles": ()}, set()),
    ],
)
def test_a_parameter_without_a_gradient_shrinks_where_its_role_decays(groups, config, words, decayed) -> None:
    """And by lr · decay, whatever the optimizer."""
    optimizer = config(weight_decay=0.5, **words).build(groups, lr=0.1)
    for group in groups:
        (parameter,) = group.parameters.values()
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for group in groups:
        (parameter,) = group.parameters.values()
        expected = 0.95 if group.role in decayed else 1.0
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, expected))
