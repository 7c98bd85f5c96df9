import pytest
import torch

from pellucid.config import from_tree
from pellucid.errors import CheckpointError, ConfigError
from pellucid.interop.maps import gpt2
from pellucid.model import DecoderConfig, DecoderLM

THEIRS = {"model_type": "gpt2", "vocab_size": 31, "n_embd": 16, "n_layer": 2, "n_head": 4}


def ours(**fields) -> DecoderConfig:
    tree = {
        "vocab_size": 31,
        "d_model": 16,
        "num_layers": 2,
        "num_heads": 4,
        "max_seq_len": 1024,
        "norm": {"kind": "layernorm"},
        "position": {"kind": "learned"},
        "feed_forward": {"kind": "gelu", "d_ff": 64},
        "bias": True,
    }
    return from_tree(DecoderConfig, tree | fields)


def test_what_their_config_leaves_out_has_the_familys_defaults() -> None:
    assert gpt2.config_from_hf(THEIRS) == ours()


@pytest.mark.parametrize(
    ("word", "layer"),
    [
        ("gelu_new", {"kind": "gelu", "d_ff": 64}),
        ("gelu_pytorch_tanh", {"kind": "gelu", "d_ff": 64}),
        ("gelu", {"kind": "gelu", "d_ff": 64, "approximate": False}),
        ("relu", {"kind": "relu", "d_ff": 64}),
    ],
)
def test_their_activations_are_read(word: str, layer: dict) -> None:
    assert gpt2.config_from_hf(THEIRS | {"activation_function": word}) == ours(feed_forward=layer)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"activation_function": "silu"},
            "activation_function: 'silu' cannot be read here, only 'gelu_new', 'gelu_pytorch_tanh', 'gelu', "
            "'relu', 'relu2'",
        ),
        ({"scale_attn_weights": False}, "scale_attn_weights: False cannot be read here, only True"),
        (
            {"scale_attn_by_inverse_layer_idx": True},
            "scale_attn_by_inverse_layer_idx: True cannot be read here, only False",
        ),
        ({"add_cross_attention": True}, "add_cross_attention: True cannot be read here, only False"),
        ({"n_head": None}, "n_head: a whole number above 0 is needed, not None"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(fields: dict, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        gpt2.config_from_hf(THEIRS | fields)
    assert str(caught.value) == f"config.json: {message}"


def test_every_obstacle_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        gpt2.config_to_hf(from_tree(DecoderConfig, {"vocab_size": 31, "num_kv_heads": 2, "head_dim": 32}))
    assert str(caught.value).splitlines() == [
        "not a model of the GPT-2 family:",
        "norm.kind: must be 'layernorm', not 'rmsnorm'",
        "position.kind: must be 'learned', not 'rope'",
        "bias: must be True, not False",
        "feed_forward.kind: must be one of gelu, relu, relu2, not 'swiglu'",
        "num_kv_heads: must be num_heads (4), not 2",
        "head_dim: must be d_model / num_heads (256 / 4), not 32",
        "attention.bias: must be True, not False",
    ]


def test_names_as_in_the_published_files_are_read() -> None:
    """The first checkpoints have no prefix, and hold each block's causal mask."""
    weights = DecoderLM(ours()).state_dict()
    theirs = gpt2.weights_to_hf(weights, ours())
    published = {name.removeprefix("transformer."): tensor for name, tensor in theirs.items()}
    published["h.0.attn.bias"] = torch.ones(1, 1, 8, 8)
    published["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    back = gpt2.weights_from_hf(published, ours())
    assert all(torch.equal(back[name], weights[name]) for name in weights)


def test_every_row_of_the_name_table_is_used() -> None:
    full = ours(tie_embeddings=False, num_layers=1)
    names = {name.replace("blocks.0.", "blocks.{layer}.") for name in DecoderLM(full).state_dict()}
    rows = gpt2.TABLE.names
    assert {name for row in rows for name in ([row] if isinstance(row, str) else row)} == names
