import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pellucid.model.feedforward import MoE, MoEConfig, SwiGLU
from pellucid.model.feedforward.moe.experts import Way, choose_way, mix
from pellucid.model.feedforward.moe.routing import Routing, balance_loss, route, z_loss

D, D_FF, EXPERTS, TOP_K = 16, 24, 6, 2


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return (
        torch.empty(shape, dtype=torch.float64)
        .normal_(generator=torch.Generator().manual_seed(seed))
        .to(dtype)
    )


def layer(dtype: torch.dtype = torch.float64, **options) -> MoE:
    """Weights large enough that outputs, gradients and routing are far from zero and from each other."""
    moe = MoE(D, D_FF, **{"num_experts": EXPERTS, "top_k": TOP_K} | options)
    with torch.no_grad():
        for number, parameter in enumerate(moe.parameters()):
            parameter.copy_(0.5 * draw(*parameter.shape, seed=number))
    return moe.to(dtype)


def gradients(moe: MoE, x: Tensor, way: Way | None) -> tuple[Tensor, ...]:
    """The output and the gradients of the input and of every parameter."""
    x = x.detach().requires_grad_()
    y = mix(
        x, route(moe.router(x), moe.top_k, normalize=moe.normalize_top_k), moe.gate, moe.up, moe.down, way
    )
    wanted = [x, *moe.parameters()]
    return (y.detach(), *torch.autograd.grad((y * draw(*y.shape, seed=9).to(y.dtype)).sum(), wanted))


# The formula ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [True, False])
def test_a_token_gets_the_weighted_sum_of_its_experts(normalize: bool) -> None:
    moe, x = layer(normalize_top_k=normalize), draw(2, 7, D, seed=20)
    y, _ = moe(x)
    for place in [(b, t) for b in range(2) for t in range(7)]:
        probabilities = (moe.router.weight @ x[place]).softmax(dim=0)
        chosen = probabilities.argsort(descending=True)[:TOP_K]
        total = probabilities[chosen].sum() if normalize else 1
        expected = torch.zeros(D, dtype=torch.float64)
        for expert in chosen:
            inside = F.silu(moe.gate[expert] @ x[place]) * (moe.up[expert] @ x[place])
            expected += probabilities[expert] / total * (moe.down[expert] @ inside)
        torch.testing.assert_close(y[place], expected, rtol=0, atol=1e-12)
    assert y.std() > 0.1


def test_one_expert_is_swiglu() -> None:
    moe, plain = layer(num_experts=1, top_k=1), SwiGLU(D, D_FF).double()
    plain.load_state_dict({f"{name}.weight": getattr(moe, name)[0] for name in ("gate", "up", "down")})
    x = draw(5, D)
    torch.testing.assert_close(moe(x)[0], plain(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(D,), (3, D), (2, 3, D), (2, 1, 3, D)])
def test_any_leading_dimensions(shape: tuple[int, ...]) -> None:
    moe, x = layer(), draw(*shape)
    y, auxiliary = moe(x)
    assert y.shape == shape
    torch.testing.assert_close(y, moe(x.reshape(-1, D))[0].view(shape), rtol=0, atol=1e-12)
    assert {float(weight) for _, weight in auxiliary.values()} == {x.numel() / D}


def test_a_token_s_output_does_not_depend_on_the_others() -> None:
    moe, x = layer(), draw(9, D)
    y, _ = moe(x)
    for t in range(9):
        torch.testing.assert_close(moe(x[t])[0], y[t], rtol=0, atol=1e-12)


def test_starts_out_usable_by_itself() -> None:
    torch.manual_seed(0)
    moe = MoE(64, 64)
    for parameter in moe.parameters():
        assert 0.01 < parameter.std() < 0.1
    y, _ = moe(torch.randn(4, 64))
    assert y.isfinite().all()
    assert y.std() > 0


# The three ways -------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_tokens", [1, 3, 40])
@pytest.mark.parametrize("normalize", [True, False])
def test_dense_and_loop_agree_in_float64(num_tokens: int, normalize: bool) -> None:
    moe, x = layer(normalize_top_k=normalize), draw(num_tokens, D, seed=11)
    for ours, expected in zip(gradients(moe, x, "dense"), gradients(moe, x, "loop"), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_tokens", [1, 3, 40])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 4e-3)]
)
@pytest.mark.parametrize("way", ["grouped", "dense", "loop"])
def test_every_way_comes_near_float64(
    way: Way, dtype: torch.dtype, tolerance: float, num_tokens: int
) -> None:
    """Both sides start from the same rounded weights and inputs, and are sent to the same experts."""
    x = draw(num_tokens, D, seed=11, dtype=dtype)
    narrow = layer(dtype)
    wide = layer(dtype).double()
    sent = [route(moe.router(x.to(moe.gate.dtype)), TOP_K, normalize=True) for moe in (narrow, wide)]
    assert torch.equal(sent[0].chosen, sent[1].chosen)
    pairs = zip(gradients(narrow, x, way), gradients(wide, x.double(), "loop"), strict=True)
    for ours, expected in pairs:
        assert ours.dtype == dtype
        assert (ours.double() - expected).abs().max() <= tolerance * expected.abs().max()


def test_the_way_is_chosen_by_what_torch_can_do() -> None:
    def chosen(dtype: torch.dtype, d_model: int = D, device: str = "cpu") -> Way:
        moe = MoE(d_model, D_FF).to(device=device, dtype=dtype)
        return choose_way(torch.zeros(3, d_model, dtype=dtype, device=device), moe.gate)

    assert chosen(torch.float64) == "loop"
    assert [chosen(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)] == ["grouped"] * 3
    assert chosen(torch.float32, d_model=18) == "loop"  # rows of 72 bytes
    assert chosen(torch.bfloat16, d_model=20) == "loop"
    assert chosen(torch.float32, device="meta") == "dense"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_grouped_mm_refuses_are_computed_all_the_same(dtype: torch.dtype) -> None:
    moe = MoE(6, 5).to(dtype)
    y, _ = moe(draw(4, 6, dtype=dtype).requires_grad_())
    y.float().square().sum().backward()
    assert moe.down.grad is not None
    assert moe.down.grad.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_gradient_with_stride_0_comes_through(dtype: torch.dtype) -> None:
    moe, x = layer(dtype), draw(2, 3, D, dtype=dtype)
    moe(x)[0].sum().backward()
    assert moe.down.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)]
)
def test_compiled_equals_eager(dtype: torch.dtype, tolerance: float) -> None:
    moe, x = layer(dtype), draw(2, 9, D, dtype=dtype)

    def all_of(module: nn.Module) -> list[Tensor]:
        y, auxiliary = module(x)
        moe.zero_grad()
        (y.square().mean() + sum(total for total, _ in auxiliary.values())).backward()
        grads = [parameter.grad.clone() for parameter in moe.parameters()]
        return [y.detach(), *grads, *(v.detach() for pair in auxiliary.values() for v in pair)]

    expected = all_of(moe)
    for ours, theirs in zip(
        all_of(torch.compile(moe, backend="aot_eager", fullgraph=True)), expected, strict=True
    ):
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def test_autocast_computes_the_products_narrow() -> None:
    moe, x = layer(torch.float32), draw(2, 9, D, dtype=torch.float32)
    exact, _ = moe(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert choose_way(x.bfloat16(), moe.gate.bfloat16()) == "grouped"
        y, auxiliary = moe(x)
    assert y.dtype == torch.bfloat16  # as every linear layer's
    assert 0 < (y.float() - exact).abs().max() <= 0.05 * exact.abs().max()
    assert {value.dtype for pair in auxiliary.values() for value in pair} == {torch.float32}
    y.float().sum().backward()
    assert moe.gate.grad.dtype == torch.float32
    assert moe.gate.grad.abs().max() > 0


def test_shapes_without_storage() -> None:
    with torch.device("meta"):
        y, auxiliary = MoE(D, D_FF)(torch.empty(2, 3, D))
    assert (y.shape, y.device.type) == ((2, 3, D), "meta")
    assert {value.shape for pair in auxiliary.values() for value in pair} == {()}


# Routing --------------------------------------------------------------------------------------------


def routing_of(*rows: list[float], top_k: int = 1) -> Routing:
    return route(torch.tensor(rows, dtype=torch.float64), top_k, normalize=True)


def test_counts_add_up() -> None:
    routing = route(draw(50, EXPERTS), TOP_K, normalize=True)
    assert routing.counts.tolist() == torch.bincount(routing.chosen.flatten(), minlength=EXPERTS).tolist()
    assert routing.counts.sum() == 50 * TOP_K


def test_the_softmax_is_wide() -> None:
    assert (
        route(draw(4, EXPERTS, dtype=torch.bfloat16), 2, normalize=True).probabilities.dtype == torch.float32
    )
    assert route(draw(4, EXPERTS), 2, normalize=True).probabilities.dtype == torch.float64


def test_weights_are_the_probabilities_or_add_up_to_one() -> None:
    logits = draw(20, EXPERTS)
    plain, normalised = (route(logits, TOP_K, normalize=normalize) for normalize in (False, True))
    assert torch.equal(plain.weights, plain.probabilities.gather(1, plain.chosen))
    torch.testing.assert_close(normalised.weights.sum(dim=1), torch.ones(20, dtype=torch.float64))
    assert plain.weights.sum(dim=1).max() < 1


def test_the_balance_loss_is_k_when_balanced_and_x_when_not() -> None:
    sure = 1e3
    balanced = routing_of(*(sure * torch.eye(4)).tolist())
    assert balance_loss(balanced).item() == pytest.approx(1)
    crowded = routing_of(*[[sure, 0.0, 0.0, 0.0]] * 4)
    assert balance_loss(crowded).item() == pytest.approx(4)
    pairs = routing_of([1.0, 1.0, -sure, -sure], [-sure, -sure, 1.0, 1.0], top_k=2)
    assert balance_loss(pairs).item() == pytest.approx(2)


def test_the_balance_loss_pushes_tokens_to_idle_experts() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]] * 3, dtype=torch.float64, requires_grad=True)
    (downhill,) = torch.autograd.grad(-balance_loss(route(logits, 1, normalize=True)), logits)
    assert (downhill[:, 0] < 0).all()
    assert (downhill[:, 1:] > 0).all()


def test_the_z_loss_by_its_formula() -> None:
    logits = draw(5, 4)
    expected = logits.exp().sum(dim=1).log().square().mean()
    torch.testing.assert_close(z_loss(route(logits, 2, normalize=True)), expected)


def test_side_losses_are_sums_with_their_coefficients() -> None:
    moe, x = layer(balance_coefficient=0.5, z_coefficient=0.25), draw(2, 7, D)
    routing = route(moe.router(x.view(-1, D)), TOP_K, normalize=True)
    _, auxiliary = moe(x)
    expected = {"moe_balance": 0.5 * balance_loss(routing), "moe_z": 0.25 * z_loss(routing)}
    assert auxiliary.keys() == expected.keys()
    for name, (total, weight) in auxiliary.items():
        assert weight == 14
        torch.testing.assert_close(total / weight, expected[name])


def test_gradients_reach_the_router_and_exactly_the_experts_with_tokens() -> None:
    moe, x = layer(), draw(2, D)  # two tokens cannot reach six experts
    y, _ = moe(x)
    (y * draw(2, D, seed=9)).sum().backward()
    counts = route(moe.router(x), TOP_K, normalize=True).counts
    assert (counts == 0).any()
    for parameter in (moe.gate, moe.up, moe.down):
        reached = parameter.grad.abs().amax(dim=(1, 2)) > 1e-6
        assert torch.equal(reached, counts > 0)
    assert moe.router.weight.grad.abs().max() > 1e-6


# The config -----------------------------------------------------------------------------------------


def test_matmul_weights_per_token() -> None:
    assert layer().matmul_weights_per_token == EXPERTS * D + TOP_K * 3 * D * D_FF


def test_twice_the_weights_per_token_is_what_torch_counts() -> None:
    moe = layer()
    with FlopCounterMode(display=False) as counter:
        moe(draw(7, D))  # float64: the loop, whose products torch's counter knows
    assert counter.get_total_flops() == 2 * 7 * moe.matmul_weights_per_token


@pytest.mark.parametrize(
    ("d_model", "top_k", "d_ff"), [(768, 1, 2048), (768, 2, 1024), (768, 3, 704), (16, 2, 64)]
)
def test_left_out_the_chosen_experts_are_together_as_wide_as_swiglu(
    d_model: int, top_k: int, d_ff: int
) -> None:
    with torch.device("meta"):
        assert MoEConfig(top_k=top_k).build(d_model, bias=False).gate.shape == (8, d_ff, d_model)


def test_every_field_reaches_the_layer() -> None:
    config = MoEConfig(
        num_experts=5, top_k=3, d_ff=8, normalize_top_k=False, balance_coefficient=0.3, z_coefficient=0.2
    )
    moe = config.build(4, bias=False)
    assert {name: tuple(value.shape) for name, value in moe.state_dict().items()} == {
        "router.weight": (5, 4),
        "gate": (5, 8, 4),
        "up": (5, 8, 4),
        "down": (5, 4, 8),
    }
    assert (moe.top_k, moe.normalize_top_k) == (3, False)
    assert (moe.balance_coefficient, moe.z_coefficient) == (0.3, 0.2)


def test_more_choices_than_experts_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"top_k \(4\) is more than num_experts \(3\)"):
        MoEConfig(num_experts=3, top_k=4)
    with pytest.raises(ValueError, match=r"top_k \(4\) is more than num_experts \(3\)"):
        MoE(8, 8, num_experts=3, top_k=4)
    assert MoEConfig(num_experts=3, top_k=3).top_k == 3


def test_biases_are_refused() -> None:
    with pytest.raises(ValueError, match=r"bias.*feed_forward\.kind 'moe'"):
        MoEConfig().build(8, bias=True)
