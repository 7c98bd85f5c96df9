"""Our decoder equals transformers' Gemma2ForCausalLM on tiny random weights, in both directions."""

import pytest
from transformers import Gemma2ForCausalLM

from pellucid.config import from_tree, merge
from pellucid.interop.maps import gemma2
from pellucid.model import DecoderConfig

VARIANTS = {
    "as published": {},
    "free head, multi-head, head_dim of its own": {
        "tie_embeddings": False,
        "num_kv_heads": None,
        "head_dim": 6,
    },
    "scores scaled as usual": {"attention": {"scale": None}},
    "no caps": {"attention": {"softcap": None}, "logit_softcap": None},
    "windows everywhere": {"attention": {"window_pattern": "L"}},
    "no windows": {"attention": {"window": None, "window_pattern": "L"}},
    "attention biases": {"attention": {"bias": True}},
    "exact gelu": {"feed_forward": {"approximate": False}},
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
        "block": "sandwich_norm",
        "norm": {"kind": "rmsnorm"},
        "position": {"kind": "rope"},
        "attention": {"window": 7, "window_pattern": "LG", "softcap": 2.0, "scale": 12**-0.5},
        "feed_forward": {"kind": "geglu", "d_ff": 40},
        "scale_embeddings": True,
        "logit_softcap": 3.0,
    }
    return from_tree(DecoderConfig, merge(tree, VARIANTS[variant]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_their_weights_give_their_logits_in_our_model(variant: str, exchange) -> None:
    exchange.theirs_to_ours(gemma2, Gemma2ForCausalLM, config_of(variant), "eager")


@pytest.mark.parametrize("variant", VARIANTS)
def test_our_files_give_our_logits_in_their_model(variant: str, exchange) -> None:
    exchange.ours_to_theirs(gemma2, Gemma2ForCausalLM, config_of(variant))
