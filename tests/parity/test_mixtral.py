"""Our decoder equals transformers' MixtralForCausalLM on tiny random weights, in both directions."""

import pytest
from transformers import MixtralForCausalLM

from pellucid.config import from_tree, merge
from pellucid.interop.maps import mixtral
from pellucid.model import DecoderConfig

VARIANTS = {
    "grouped-query": {},
    "one of two experts": {"feed_forward": {"num_experts": 2, "top_k": 1}},
    "every expert": {"feed_forward": {"num_experts": 3, "top_k": 3}},
    "a window": {"attention": {"window": 7}},
    "head_dim of its own, tied head": {"head_dim": 6, "tie_embeddings": True},
    "another eps, another theta": {"norm": {"eps": 0.1}, "position": {"theta": 500.0}},
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
        "norm": {"kind": "rmsnorm"},
        "position": {"kind": "rope"},
        "feed_forward": {"kind": "moe", "num_experts": 5, "top_k": 2, "d_ff": 24},
        "tie_embeddings": False,
    }
    return from_tree(DecoderConfig, merge(tree, VARIANTS[variant]))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_their_weights_give_their_logits_in_our_model(variant: str, attention: str, exchange) -> None:
    exchange.theirs_to_ours(mixtral, MixtralForCausalLM, config_of(variant), attention)


@pytest.mark.parametrize("variant", VARIANTS)
def test_our_files_give_our_logits_in_their_model(variant: str, exchange) -> None:
    exchange.ours_to_theirs(mixtral, MixtralForCausalLM, config_of(variant))
