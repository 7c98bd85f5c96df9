"""Our decoder equals transformers' Qwen3ForCausalLM on tiny random weights, in both directions."""

import pytest
from transformers import Qwen3ForCausalLM

from pellucid.config import from_tree, merge
from pellucid.interop.maps import qwen3
from pellucid.model import DecoderConfig

VARIANTS = {
    "grouped-query": {},
    "head_dim of its own, free head": {"head_dim": 6, "tie_embeddings": False},
    "multi-head": {"num_kv_heads": None},
    "attention biases": {"attention": {"qk_norm": True, "bias": True}},
    "a window on all layers": {"attention": {"qk_norm": True, "window": 7}},
    "a window on some layers": {"attention": {"qk_norm": True, "window": 7, "window_pattern": "GL"}},
    "another eps, another theta": {
        "norm": {"kind": "rmsnorm", "eps": 0.1},
        "position": {"kind": "rope", "theta": 500.0},
    },
    "yarn": {"position": {"scaling": {"kind": "yarn", "factor": 3.0, "original_max_seq_len": 16}}},
    "padded vocabulary": {"vocab_multiple": 16},
}


def config_of(variant: str) -> DecoderConfig:
    tree = {
        "vocab_size": 61,
        "d_model": 32,
        "num_layers": 3,
        "num_heads": 4,
        "num_kv_heads": 2,
        "max_seq_len": 48,
        "position": {"kind": "rope"},
        "attention": {"qk_norm": True},
        "feed_forward": {"kind": "swiglu", "d_ff": 40},
    }
    return from_tree(DecoderConfig, merge(tree, VARIANTS[variant]))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_their_weights_give_their_logits_in_our_model(variant: str, attention: str, exchange) -> None:
    exchange.theirs_to_ours(qwen3, Qwen3ForCausalLM, config_of(variant), attention)


@pytest.mark.parametrize("variant", VARIANTS)
def test_our_files_give_our_logits_in_their_model(variant: str, exchange) -> None:
    exchange.ours_to_theirs(qwen3, Qwen3ForCausalLM, config_of(variant))
