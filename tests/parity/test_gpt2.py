"""Our decoder equals transformers' GPT2LMHeadModel on tiny random weights, in both directions."""

import pytest
from transformers import GPT2LMHeadModel

from pellucid.config import from_tree
from pellucid.interop.maps import gpt2
from pellucid.model import DecoderConfig

VARIANTS = {
    "as published": {},
    "exact gelu": {"feed_forward": {"kind": "gelu", "d_ff": 40, "approximate": False}},
    "relu": {"feed_forward": {"kind": "relu", "d_ff": 40}},
    "squared relu": {"feed_forward": {"kind": "relu2", "d_ff": 40}},
    "free head, another eps": {"tie_embeddings": False, "norm": {"kind": "layernorm", "eps": 0.1}},
    "padded vocabulary": {"vocab_multiple": 16},
}


def config_of(variant: str) -> DecoderConfig:
    tree = {
        "vocab_size": 61,
        "d_model": 32,
        "num_layers": 3,
        "num_heads": 4,
        "max_seq_len": 48,
        "norm": {"kind": "layernorm"},
        "position": {"kind": "learned"},
        "feed_forward": {"kind": "gelu", "d_ff": 40},
        "bias": True,
    }
    return from_tree(DecoderConfig, tree | VARIANTS[variant])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_their_weights_give_their_logits_in_our_model(variant: str, attention: str, exchange) -> None:
    exchange.theirs_to_ours(gpt2, GPT2LMHeadModel, config_of(variant), attention)


@pytest.mark.parametrize("variant", VARIANTS)
def test_our_files_give_our_logits_in_their_model(variant: str, exchange) -> None:
    exchange.ours_to_theirs(gpt2, GPT2LMHeadModel, config_of(variant))
