import pytest

from pellucid.config import from_tree
from pellucid.errors import CheckpointError, ConfigError
from pellucid.interop.maps import gemma2
from pellucid.model import DecoderConfig

THEIRS = {
    "model_type": "gemma2",
    "vocab_size": 31,
    "hidden_size": 64,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
}


def ours(**attention) -> DecoderConfig:
    tree = {
        "vocab_size": 31,
        "d_model": 64,
        "num_layers": 3,
        "num_heads": 8,
        "num_kv_heads": 4,
        "head_dim": 256,
        "max_seq_len": 8192,
        "block": "sandwich_norm",
        "attention": {"window": 4096, "window_pattern": "LG", "softcap": 50.0, **attention},
        "feed_forward": {"kind": "geglu", "d_ff": 24},
        "scale_embeddings": True,
        "logit_softcap": 30.0,
    }
    return from_tree(DecoderConfig, tree)


def test_what_their_config_leaves_out_has_the_familys_defaults() -> None:
    assert gemma2.config_from_hf(THEIRS) == ours()


def test_a_null_cap_is_no_cap() -> None:
    config = gemma2.config_from_hf(THEIRS | {"attn_logit_softcapping": None, "final_logit_softcapping": None})
    assert (config.attention.softcap, config.logit_softcap) == (None, None)


def test_the_scale_is_their_scalars_root() -> None:
    assert gemma2.config_from_hf(THEIRS | {"query_pre_attn_scalar": 144}) == ours(scale=1 / 12)
    assert gemma2.config_to_hf(ours(scale=1 / 12))["query_pre_attn_scalar"] == 144
    assert gemma2.config_to_hf(ours())["query_pre_attn_scalar"] == 256


@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_a_scale_that_no_whole_number_gives_is_refused(scale: float) -> None:
    with pytest.raises(
        ConfigError, match=rf"attention\.scale: must be 1 / sqrt\(a whole number\), not {scale}"
    ):
        gemma2.config_to_hf(ours(scale=scale))


def test_releases_that_window_every_other_layer_are_given_a_window_of_the_whole_length() -> None:
    theirs = gemma2.config_to_hf(ours(window=None, window_pattern="L"))
    assert theirs["sliding_window"] == 8192
    assert theirs["layer_types"] == ["full_attention"] * 3


@pytest.mark.parametrize(
    ("field", "value"), [("use_bidirectional_attention", True), ("hidden_activation", "silu")]
)
def test_what_cannot_be_read_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=rf"^config\.json: {field}: {value!r} cannot be read here"):
        gemma2.config_from_hf(THEIRS | {field: value})
