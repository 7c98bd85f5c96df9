import math

import pytest
import torch
from torch import Tensor, nn

from pellucid.optim import AdafactorConfig, ParameterGroup

STEPS = 4


def gradients(shape: tuple[int, ...], size: float) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [size * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(STEPS)]


def by_the_paper(weight: Tensor, given: list[Tensor], *, lr: float, decay: float) -> Tensor:
    """Algorithms 4 and 5 of arXiv:1804.04235, in float64."""
    rows = columns = every = torch.zeros((), dtype=torch.float64)
    for step, gradient in enumerate(given, start=1):
        memory, square = 1 - step**-0.8, gradient.square()
        if weight.dim() == 2:
            rows = memory * rows + (1 - memory) * square.sum(dim=1)
            columns = memory * columns + (1 - memory) * square.sum(dim=0)
            variance = torch.outer(rows, columns) / rows.sum()
        else:
            variance = every = memory * every + (1 - memory) * square
        update = gradient / variance.sqrt()
        update = update / max(1.0, update.square().mean().sqrt().item())
        size = max(1e-3, weight.square().mean().sqrt().item()) * min(lr, 1 / math.sqrt(step))
        weight = weight * (1 - lr * decay) - size * update
    return weight


@pytest.mark.parametrize("shape", [(5, 3), (7,)])
@pytest.mark.parametrize("size", [1.0, 1e-5])  # gradients of a large model, clipped, are that small
@pytest.mark.parametrize("lr", [0.01, 0.8])
def test_updates_are_the_papers(shape: tuple[int, ...], size: float, lr: float) -> None:
    start = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight, given = nn.Parameter(start.float()), gradients(shape, size)
    config = AdafactorConfig(weight_decay=0.1)
    optimizer = config.build([ParameterGroup("matrix", {"weight": weight})], lr=lr)
    for gradient in given:
        weight.grad = gradient.float()
        optimizer.step()
    expected = by_the_paper(start, given, lr=lr, decay=0.1)
    assert (expected - start).abs().max() > 0.01
    torch.testing.assert_close(weight.detach().double(), expected, rtol=1e-4, atol=1e-5)


def test_ids_that_were_never_seen_stay_where_they_are() -> None:
    """Their gradient is 0, and so is the mean of its square."""
    table = nn.Parameter(torch.ones(4, 3))
    optimizer = AdafactorConfig().build([ParameterGroup("embedding", {"table": table})], lr=0.01)
    table.grad = torch.ones(4, 3)
    table.grad[2] = 0
    optimizer.step()
    assert torch.equal(table[2], torch.ones(3))
    assert (table[[0, 1, 3]] < 1).all()
