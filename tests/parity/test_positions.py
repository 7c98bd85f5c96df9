"""Position schemes equal transformers' own code, run in float64 (see conftest.py)."""

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPTNeoXConfig, LlamaConfig, T5Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.distilbert.modeling_distilbert import create_sinusoidal_embeddings
from transformers.models.gpt_neox import modeling_gpt_neox as gpt_neox
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.t5.modeling_t5 import T5Attention

from pellucid.config import from_tree
from pellucid.model.positions import (
    AlibiPosition,
    NTKScaling,
    RotaryPosition,
    RotaryPositionConfig,
    SinusoidalPosition,
    T5Position,
)

TRAINED, READ = 2048, 16384
"""Tokens that the models are said to be trained at, and are to read."""


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.empty(shape, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(seed))


def close(ours: Tensor, expected: Tensor, atol: float = 1e-9) -> None:
    assert (ours.dtype, expected.dtype) == (torch.float64, torch.float64)
    assert expected.std() > 1e-3
    torch.testing.assert_close(ours, expected, rtol=0, atol=atol)


def rotary(head_dim: int, **fields) -> RotaryPosition:
    config = from_tree(RotaryPositionConfig, fields)
    return config.build(d_model=64, num_heads=4, head_dim=head_dim, max_seq_len=READ, is_causal=True)


def llama_config(head_dim: int, **rope) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=64,
        num_attention_heads=4,
        head_dim=head_dim,
        max_position_embeddings=READ,
        rope_parameters=rope,
    )


YARN = {"kind": "yarn", "factor": 8.0, "original_max_seq_len": TRAINED}
THEIR_YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": TRAINED}
SCALINGS = {
    "none": ({"kind": "none"}, {"rope_type": "default"}),
    "linear": ({"kind": "linear", "factor": 8.0}, {"rope_type": "linear", "factor": 8.0}),
    "yarn": (YARN, THEIR_YARN),
    "yarn, other turns": (
        YARN | {"beta_fast": 50, "beta_slow": 3},
        THEIR_YARN | {"beta_fast": 50, "beta_slow": 3},
    ),
    "yarn, few pairs slowed": (
        YARN | {"original_max_seq_len": 8192},
        THEIR_YARN | {"original_max_position_embeddings": 8192},
    ),
    "yarn, every pair slowed": (
        YARN | {"original_max_seq_len": 7},
        THEIR_YARN | {"original_max_position_embeddings": 7},
    ),
    "yarn, attention factor": (YARN | {"attention_factor": 1.7}, THEIR_YARN | {"attention_factor": 1.7}),
    "yarn, factor 1": (YARN | {"factor": 1.0}, THEIR_YARN | {"factor": 1.0}),
    "llama3": (
        {"kind": "llama3"},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    ),
    "llama3, other numbers": (
        {
            "kind": "llama3",
            "factor": 32.0,
            "low_frequency_factor": 2.0,
            "high_frequency_factor": 9.0,
            "original_max_seq_len": TRAINED,
        },
        {
            "rope_type": "llama3",
            "factor": 32.0,
            "low_freq_factor": 2.0,
            "high_freq_factor": 9.0,
            "original_max_position_embeddings": TRAINED,
        },
    ),
}


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize(("head_dim", "theta"), [(64, 10_000.0), (16, 500_000.0), (128, 500.0)])
def test_angles_of_every_rope_scaling(float64_throughout, scaling: str, head_dim: int, theta: float) -> None:
    ours, theirs = SCALINGS[scaling]
    positions = torch.stack((torch.arange(40), torch.arange(READ - 40, READ)))
    with float64_throughout():
        embedding = LlamaRotaryEmbedding(llama_config(head_dim, rope_theta=theta, **theirs))
        expected = embedding(draw(1), positions)
    found = rotary(head_dim, theta=theta, scaling=ours).angles(positions)
    for mine, other in zip(found, expected, strict=True):
        close(mine, other)


@pytest.mark.parametrize("factor", [2.0, 5.5])
def test_ntk_frequencies(float64_throughout, factor: float) -> None:
    """Theirs grow with the length; at twice the trained length, factor - 1 gives what ours has at any."""
    theirs = llama_config(32, rope_type="dynamic", rope_theta=10_000.0, factor=factor - 1)
    with float64_throughout():
        expected, _ = ROPE_INIT_FUNCTIONS["dynamic"](theirs, seq_len=2 * READ)
    close(RotaryPosition(32, scaling=NTKScaling(factor=factor)).frequencies(torch.device("cpu")), expected)


@pytest.mark.parametrize("fraction", [0.25, 0.5, 1.0])
def test_partial_rotation_is_gpt_neoxs(float64_throughout, fraction: float) -> None:
    q, k, positions = draw(2, 4, 7, 16), draw(2, 4, 7, 16, seed=1), torch.arange(14).view(2, 7)
    config = GPTNeoXConfig(hidden_size=64, num_attention_heads=4, rotary_pct=fraction)
    with float64_throughout():
        cos, sin = gpt_neox.GPTNeoXRotaryEmbedding(config)(q, positions)
    expected = gpt_neox.apply_rotary_pos_emb(q, k, cos, sin)
    ours = rotary(16, fraction=fraction)
    for x, other in zip((q, k), expected, strict=True):
        close(ours.rotate(x, ours.angles(positions)), other)


@pytest.mark.parametrize("num_heads", [1, 2, 6, 8, 12, 16, 20, 25])
def test_alibi_is_blooms_but_for_a_constant_a_query(float64_throughout, num_heads: int) -> None:
    """Bloom adds slope · j in place of -slope · (i - j): a softmax over j does not see the difference."""
    with float64_throughout():
        theirs = build_alibi_tensor(torch.ones(1, 30), num_heads, torch.float64)  # [H, 1, S]
    ours = AlibiPosition(num_heads).bias(torch.arange(10, 20), torch.arange(30))
    close(ours - ours[..., :1], theirs.expand(num_heads, 10, 30))


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (16, 20), (8, 400)])
@pytest.mark.parametrize("in_float64", [True, False])
def test_t5_bias(
    float64_throughout, is_causal: bool, num_buckets: int, max_distance: int, in_float64: bool
) -> None:
    """With their buckets as published, in float32, and computed in float64."""
    theirs = T5Attention(
        T5Config(
            num_heads=3,
            is_decoder=is_causal,
            relative_attention_num_buckets=num_buckets,
            relative_attention_max_distance=max_distance,
        ),
        has_relative_attention_bias=True,
        layer_idx=0,
    ).double()
    ours = T5Position(3, num_buckets, max_distance, is_causal=is_causal).double()
    with torch.no_grad():
        ours.table.copy_(draw(num_buckets, 3))
        theirs.relative_attention_bias.weight.copy_(ours.table)
        if in_float64:
            with float64_throughout():
                expected = theirs.compute_bias(300, 500, past_seen_tokens=150)
        else:
            expected = theirs.compute_bias(300, 500, past_seen_tokens=150)
        found = ours.bias(torch.arange(150, 450), torch.arange(500))
    close(found[None], expected)


def test_sinusoidal_positions() -> None:
    """The formula in numpy, and DistilBERT's table, which is stored in float32 (hence 1e-7)."""
    found = SinusoidalPosition().embed(torch.zeros(1, 300, 12, dtype=torch.float64), torch.arange(300))[0]
    close(found, create_sinusoidal_embeddings(300, 12, torch.empty(300, 12)).double(), atol=1e-7)
    angle = np.arange(300)[:, None] / 10_000 ** (np.arange(0, 12, 2) / 12)
    close(found[:, 0::2], torch.from_numpy(np.sin(angle)), atol=1e-12)
    close(found[:, 1::2], torch.from_numpy(np.cos(angle)), atol=1e-12)
