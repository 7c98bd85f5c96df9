"""Each part equals torch.nn's, or the formula of its docstring written out in numpy, in float64."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.model.attention import Attention, AttentionConfig
from pellucid.model.feedforward import MLP, SwiGLU
from pellucid.model.kernels import AttentionContext, attend
from pellucid.model.masks import Mask
from pellucid.model.norms import LayerNorm, RMSNorm
from pellucid.model.positions import LearnedPosition, RotaryPosition
from pellucid.model.stack import attention_context


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(seed))


def randomised(module: nn.Module) -> nn.Module:
    module.double()
    for number, parameter in enumerate(module.parameters()):
        parameter.copy_(draw(*parameter.shape, seed=100 + number))
    return module


def close(ours: torch.Tensor, expected: torch.Tensor | np.ndarray) -> None:
    assert np.asarray(expected).std() > 0.01
    np.testing.assert_allclose(ours.numpy(), np.asarray(expected), rtol=0, atol=1e-12)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_rmsnorm() -> None:
    ours, x = randomised(RMSNorm(12, eps=0.1)), draw(2, 5, 12)
    reference = nn.RMSNorm(12, eps=0.1, dtype=torch.float64)
    reference.weight.copy_(ours.gain)
    close(ours(x), reference(x))
    wide = x.numpy()
    close(ours(x), wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 0.1) * ours.gain.numpy())


@pytest.mark.parametrize("bias", [True, False])
def test_layernorm(bias: bool) -> None:
    ours, x = randomised(LayerNorm(12, eps=0.1, bias=bias)), draw(2, 5, 12) + 3
    reference = nn.LayerNorm(12, eps=0.1, bias=bias, dtype=torch.float64)
    reference.weight.copy_(ours.gain)
    if bias:
        reference.bias.copy_(ours.bias)
    close(ours(x), reference(x))


@pytest.mark.parametrize("bias", [True, False])
def test_swiglu(bias: bool) -> None:
    ours, x = randomised(SwiGLU(6, 10, bias=bias)), draw(2, 5, 6)

    def linear(layer: nn.Linear, value: np.ndarray) -> np.ndarray:
        return value @ layer.weight.numpy().T + (layer.bias.numpy() if bias else 0)

    gate = linear(ours.gate, x.numpy())
    close(ours(x), linear(ours.down, gate * sigmoid(gate) * linear(ours.up, x.numpy())))


def test_gelu_mlp_is_torchs_and_gpt2s_formula() -> None:
    ours, x = randomised(MLP(6, 10, bias=True)), draw(2, 5, 6)
    close(ours(x), nn.Sequential(ours.up, nn.GELU(approximate="tanh"), ours.down)(x))
    inside = ours.up(x).numpy()
    gelu = 0.5 * inside * (1 + np.tanh(math.sqrt(2 / math.pi) * (inside + 0.044715 * inside**3)))
    close(ours(x), gelu @ ours.down.weight.numpy().T + ours.down.bias.numpy())


def torchs_attention(ours: Attention) -> nn.MultiheadAttention:
    reference = nn.MultiheadAttention(12, 3, batch_first=True, dtype=torch.float64)
    projections = ours.query, ours.key, ours.value
    reference.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
    reference.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
    reference.out_proj.load_state_dict(ours.output.state_dict())
    return reference


def context(mask: Mask, queries: int, keys: int, kernel: str = "auto") -> AttentionContext:
    config = AttentionConfig(kernel=kernel)
    return attention_context(config, mask, queries, keys, torch.device("cpu"), training=False)


@pytest.mark.parametrize("kernel", ["sdpa", "reference", "flex"])
def test_multi_head_attention_is_torchs(kernel: str) -> None:
    ours, x = randomised(Attention(12, 3, 3, head_dim=4, bias=True, kernel=kernel)), draw(2, 7, 12)
    unseen = torch.ones(7, 7, dtype=torch.bool).triu(1)  # True: may not be seen
    expected, weights = torchs_attention(ours)(x, x, x, attn_mask=unseen, average_attn_weights=False)
    its_context = context(Mask(), 7, 7, kernel)
    close(ours(x, its_context), expected)
    close(ours.weights(x, its_context), weights)


@pytest.mark.parametrize("kernel", ["sdpa", "reference", "flex"])
def test_cross_attention_over_a_padded_source_is_torchs(kernel: str) -> None:
    ours = randomised(Attention(12, 3, 3, head_dim=4, bias=True, kernel=kernel))
    x, source = draw(2, 5, 12), draw(2, 7, 12, seed=1)
    documents = torch.tensor([[-1, -1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, -1]])
    expected, weights = torchs_attention(ours)(
        x, source, source, key_padding_mask=documents < 0, average_attn_weights=False
    )
    mask = Mask(is_causal=False, query_documents=documents.new_zeros(2, 5), key_documents=documents)
    its_context = context(mask, 5, 7, kernel)
    close(ours(x, its_context, source=source), expected)
    close(ours.weights(x, its_context, source=source), weights)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("new", [1, 3, 6])
@pytest.mark.parametrize("kernel", ["sdpa", "reference", "flex"])
def test_attention_by_its_formula_after_what_is_cached(
    heads: int, kv_heads: int, new: int, kernel: str
) -> None:
    total = 6
    q, k, v = draw(2, heads, new, 4), draw(2, kv_heads, total, 4, seed=1), draw(2, kv_heads, total, 4, seed=2)
    expected = np.zeros((2, heads, new, 4))
    for batch, head, t in np.ndindex(2, heads, new):
        shared = head // (heads // kv_heads)
        seen = total - new + t + 1
        scores = k[batch, shared, :seen].numpy() @ q[batch, head, t].numpy() / math.sqrt(4)
        weights = np.exp(scores) / np.exp(scores).sum()
        expected[batch, head, t] = weights @ v[batch, shared, :seen].numpy()
    its_context = context(Mask(), new, total, kernel)
    close(attend(q, k, v, its_context, scale=1 / math.sqrt(4), kernel=kernel), expected)


def test_rope_turns_pairs_as_complex_numbers() -> None:
    rope, x = RotaryPosition(6, theta=100.0), draw(2, 3, 5, 6)
    positions = torch.tensor([0, 1, 2, 7, 1000])
    pairs = x[..., :3].numpy() + 1j * x[..., 3:].numpy()
    angle = positions.numpy()[:, None] * 100.0 ** (-np.arange(3) / 3)
    turned = pairs * np.exp(1j * angle)
    close(rope.rotate(x, rope.angles(positions)), np.concatenate([turned.real, turned.imag], axis=-1))


def test_rope_scores_depend_only_on_the_distance() -> None:
    rope, q, k = RotaryPosition(8), draw(8), draw(8, seed=1)

    def score(at: int, seen: int) -> float:
        turned = [
            rope.rotate(x.view(1, 1, 1, 8), rope.angles(torch.tensor([p]))) for x, p in ((q, at), (k, seen))
        ]
        return float((turned[0] * turned[1]).sum())

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-12)
    assert abs(score(9, 4) - score(9, 5)) > 1e-3


def test_learned_positions_add_their_row() -> None:
    ours, x = randomised(LearnedPosition(4, max_seq_len=9)), draw(2, 3, 4)
    close(ours.embed(x, torch.tensor([5, 0, 8])), x + ours.table[[5, 0, 8]])
