import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.config import from_tree
from pellucid.errors import ConfigError
from pellucid.model import KVCache
from pellucid.model.attention import Attention, AttentionConfig
from pellucid.model.kernels import AttentionContext
from pellucid.model.masks import Mask
from pellucid.model.norms import RMSNorm, RMSNormConfig
from pellucid.model.positions import AlibiPosition, Position, RotaryPosition
from pellucid.model.stack import attention_context

CPU, D_MODEL, HEADS, HEAD_DIM, LENGTH = torch.device("cpu"), 12, 4, 6, 7
DOCUMENTS = torch.tensor([[-1, -1, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, -1, -1]])

VARIANTS = {
    "multi-head": {},
    "grouped-query": {"num_kv_heads": 2},
    "multi-query with biases": {"num_kv_heads": 1, "bias": True},
    "QK-norm": {"qk_norm": True, "num_kv_heads": 2},
    "a scale of its own": {"scale": 1.0},
    "soft-cap": {"softcap": 0.7},
    "reference kernel": {"kernel": "reference"},
    "flex kernel": {"kernel": "flex", "softcap": 0.7},
}
MASKS = {
    "causal": Mask(),
    "bidirectional": Mask(is_causal=False),
    "window": Mask(window=2),
    "documents": Mask(query_documents=DOCUMENTS, key_documents=DOCUMENTS),
    "prefix": Mask(prefix_lengths=torch.tensor([3, 5])),
}
variants = pytest.mark.parametrize("variant", VARIANTS)


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.empty(shape, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(seed))


def attention(variant: str = "multi-head", **fields: object) -> Attention:
    options = VARIANTS[variant] | fields
    has_norm = options.pop("qk_norm", False)
    module = Attention(
        D_MODEL,
        HEADS,
        options.pop("num_kv_heads", HEADS),
        HEAD_DIM,
        query_norm=RMSNorm(HEAD_DIM) if has_norm else None,
        key_norm=RMSNorm(HEAD_DIM) if has_norm else None,
        **options,
    ).double()
    for number, parameter in enumerate(module.parameters()):
        parameter.copy_(0.5 * draw(*parameter.shape, seed=100 + number))
    return module.eval()


def context(module: Attention, mask: Mask, queries: int = LENGTH, keys: int = LENGTH, **parts: object):
    config = AttentionConfig(kernel=module.kernel)
    return attention_context(config, mask, queries, keys, CPU, training=False, **parts)


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def mix(module: Attention, weights: Tensor, values: Tensor) -> Tensor:
    """What attention gives, from its weights [B, H, T, S] and its values [B, K, S, E]."""
    each = values.repeat_interleave(HEADS // values.shape[1], dim=1)
    mixed = torch.einsum("bhts,bhse->bthe", weights, each)
    return module.output(mixed.flatten(2))


# The weights ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", MASKS)
@variants
def test_weights_sum_to_1_and_times_the_values_give_forward(variant: str, mask: str) -> None:
    module, x = attention(variant), draw(2, LENGTH, D_MODEL)
    its_context = context(module, MASKS[mask])
    weights = module.weights(x, its_context)
    assert weights.shape == (2, HEADS, LENGTH, LENGTH)
    assert (weights >= 0).all()
    close(weights.sum(dim=-1), torch.ones(2, HEADS, LENGTH, dtype=torch.float64))
    _, values = module.keys_and_values(x, its_context)
    close(mix(module, weights, values), module(x, its_context))


@pytest.mark.parametrize("scheme", [RotaryPosition(HEAD_DIM), AlibiPosition(HEADS)], ids=["rope", "alibi"])
def test_weights_know_of_rotation_and_bias(scheme: Position) -> None:
    module, x, places = attention(), draw(2, LENGTH, D_MODEL), torch.arange(LENGTH)
    parts = {"position": scheme, "angles": scheme.angles(places), "bias": scheme.bias(places, places)}
    with_position = context(module, Mask(), **parts)
    weights = module.weights(x, with_position)
    assert (weights - module.weights(x, context(module, Mask()))).abs().max() > 0.01
    _, values = module.keys_and_values(x, with_position)
    close(mix(module, weights, values), module(x, with_position))


@variants
def test_cross_attention_weighs_the_source(variant: str) -> None:
    module, x, source = attention(variant), draw(2, 3, D_MODEL), draw(2, LENGTH, D_MODEL, seed=1)
    mask = Mask(is_causal=False, query_documents=torch.zeros(2, 3, dtype=torch.long), key_documents=DOCUMENTS)
    its_context = context(module, mask, queries=3)
    weights = module.weights(x, its_context, source=source)
    assert weights.shape == (2, HEADS, 3, LENGTH)
    assert ((weights > 0) == (DOCUMENTS == 0)[:, None, None]).all()
    stored = module.keys_and_values(source, its_context)
    expected = mix(module, weights, stored[1])
    close(module(x, its_context, source=source), expected)
    close(module(x, its_context, stored=stored), expected)
    assert (module(x, its_context, source=source.flip(2)) - expected).abs().max() > 0.01


@pytest.mark.parametrize("cap", [0.2, 2.0])
def test_a_soft_cap_bounds_how_much_one_key_outweighs_another(cap: float) -> None:
    x, mask = 30 * draw(2, LENGTH, D_MODEL), Mask(is_causal=False)
    free, capped = attention(), attention(softcap=cap)
    weights = capped.weights(x, context(capped, mask))
    assert (weights.amax(-1) / weights.amin(-1)).max() <= math.exp(2 * cap) * (1 + 1e-12)
    weights = free.weights(x, context(free, mask))
    assert (weights.amax(-1) / weights.amin(-1)).max() > math.exp(2 * cap)


# Options ----------------------------------------------------------------------------------------------


def test_the_scale_is_1_over_the_root_of_the_head_size_unless_given() -> None:
    assert attention().scale == 1 / math.sqrt(HEAD_DIM)
    x, mask = draw(2, LENGTH, D_MODEL), Mask()
    given, left_out = attention(scale=1.0), attention()
    left_out.query.weight *= math.sqrt(HEAD_DIM)
    close(given(x, context(given, mask)), left_out(x, context(left_out, mask)))


def test_queries_and_keys_are_normalised_each_over_its_head_before_rotation() -> None:
    module, x, rope = attention("QK-norm"), draw(2, LENGTH, D_MODEL), RotaryPosition(HEAD_DIM)
    angles = rope.angles(torch.arange(LENGTH))
    turned = context(module, Mask(), position=rope, angles=angles)
    for made, linear, norm, heads in (
        (module.queries(x, turned), module.query, module.query_norm, HEADS),
        (module.keys_and_values(x, turned)[0], module.key, module.key_norm, 2),
    ):
        h = linear(x).view(2, LENGTH, heads, HEAD_DIM)
        h = h / (h.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.gain
        close(made, rope.rotate(h.transpose(1, 2), angles))
    values = module.value(x).view(2, LENGTH, 2, HEAD_DIM).transpose(1, 2)
    close(module.keys_and_values(x, turned)[1], values)


@pytest.mark.parametrize("kernel", ["auto", "sdpa", "reference"])
def test_dropout_zeroes_weights_in_training_alone(kernel: str) -> None:
    module, x = attention(dropout=0.5, kernel=kernel), draw(2, LENGTH, D_MODEL)
    plain = attention()(x, context(module, Mask()))
    close(module(x, context(module, Mask())), plain)
    torch.manual_seed(0)
    module.train()
    draws = torch.stack([module(x, context(module, Mask())) for _ in range(400)])
    assert (draws[0] - plain).abs().max() > 0.1
    error = (draws.mean(dim=0) - plain).abs()
    assert (error <= 5 * draws.std(dim=0) / math.sqrt(400) + 1e-12).all()


@variants
def test_pieces_through_a_cache_are_the_whole(variant: str) -> None:
    module, x = attention(variant), draw(2, LENGTH, D_MODEL)
    cache = KVCache.allocate(
        num_layers=3,
        batch_size=2,
        num_kv_heads=module.num_kv_heads,
        max_length=LENGTH,
        head_dim=HEAD_DIM,
        device=CPU,
        dtype=torch.float64,
    )
    pieces = []
    for begin, end in ((0, 3), (3, 4), (4, LENGTH)):
        its_context = context(module, Mask(window=3), queries=end - begin, keys=end)
        pieces.append(module(x[:, begin:end], its_context, cache=cache, layer=1))
        cache.advance(end - begin)
    close(torch.cat(pieces, dim=1), module(x, context(module, Mask(window=3))))
    assert not cache.keys[[0, 2]].any()


def test_heads_are_slices_of_the_linear_layers() -> None:
    module, x = attention(num_kv_heads=2), draw(2, LENGTH, D_MODEL)
    weights = module.weights(x, context(module, Mask(is_causal=False)))
    for head in range(HEADS):
        rows = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        shared = slice(head // 2 * HEAD_DIM, (head // 2 + 1) * HEAD_DIM)
        q = F.linear(x, module.query.weight[rows])
        k = F.linear(x, module.key.weight[shared])
        close(weights[:, head], (q @ k.transpose(1, 2) / math.sqrt(HEAD_DIM)).softmax(-1))


def test_without_a_context_of_its_own_attention_is_plain_and_causal() -> None:
    module, x = attention(), draw(2, LENGTH, D_MODEL)
    close(module(x, AttentionContext()), module(x, context(module, Mask())))


def test_heads_must_share_key_value_heads_evenly() -> None:
    with pytest.raises(ValueError, match=r"num_heads \(6\) must be a multiple of num_kv_heads \(4\)"):
        Attention(24, num_heads=6, num_kv_heads=4, head_dim=4)


# The config -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "windows"),
    [("L", [8, 8, 8, 8, 8]), ("LG", [8, None, 8, None, 8]), ("LLG", [8, 8, None, 8, 8])],
)
def test_the_pattern_of_windows_repeats_over_the_layers(pattern: str, windows: list[int | None]) -> None:
    config = AttentionConfig(window=8, window_pattern=pattern)
    assert [config.window_of(layer) for layer in range(5)] == windows
    assert AttentionConfig().window_of(0) is None


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"window_pattern": "LG"},
            "window_pattern ('LG') says which layers are windowed, and window is left",
        ),
        ({"kernel": "sdpa", "softcap": 5.0}, "kernel 'sdpa' cannot cap scores (softcap 5.0); use kernel"),
        ({"kernel": "flex", "dropout": 0.1}, "kernel 'flex' has no dropout (dropout 0.1); use kernel 'auto'"),
    ],
)
def test_impossible_options_are_refused_by_both_names(tree: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_tree(AttentionConfig, tree)
    assert message in str(caught.value)


def test_a_bias_of_its_own_overrides_the_models() -> None:
    sizes = {"num_heads": 2, "num_kv_heads": 2, "head_dim": 4, "norm": RMSNormConfig()}
    for own, model, has_bias in (
        (None, True, True),
        (None, False, False),
        (True, False, True),
        (False, True, False),
    ):
        module = AttentionConfig(bias=own).build(8, bias=model, **sizes)
        layers = (module.query, module.key, module.value, module.output)
        assert all((layer.bias is not None) == has_bias for layer in layers)
