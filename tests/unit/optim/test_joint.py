"""Several optimizers as one."""

import pytest
import torch
from torch import nn

from pellucid.optim.joint import JointOptimizer


@pytest.fixture
def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2)) for _ in range(2)]


@pytest.fixture
def joint(parameters: list[nn.Parameter]) -> JointOptimizer:
    first, second = parameters
    return JointOptimizer([torch.optim.SGD([first], lr=0.1), torch.optim.SGD([second], lr=0.2)])


def test_a_rate_that_is_set_on_the_whole_is_the_parts(joint, parameters) -> None:
    for group, lr in zip(joint.param_groups, (0.5, 0.25), strict=True):
        group["lr"] = lr
    for parameter in parameters:
        parameter.grad = torch.ones(2)
    joint.step()
    assert [parameter[0].item() for parameter in parameters] == [0.5, 0.75]


def test_gradients_are_dropped_together(joint, parameters) -> None:
    for parameter in parameters:
        parameter.grad = torch.ones(2)
    joint.zero_grad(set_to_none=True)
    assert [parameter.grad for parameter in parameters] == [None, None]


def test_a_gradient_scaler_unscales_every_part_and_skips_all_where_one_overflowed(joint, parameters) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.ones(()))
    first, second = parameters
    first.grad, second.grad = torch.full((2,), 4.0), torch.full((2,), 8.0)
    scaler.unscale_(joint)
    assert (first.grad[0].item(), second.grad[0].item()) == (1.0, 2.0)
    scaler.step(joint)
    scaler.update()
    assert [parameter[0].item() for parameter in parameters] == pytest.approx([0.9, 0.6])
    first.grad, second.grad = torch.full((2,), 4.0), torch.full((2,), torch.inf)
    before = [parameter.detach().clone() for parameter in parameters]
    scaler.step(joint)
    assert all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True))


def test_a_closure_is_refused(joint) -> None:
    with pytest.raises(ValueError, match="takes no closure; compute the gradients before it"):
        joint.step(lambda: 0.0)


def test_a_stored_state_is_not_put_where_the_parts_would_not_see_it(joint) -> None:
    with pytest.raises(NotImplementedError, match=r"change JointOptimizer\.state in place"):
        joint.load_state_dict(joint.state_dict())
