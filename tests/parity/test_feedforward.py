"""Feed-forward layers equal transformers' own, in float64 on random weights."""

import pytest
import torch
from torch import Tensor, nn
from transformers import MixtralConfig, T5Config
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, load_balancing_loss_func
from transformers.models.t5.modeling_t5 import T5DenseActDense, T5DenseGatedActDense

from pellucid.model.feedforward import MLP, GEGLUConfig, MoE, ReLU2Config, ReLUConfig

D, D_FF, EXPERTS = 12, 20, 6


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.empty(shape, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(seed))


def randomised(module: nn.Module) -> nn.Module:
    module.double()
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.copy_(0.4 * draw(*parameter.shape, seed=100 + number))
    return module


def close(ours: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0.01
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9)


@pytest.fixture
def exact_routing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference rounds its routing to float32, whatever the model's type; here it is to keep float64."""
    monkeypatch.setattr(Tensor, "float", lambda self: self)


def mixtral(top_k: int) -> tuple[MoE, MixtralSparseMoeBlock]:
    """The same weights in our layer and in theirs."""
    config = MixtralConfig(
        hidden_size=D,
        intermediate_size=D_FF,
        num_local_experts=EXPERTS,
        num_experts_per_tok=top_k,
        router_jitter_noise=0.0,
        experts_implementation="eager",
    )
    ours, theirs = randomised(MoE(D, D_FF, EXPERTS, top_k)), MixtralSparseMoeBlock(config).double()
    with torch.no_grad():
        theirs.gate.weight.copy_(ours.router.weight)
        theirs.experts.gate_up_proj.copy_(torch.cat([ours.gate, ours.up], dim=1))
        theirs.experts.down_proj.copy_(ours.down)
    return ours, theirs


@pytest.mark.usefixtures("exact_routing")
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_mixture_of_experts_is_mixtrals_with_its_gradients(top_k: int) -> None:
    ours, theirs = mixtral(top_k)
    x, pull = draw(2, 8, D), draw(2, 8, D, seed=1)
    close(ours(x)[0], theirs(x))

    gradients: list[dict[str, Tensor]] = []
    for module, inputs in ((ours, x.clone().requires_grad_()), (theirs, x.clone().requires_grad_())):
        out = module(inputs)
        ((out[0] if isinstance(out, tuple) else out) * pull).sum().backward()
        gradients.append({"input": inputs.grad} | {n: p.grad for n, p in module.named_parameters()})
    mine, expected = gradients
    close(mine["input"], expected["input"])
    close(torch.cat([mine["gate"], mine["up"]], dim=1), expected["experts.gate_up_proj"])
    close(mine["down"], expected["experts.down_proj"])
    torch.testing.assert_close(mine["router.weight"], expected["gate.weight"], rtol=0, atol=1e-9)
    # One weight, divided by itself, is always 1.
    assert (mine["router.weight"].abs().max() > 0.1) == (top_k > 1)


@pytest.mark.usefixtures("exact_routing")
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_the_balance_loss_is_mixtrals(top_k: int) -> None:
    """16 tokens: the reference divides in float32, which is exact by a power of two."""
    ours, theirs = mixtral(top_k)
    x = draw(2, 8, D)
    logits, _, _ = theirs.gate(x)
    expected = load_balancing_loss_func((logits,), EXPERTS, top_k)
    assert expected.dtype == torch.float64
    assert abs(expected.item() - top_k) > 0.05
    total, weight = ours(x)[1]["moe_balance"]
    assert weight == 16
    assert (total / weight / ours.balance_coefficient).item() == pytest.approx(expected.item(), abs=1e-9)
    (pulled,) = torch.autograd.grad(expected, theirs.gate.weight)
    (ours_pulled,) = torch.autograd.grad(total / weight / ours.balance_coefficient, ours.router.weight)
    close(ours_pulled, pulled)


@pytest.mark.parametrize(("activation", "approximate"), [("gelu_new", True), ("gelu", False)])
def test_geglu_is_t5s(activation: str, approximate: bool) -> None:
    config = T5Config(d_model=D, d_ff=D_FF, dropout_rate=0.0, feed_forward_proj="gated-gelu")
    config.dense_act_fn = activation
    ours = randomised(GEGLUConfig(d_ff=D_FF, approximate=approximate).build(D, bias=False))
    theirs = T5DenseGatedActDense(config).double()
    names = {"wi_0": "gate", "wi_1": "up", "wo": "down"}
    theirs.load_state_dict({f"{t}.weight": getattr(ours, o).weight for t, o in names.items()})
    x = draw(2, 5, D, seed=2)
    close(ours(x), theirs(x))


def test_relu_is_t5s() -> None:
    config = T5Config(d_model=D, d_ff=D_FF, dropout_rate=0.0, feed_forward_proj="relu")
    ours = randomised(ReLUConfig(d_ff=D_FF).build(D, bias=False))
    theirs = T5DenseActDense(config).double()
    theirs.load_state_dict({"wi.weight": ours.up.weight, "wo.weight": ours.down.weight})
    x = draw(2, 5, D, seed=2)
    close(ours(x), theirs(x))


@pytest.mark.parametrize("bias", [True, False])
def test_relu2_by_its_formula(bias: bool) -> None:
    ours, x = randomised(ReLU2Config(d_ff=D_FF).build(D, bias=bias)), draw(2, 5, D)
    assert isinstance(ours, MLP)
    with torch.no_grad():
        up, down = ours.up.weight.numpy(), ours.down.weight.numpy()
        inside = x.numpy() @ up.T + (ours.up.bias.numpy() if bias else 0)
        squared = (inside * (inside > 0)) ** 2
        expected = squared @ down.T + (ours.down.bias.numpy() if bias else 0)
        close(ours(x), torch.from_numpy(expected))
