"""What every norm, position scheme and feed-forward layer promises. A new member of a union is tested too."""

import pytest
import torch
from torch import Tensor, nn

from pellucid.config import Config, from_tree, members, to_tree
from pellucid.model.feedforward import FeedForwardConfig, MoE
from pellucid.model.norms import NormConfig
from pellucid.model.positions import Position, PositionConfig

D, HEADS, MAX_SEQ_LEN = 16, 2, 12

SideLosses = dict[str, tuple[Tensor, Tensor]]


class Placed(nn.Module):
    """All hooks of a position scheme, one after the other, as a map [B, T, D] → [B, T, D].

    The biases of a query's scores against the keys of all MAX_SEQ_LEN places are mixed by a fixed matrix and
    added, so that they count, and what a token becomes still depends on its own place alone.
    """

    def __init__(self, position: Position) -> None:
        super().__init__()
        self.position = position

    def run(self, x: Tensor, places: Tensor | None = None) -> tuple[Tensor, SideLosses]:
        if places is None:
            places = torch.arange(x.shape[1], device=x.device)
        heads = self.position.embed(x, places).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        turned = self.position.rotate(heads, self.position.angles(places))
        assert turned.shape == heads.shape
        keys = torch.arange(MAX_SEQ_LEN, device=x.device).expand(*places.shape[:-1], -1)
        bias = self.position.bias(places, keys)
        if bias is not None:
            assert bias.shape[-3:] == (HEADS, x.shape[1], MAX_SEQ_LEN)
            mixing = torch.linspace(-1, 1, MAX_SEQ_LEN * D // HEADS, dtype=torch.float64, device=x.device)
            turned = (turned + bias.double() @ mixing.view(MAX_SEQ_LEN, -1)).to(x.dtype)
        return turned.transpose(1, 2).flatten(2), {}

    def forward(self, x: Tensor, places: Tensor | None = None) -> Tensor:
        return self.run(x, places)[0]


class Unplaced(nn.Module):
    """A part that does not ask for places. It may have side losses."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def run(self, x: Tensor, places: Tensor | None = None) -> tuple[Tensor, SideLosses]:
        del places
        out = self.part(x)
        return out if isinstance(out, tuple) else (out, {})

    def forward(self, x: Tensor, places: Tensor | None = None) -> Tensor:
        return self.run(x, places)[0]


def build_position(config, is_causal: bool) -> Placed:
    return Placed(
        config.build(
            d_model=D, num_heads=HEADS, head_dim=D // HEADS, max_seq_len=MAX_SEQ_LEN, is_causal=is_causal
        )
    )


def refusal_of_biases(config_class: type) -> str | None:
    """What a feed-forward layer without biases says when it is asked for them."""
    try:
        config_class().build(D, bias=True)
    except ValueError as error:
        return str(error)
    return None


POSITIONS = {
    f"position {k}, is_causal {is_causal}": (c, lambda c, is_causal=is_causal: build_position(c, is_causal))
    for k, c in members(PositionConfig).items()
    for is_causal in (True, False)
}
BUILDERS = {
    **{f"norm {k}": (c, lambda c: Unplaced(c.build(D))) for k, c in members(NormConfig).items()},
    **POSITIONS,
    **{
        f"feed_forward {k}, bias {bias}": (c, lambda c, bias=bias: Unplaced(c.build(D, bias=bias)))
        for k, c in members(FeedForwardConfig).items()
        for bias in ((False, True) if refusal_of_biases(c) is None else (False,))
    },
}


@pytest.fixture(params=BUILDERS)
def builder(request):
    return BUILDERS[request.param]


@pytest.fixture(params=POSITIONS)
def position_builder(request):
    return POSITIONS[request.param]


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


def experts_of(part: nn.Module, x: Tensor) -> Tensor | None:
    """Which experts each token goes to, if the part has experts."""
    for module in part.modules():
        if isinstance(module, MoE):
            return module.router(x).topk(module.top_k).indices
    return None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_keeps_shape_and_dtype_and_comes_near_float64(builder, dtype: torch.dtype) -> None:
    part, x = build(builder, dtype), draw(2, 5, D, dtype=dtype)
    exact, exact_x = build(builder), draw(2, 5, D)
    out, expected = part(x), exact(exact_x)
    assert (out.shape, out.dtype) == ((2, 5, D), dtype)
    if (experts := experts_of(part, x)) is not None:
        # Rounding may send a token to another expert, and no tolerance covers that. These tokens do not cross.
        assert torch.equal(experts, experts_of(exact, exact_x)), "draw other weights or inputs for this test"
    error = (out.double() - expected).abs().max() / expected.abs().max()
    assert error <= 4 * torch.finfo(dtype).eps


def test_gradient_reaches_the_input_and_every_parameter(builder) -> None:
    part, x = build(builder), draw(2, 5, D).requires_grad_()
    out, losses = part.run(x)
    ((out * draw(2, 5, D)).sum() + sum(total for total, _ in losses.values())).backward()
    for name, tensor in [("input", x), *part.named_parameters()]:
        assert tensor.grad is not None, name
        assert tensor.grad.abs().max() > 1e-6, name


def test_side_losses_are_sums_over_the_tokens(builder) -> None:
    for total, weight in build(builder).run(draw(2, 5, D))[1].values():
        assert total.shape == weight.shape == ()
        assert total.isfinite()
        assert total.requires_grad
        assert weight == 10


def test_is_deterministic(builder) -> None:
    part, x = build(builder), draw(2, 5, D)
    assert torch.equal(part(x), part(x))


def test_a_place_is_computed_from_itself_alone(builder) -> None:
    part, x = build(builder), draw(2, 5, D)
    whole = part(x)
    for t in range(5):
        alone = part(x[:, t : t + 1], torch.tensor([t]))
        torch.testing.assert_close(alone, whole[:, t : t + 1], rtol=1e-12, atol=1e-12)


def test_each_row_may_have_its_own_places(position_builder) -> None:
    part, x = build(position_builder), draw(2, 3, D)
    places = torch.tensor([[0, 1, 2], [7, 9, 1]])
    together = part(x, places)
    for row in range(2):
        alone = part(x[row : row + 1], places[row])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-12)


def test_the_bias_of_a_pair_depends_on_that_pair_alone(position_builder) -> None:
    position, places = build(position_builder).position, torch.arange(MAX_SEQ_LEN)
    whole = position.bias(places, places)
    if whole is None:
        return
    for query, key in [(0, 0), (7, 7), (11, 0), (5, 3), (3, 5)]:
        alone = position.bias(places[query : query + 1], places[key : key + 1])
        assert alone is not None
        torch.testing.assert_close(alone[..., 0, 0], whole[..., query, key], rtol=0, atol=1e-12)


def test_compiled_equals_eager(builder) -> None:
    part, x = build(builder, torch.float32), draw(2, 5, D, dtype=torch.float32)
    torch._dynamo.reset()  # every part is compiled through the same two wrappers, and recompiling has a limit
    compiled = torch.compile(part, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), part(x), rtol=1e-6, atol=1e-6)


def test_builds_and_runs_without_storage(builder) -> None:
    config_class, make = builder
    with torch.device("meta"):
        out = make(config_class())(torch.empty(2, 5, D))
    assert (out.shape, out.device.type) == ((2, 5, D), "meta")


def test_state_dict_round_trip(builder) -> None:
    part, other, x = build(builder), build(builder, seed=4), draw(2, 5, D)
    if part.state_dict():
        assert not torch.equal(other(x), part(x))
    other.load_state_dict(part.state_dict())
    assert torch.equal(other(x), part(x))


@pytest.mark.parametrize("kind", members(FeedForwardConfig))
def test_biases_are_there_or_refused_by_name(kind: str) -> None:
    config_class = members(FeedForwardConfig)[kind]

    def has_biases(bias: bool) -> bool:
        layer = config_class().build(D, bias=bias)
        return any(name.endswith("bias") for name, _ in layer.named_parameters())

    assert not has_biases(False)
    refusal = refusal_of_biases(config_class)
    if refusal is None:
        assert has_biases(True)
    else:
        assert all(word in refusal for word in ("bias", "feed_forward.kind", repr(kind)))


def test_config_round_trip(config: Config) -> None:
    assert from_tree(type(config), to_tree(config)) == config
    assert to_tree(config)["kind"] in members(type(config))
