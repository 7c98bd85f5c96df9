"""Our decoder equals transformers' LlamaForCausalLM on tiny random weights, in both directions."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from pellucid.config import from_tree, merge
from pellucid.interop.maps import llama
from pellucid.model import DecoderConfig, DecoderLM

VARIANTS = {
    "multi-head": {},
    "grouped-query": {"num_kv_heads": 2},
    "multi-query": {"num_kv_heads": 1},
    "free head": {"num_kv_heads": 2, "tie_embeddings": False},
    "head_dim of its own": {"num_kv_heads": 2, "head_dim": 6},
    "another theta": {"position": {"theta": 500.0}},
    "biases": {"num_kv_heads": 2, "bias": True, "tie_embeddings": False},
    "attention biases only": {"attention": {"bias": True}},
    "feed-forward biases only": {"bias": True, "attention": {"bias": False}},
    "another eps": {"norm": {"kind": "rmsnorm", "eps": 0.1}},
    "padded vocabulary": {"vocab_multiple": 16},
    "padded vocabulary, free head": {"vocab_multiple": 16, "tie_embeddings": False},
    "linear scaling": {"position": {"scaling": {"kind": "linear", "factor": 2.5}}},
    "llama3 scaling": {  # of four pairs, one keeps its frequency, one is between, two are slowed
        "position": {
            "scaling": {
                "kind": "llama3",
                "factor": 8.0,
                "low_frequency_factor": 0.1,
                "high_frequency_factor": 2.0,
                "original_max_seq_len": 16,
            }
        }
    },
    "yarn scaling": {  # likewise
        "position": {
            "scaling": {"kind": "yarn", "factor": 3.0, "original_max_seq_len": 16, "beta_slow": 0.05}
        }
    },
    "yarn scaling, all numbers": {
        "position": {
            "scaling": {
                "kind": "yarn",
                "factor": 3.0,
                "original_max_seq_len": 16,
                "beta_fast": 2.0,
                "beta_slow": 0.01,
                "attention_factor": 1.4,
            }
        }
    },
}


def config_of(variant: str) -> DecoderConfig:
    tree = {
        "vocab_size": 61,
        "d_model": 32,
        "num_layers": 3,
        "num_heads": 4,
        "max_seq_len": 48,
        "position": {"kind": "rope"},
        "feed_forward": {"kind": "swiglu", "d_ff": 40},
    }
    return from_tree(DecoderConfig, merge(tree, VARIANTS[variant]))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_their_weights_give_their_logits_in_our_model(variant: str, attention: str, exchange) -> None:
    exchange.theirs_to_ours(llama, LlamaForCausalLM, config_of(variant), attention)


@pytest.mark.parametrize("variant", VARIANTS)
def test_our_files_give_our_logits_in_their_model(variant: str, exchange) -> None:
    exchange.ours_to_theirs(llama, LlamaForCausalLM, config_of(variant))


def build_theirs(config: DecoderConfig) -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_config(
        LlamaConfig(**llama.config_to_hf(config)), attn_implementation="sdpa", dtype=torch.float64
    ).eval()


@torch.no_grad()
def test_their_code_as_published_agrees_in_float32(randomise, some_ids) -> None:
    config = config_of("grouped-query")
    theirs = build_theirs(config)
    randomise(theirs)
    theirs = theirs.float()
    ours = DecoderLM(config)
    ours.load_state_dict(llama.weights_from_hf(theirs.state_dict(), config))
    expected = theirs(input_ids=some_ids).logits
    assert (ours(some_ids) - expected).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
def test_the_comparison_sees_a_wrong_weight(float64_throughout, randomise, some_ids) -> None:
    config = config_of("multi-head")
    with float64_throughout():
        theirs = build_theirs(config)
        randomise(theirs)
        expected = theirs(input_ids=some_ids).logits
    weights = llama.weights_from_hf(theirs.state_dict(), config)
    for name in weights:
        ours = DecoderLM(config).double()
        ours.load_state_dict(weights)
        ours.get_parameter(name).view(-1)[5] += 1e-3
        assert (ours(some_ids) - expected).abs().max() > 1e-8, name
