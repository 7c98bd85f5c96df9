import pytest
import torch
from torch import nn

from pellucid.config import from_tree
from pellucid.errors import ConfigError
from pellucid.optim import ParameterGroup, SGDConfig

GRADIENTS = (2.0, -1.0, 0.5)


def weights_after(config: SGDConfig) -> list[float]:
    """One number, from 3, at rate 0.1, over the gradients above."""
    weight = nn.Parameter(torch.tensor([[3.0]]))
    optimizer = config.build([ParameterGroup("matrix", {"weight": weight})], lr=0.1)
    found: list[float] = []
    for gradient in GRADIENTS:
        weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        found.append(weight.item())
    return found


@pytest.mark.parametrize("nesterov", [False, True])
def test_updates_are_the_formula(nesterov: bool) -> None:
    weight, running, expected = 3.0, 0.0, list[float]()
    for gradient in GRADIENTS:
        pulled = gradient + 0.2 * weight
        running = 0.9 * running + pulled
        weight -= 0.1 * (pulled + 0.9 * running if nesterov else running)
        expected.append(weight)
    assert weights_after(SGDConfig(nesterov=nesterov, weight_decay=0.2)) == pytest.approx(expected, rel=1e-6)


def test_without_momentum_it_keeps_nothing() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    groups, config = [ParameterGroup("matrix", {"weight": weight})], SGDConfig(momentum=0)
    optimizer = config.build(groups, lr=0.1)
    weight.grad = torch.ones(2, 2)
    optimizer.step()
    assert not any(optimizer.state.values())
    assert config.state_bytes(groups) == 0


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(ConfigError, match="nesterov looks ahead by the momentum, and momentum is 0; set it"):
        from_tree(SGDConfig, {"nesterov": True, "momentum": 0})
