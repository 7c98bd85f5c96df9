import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.config import Config
from pellucid.model.feedforward import (
    GEGLU,
    MLP,
    GEGLUConfig,
    GELUConfig,
    ReLU2Config,
    ReLUConfig,
    SwiGLU,
    SwiGLUConfig,
)

X = torch.empty(3, 5, 16, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(0))


def sigmoid(z: Tensor) -> Tensor:
    return 1 / (1 + (-z).exp())


def exact_gelu(z: Tensor) -> Tensor:
    return z * 0.5 * (1 + torch.erf(z / 2**0.5))


def tanh_gelu(z: Tensor) -> Tensor:
    return 0.5 * z * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (z + 0.044715 * z**3)))


PLAIN = [
    (GELUConfig(), tanh_gelu),
    (GELUConfig(approximate=False), exact_gelu),
    (ReLUConfig(), lambda z: z.clamp(min=0)),
    (ReLU2Config(), lambda z: z.clamp(min=0) ** 2),
]
GATED = [
    (SwiGLUConfig(), lambda z: z * sigmoid(z)),
    (GEGLUConfig(), tanh_gelu),
    (GEGLUConfig(approximate=False), exact_gelu),
]


def name(value: object) -> str:
    """Of a test's argument: a function's own text has its address, which differs between processes."""
    return str(value) if isinstance(value, Config) else getattr(value, "__name__", str(value))


@pytest.mark.parametrize(("config", "activation"), PLAIN, ids=name)
@pytest.mark.parametrize("bias", [False, True])
def test_plain_layers_by_their_formula(config: Config, activation, bias: bool) -> None:
    layer = config.build(16, bias=bias).double()
    assert {name.split(".")[0] for name in layer.state_dict()} == {"up", "down"}
    assert (layer.up.bias is not None) == (layer.down.bias is not None) == bias
    x = 3 * X
    torch.testing.assert_close(layer(x), layer.down(activation(layer.up(x))), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("config", "activation"), GATED, ids=name)
@pytest.mark.parametrize("bias", [False, True])
def test_gated_layers_by_their_formula(config: Config, activation, bias: bool) -> None:
    layer = config.build(16, bias=bias).double()
    assert {name.split(".")[0] for name in layer.state_dict()} == {"gate", "up", "down"}
    x = 3 * X
    torch.testing.assert_close(
        layer(x), layer.down(activation(layer.gate(x)) * layer.up(x)), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(
    ("config", "expected"), [*[(c, 96) for c, _ in PLAIN], *[(c, 64) for c, _ in GATED]], ids=str
)
def test_widths_left_out_and_given(config: Config, expected: int) -> None:
    assert config.build(24, bias=False).up.weight.shape == (expected, 24)
    assert config.model_copy(update={"d_ff": 40}).build(24, bias=False).up.weight.shape == (40, 24)


def test_the_default_gelu_is_the_tanh_form_to_the_bit() -> None:
    layer = MLP(16, 32)
    x = X.float()
    assert torch.equal(layer(x), layer.down(F.gelu(layer.up(x), approximate="tanh")))
    assert not torch.equal(layer(x), layer.down(F.gelu(layer.up(x))))


def test_plain_arguments_are_enough() -> None:
    assert SwiGLU(16, 24)(X.float()).shape == X.shape
    assert GEGLU(16, 24, approximate=False, bias=True)(X.float()).shape == X.shape
    assert MLP(16, 24, torch.tanh, bias=True)(X.float()).shape == X.shape
