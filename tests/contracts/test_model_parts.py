"""What every norm, position scheme and feed-forward layer promises. A new member of a union is tested too."""

import pytest
import torch
from torch import Tensor, nn

from pellucid.config import Config, from_tree, members, to_tree
from pellucid.model.feedforward import FeedForwardConfig
from pellucid.model.norms import NormConfig
from pellucid.model.positions import Position, PositionConfig

D, HEADS, MAX_SEQ_LEN = 16, 2, 12


class Placed(nn.Module):
    """Both hooks of a position scheme, one after the other, as a map [B, T, D] → [B, T, D]."""

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.position = position

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        places = torch.arange(start, start + x.shape[1])
        heads = self.position.embed(x, places).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        turned = self.position.rotate(heads, self.position.angles(places))
        assert turned.shape == heads.shape
        return turned.transpose(1, 2).flatten(2)


class Unplaced(nn.Module):
    """A part that does not ask for places."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        return self.part(x)


BUILDERS = {
    **{f"norm {k}": (c, lambda c: Unplaced(c.build(D))) for k, c in members(NormConfig).items()},
    **{
        f"position {k}": (c, lambda c: Placed(c.build(D, D // HEADS, MAX_SEQ_LEN)))
        for k, c in members(PositionConfig).items()
    },
    **{
        f"feed_forward {k}, bias {bias}": (c, lambda c, bias=bias: Unplaced(c.build(D, bias=bias)))
        for k, c in members(FeedForwardConfig).items()
        for bias in (False, True)
    },
}


@pytest.fixture(params=BUILDERS)
def builder(request):
    return BUILDERS[request.param]


@pytest.fixture
def config(builder) -> Config:
    return builder[0]()


def build(builder, dtype: torch.dtype = torch.float64, seed: int = 3) -> nn.Module:
    """The part with every parameter drawn, so that none is at a value that hides it."""
    config_class, make = builder
    part = make(config_class())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.copy_(1 + 0.3 * torch.empty(parameter.shape).normal_(generator=generator))
    return part.to(dtype)


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return (
        torch.empty(shape, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(5)).to(dtype)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_keeps_shape_and_dtype_and_comes_near_float64(builder, dtype: torch.dtype) -> None:
    out = build(builder, dtype)(draw(2, 5, D, dtype=dtype))
    assert (out.shape, out.dtype) == ((2, 5, D), dtype)
    expected = build(builder)(draw(2, 5, D))
    error = (out.double() - expected).abs().max() / expected.abs().max()
    assert error <= 4 * torch.finfo(dtype).eps


def test_gradient_reaches_the_input_and_every_parameter(builder) -> None:
    part, x = build(builder), draw(2, 5, D).requires_grad_()
    (part(x) * draw(2, 5, D)).sum().backward()
    for name, tensor in [("input", x), *part.named_parameters()]:
        assert tensor.grad is not None, name
        assert tensor.grad.abs().max() > 1e-6, name


def test_is_deterministic(builder) -> None:
    part, x = build(builder), draw(2, 5, D)
    assert torch.equal(part(x), part(x))


def test_a_place_is_computed_from_itself_alone(builder) -> None:
    part, x = build(builder), draw(2, 5, D)
    whole = part(x)
    for t in range(5):
        torch.testing.assert_close(part(x[:, t : t + 1], t), whole[:, t : t + 1], rtol=0, atol=1e-12)


def test_state_dict_round_trip(builder) -> None:
    part, other, x = build(builder), build(builder, seed=4), draw(2, 5, D)
    if part.state_dict():
        assert not torch.equal(other(x), part(x))
    other.load_state_dict(part.state_dict())
    assert torch.equal(other(x), part(x))


def test_config_round_trip(config: Config) -> None:
    assert from_tree(type(config), to_tree(config)) == config
    assert to_tree(config)["kind"] in members(type(config))
