"""What DecoderLM promises with every member of every union, and with each way of grouping heads and tying."""

import typing

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.config import from_tree, members
from pellucid.model import DecoderConfig, DecoderLM
from pellucid.model.interface import Role

BASE = {"vocab_size": 29, "d_model": 16, "num_layers": 2, "num_heads": 4, "max_seq_len": 16}

VARIANTS = {
    f"{field}.kind={kind}": {field: {"kind": kind}}
    for field, info in DecoderConfig.model_fields.items()
    for kind in members(info.annotation)
} | {
    "grouped-query": {"num_kv_heads": 2},
    "multi-query": {"num_kv_heads": 1},
    "head_dim": {"head_dim": 6},
    "free head": {"tie_embeddings": False},
    "bias": {"bias": True},
    "dropout": {"dropout": 0.2},
    "all but the default": {
        "num_kv_heads": 2,
        "bias": True,
        "tie_embeddings": False,
        "dropout": 0.1,
        "norm": {"kind": "layernorm"},
        "position": {"kind": "learned"},
        "feed_forward": {"kind": "gelu"},
    },
}


@pytest.fixture(params=VARIANTS)
def config(request) -> DecoderConfig:
    return from_tree(DecoderConfig, BASE | VARIANTS[request.param])


def build(config: DecoderConfig, dtype: torch.dtype = torch.float64) -> DecoderLM:
    """In evaluation mode, with every parameter drawn wide, so that each matters and none hides another."""
    model = DecoderLM(config).eval()
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, role in model.parameter_roles().items():
            noise = torch.empty(model.get_parameter(name).shape).normal_(generator=generator)
            model.get_parameter(name).copy_(0.3 * noise + (role == "gain"))
    return model.to(dtype)


def draw_ids(batch: int = 2, time: int = 12) -> Tensor:
    return torch.randint(0, BASE["vocab_size"], (batch, time), generator=torch.Generator().manual_seed(2))


def loss_and_gradients(model: DecoderLM, **how) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(0)  # what dropout draws from
    model.zero_grad()
    ids = draw_ids(time=13)
    logits = model.head(model.hidden(ids[:, :-1], **how).states)
    loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@torch.no_grad()
def test_logits_have_shape_and_dtype_and_come_near_float64(config: DecoderConfig, dtype: torch.dtype) -> None:
    ids, model = draw_ids(), build(config, dtype)
    hidden = model.hidden(ids)
    logits = model(ids)
    assert (hidden.states.shape, hidden.states.dtype) == ((2, 12, 16), dtype)
    assert (logits.shape, logits.dtype) == ((2, 12, 29), dtype)
    assert torch.equal(model.head(hidden.states), logits)
    expected = build(config)(ids)
    assert (logits - expected).std() <= 10 * torch.finfo(dtype).eps * expected.std()


def test_gradient_reaches_every_parameter(config: DecoderConfig) -> None:
    _, gradients = loss_and_gradients(build(config))
    for name, gradient in gradients.items():
        assert gradient is not None, name
        if name.endswith("key.bias") and config.position.kind != "rope":
            continue  # adds the same to all scores of a query, which softmax does not see
        assert gradient.abs().max() > 1e-6, name


@torch.no_grad()
def test_is_deterministic(config: DecoderConfig) -> None:
    model = build(config)
    assert torch.equal(model(draw_ids()), model(draw_ids()))


@pytest.mark.parametrize("t", [1, 6, 11])
@torch.no_grad()
def test_is_causal(config: DecoderConfig, t: int) -> None:
    model, ids = build(config), draw_ids()
    changed = ids.clone()
    changed[:, t] = (changed[:, t] + 1) % BASE["vocab_size"]
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, :t], after[:, :t])
    assert ((before - after)[:, t:].abs().amax(dim=-1) > 1e-6).all()


@torch.no_grad()
def test_state_dict_round_trip(config: DecoderConfig) -> None:
    model, other = build(config), DecoderLM(config, seed=1).double().eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(draw_ids()), model(draw_ids()))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("chunks", [[14], [5, 9], [3, 1, 6, 4], [1] * 14, [7, *[1] * 7]], ids=str)
@torch.no_grad()
def test_cached_logits_equal_uncached(config: DecoderConfig, batch: int, chunks: list[int]) -> None:
    model, ids = build(config), draw_ids(batch, 14)
    cache = model.new_cache(batch, 14)
    pieces = [model(part, cache=cache) for part in ids.split(chunks, dim=1)]
    assert cache.length == 14
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids), rtol=0, atol=1e-12)


@torch.no_grad()
def test_cache_of_a_narrower_dtype_comes_near(config: DecoderConfig) -> None:
    model, ids = build(config, torch.float32), draw_ids()
    cache = model.new_cache(2, dtype=torch.bfloat16)
    cached = torch.cat([model(part, cache=cache) for part in ids.split([6, 6], dim=1)], dim=1)
    expected = model(ids)
    assert 0 < (cached - expected).std() <= 0.02 * expected.std()


@pytest.mark.parametrize("training", [False, True])
def test_recompute_changes_no_bit(config: DecoderConfig, training: bool) -> None:
    model = build(config).train(training)
    loss, gradients = loss_and_gradients(model)
    again, recomputed = loss_and_gradients(model, recompute=True)
    assert torch.equal(again, loss)
    for name, gradient in gradients.items():
        assert torch.equal(recomputed[name], gradient), name


def test_dropout_falls_only_in_training(config: DecoderConfig) -> None:
    model = build(config)
    still = loss_and_gradients(model)[0]
    assert torch.equal(loss_and_gradients(model.train())[0], still) == (config.dropout == 0)


def test_equal_seeds_give_equal_weights(config: DecoderConfig) -> None:
    first, again, other = (DecoderLM(config, seed=seed) for seed in (5, 5, 6))
    for name, role in first.parameter_roles().items():
        weights = first.get_parameter(name)
        assert torch.equal(weights, again.get_parameter(name)), name
        is_drawn = role not in ("gain", "bias")
        assert torch.equal(weights, other.get_parameter(name)) != is_drawn, name


def test_a_further_layer_leaves_other_initial_weights(config: DecoderConfig) -> None:
    shallow = DecoderLM(config)
    deep = DecoderLM(config.model_copy(update={"num_layers": 3}))
    for name, role in shallow.parameter_roles().items():
        scale = (2 / 3) ** 0.5 if role == "residual_matrix" else 1.0  # 1 / sqrt(2 · layers)
        torch.testing.assert_close(deep.get_parameter(name), scale * shallow.get_parameter(name))


def test_every_parameter_has_a_role_that_fits_its_shape(config: DecoderConfig) -> None:
    model = DecoderLM(config)
    roles = model.parameter_roles()
    assert list(roles) == [name for name, _ in model.named_parameters()]
    assert set(roles.values()) <= set(typing.get_args(Role))
    for name, role in roles.items():
        assert model.get_parameter(name).dim() == (1 if role in ("gain", "bias") else 2), name
    assert sum(role == "residual_matrix" for role in roles.values()) == 2 * config.num_layers
    assert ("head" in roles.values()) == (not config.tie_embeddings)


def test_meta_build_has_the_same_parameters_and_no_memory(config: DecoderConfig) -> None:
    with torch.device("meta"):
        model = DecoderLM(config)
    assert all(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    real = DecoderLM(config).state_dict()
    assert {n: t.shape for n, t in model.state_dict().items()} == {n: t.shape for n, t in real.items()}


def test_compiled_equals_eager(config: DecoderConfig) -> None:
    model = build(config.model_copy(update={"num_layers": 1}))  # a block is a block, and compiling is slow
    loss, gradients = loss_and_gradients(model)
    torch._dynamo.reset()
    model.hidden = torch.compile(model.hidden, backend="aot_eager", fullgraph=True)
    compiled_loss, compiled = loss_and_gradients(model)
    torch.testing.assert_close(compiled_loss, loss, rtol=0, atol=1e-12)
    torch.testing.assert_close(compiled, gradients, rtol=0, atol=1e-12)
