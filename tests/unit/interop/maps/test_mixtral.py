import pytest
import torch

from pellucid.config import from_tree
from pellucid.errors import CheckpointError
from pellucid.interop.maps import mixtral
from pellucid.model import DecoderConfig, DecoderLM

THEIRS = {
    "model_type": "mixtral",
    "vocab_size": 31,
    "hidden_size": 64,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
}


def ours() -> DecoderConfig:
    tree = {
        "vocab_size": 31,
        "d_model": 64,
        "num_layers": 2,
        "num_heads": 8,
        "max_seq_len": 131072,
        "norm": {"kind": "rmsnorm", "eps": 1e-5},
        "position": {"kind": "rope", "theta": 1e6},
        "feed_forward": {"kind": "moe", "num_experts": 8, "top_k": 2, "d_ff": 24},
        "tie_embeddings": False,
    }
    return from_tree(DecoderConfig, tree)


def test_what_their_config_leaves_out_has_the_familys_defaults() -> None:
    assert mixtral.config_from_hf(THEIRS) == ours()


def test_files_hold_three_matrices_an_expert() -> None:
    weights = DecoderLM(ours()).state_dict()
    theirs = mixtral.weights_to_hf(weights, ours())
    expert = "model.layers.1.block_sparse_moe.experts.7"
    for theirs_name, ours_name in {"w1": "gate", "w2": "down", "w3": "up"}.items():
        stack = weights[f"blocks.1.feed_forward.{ours_name}"]
        assert torch.equal(theirs[f"{expert}.{theirs_name}.weight"], stack[7])


def test_a_missing_expert_is_named() -> None:
    theirs = mixtral.weights_to_hf(DecoderLM(ours()).state_dict(), ours())
    del theirs["model.layers.1.block_sparse_moe.experts.7.w2.weight"]
    with pytest.raises(
        CheckpointError,
        match=r"missing: model\.layers\.1\.block_sparse_moe\.experts\.7\.w2\.weight \[64, 24\]",
    ):
        mixtral.weights_from_hf(theirs, ours())
