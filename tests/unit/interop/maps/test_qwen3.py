from pellucid.config import from_tree
from pellucid.interop.maps import qwen3
from pellucid.model import DecoderConfig

THEIRS = {
    "model_type": "qwen3",
    "vocab_size": 31,
    "hidden_size": 64,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 32,
}


def ours(**attention) -> DecoderConfig:
    tree = {
        "vocab_size": 31,
        "d_model": 64,
        "num_layers": 3,
        "num_heads": 32,
        "head_dim": 128,
        "max_seq_len": 32768,
        "attention": {"qk_norm": True, **attention},
        "feed_forward": {"kind": "swiglu", "d_ff": 24},
        "tie_embeddings": False,
    }
    return from_tree(DecoderConfig, tree)


def test_what_their_config_leaves_out_has_the_familys_defaults() -> None:
    assert qwen3.config_from_hf(THEIRS) == ours()


def test_a_window_that_is_switched_off_is_none() -> None:
    assert qwen3.config_from_hf(THEIRS | {"use_sliding_window": False, "sliding_window": 7}) == ours()


def test_without_layer_types_windows_begin_at_a_layer() -> None:
    window = {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
    assert qwen3.config_from_hf(THEIRS | window) == ours(window=7, window_pattern="GLL")


def test_layer_types_say_which_layers_are_windowed() -> None:
    window = {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
    types = ["sliding_attention", "full_attention", "sliding_attention"]
    config = qwen3.config_from_hf(THEIRS | window | {"layer_types": types})
    assert config == ours(window=7, window_pattern="LG")
