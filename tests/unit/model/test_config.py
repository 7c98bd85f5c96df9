import tomllib

import pytest

from pellucid.config import Config, from_tree, to_toml
from pellucid.errors import ConfigError
from pellucid.model import DecoderConfig, DecoderLM, EncoderDecoderConfig
from pellucid.model.attention import Attention
from pellucid.model.feedforward import MoE
from pellucid.model.positions import RotaryPosition, T5Position

IMPOSSIBLE = {
    "heads": (
        {"d_model": 10, "num_heads": 4},
        "d_model (10) is not divisible by num_heads (4); change one of them or give head_dim",
    ),
    "grouped heads": (
        {"d_model": 24, "num_heads": 6, "num_kv_heads": 4},
        "num_heads (6) is not a multiple of num_kv_heads (4); "
        "each key/value head serves the same number of query heads",
    ),
    "more key/value heads than heads": (
        {"num_heads": 4, "num_kv_heads": 8},
        "num_heads (4) is not a multiple of num_kv_heads (8)",
    ),
    "rope, odd head": (
        {"d_model": 12, "num_heads": 4},
        "RoPE turns pairs of features: fraction (1) · head_dim (3) must be an even number from 2 on, not 3",
    ),
    "rope, odd head_dim": (
        {"head_dim": 5},
        "RoPE turns pairs of features: fraction (1) · head_dim (5) must be an even number from 2 on, not 5",
    ),
    "rope, odd part": (
        {"head_dim": 6, "position": {"kind": "rope", "fraction": 0.5}},
        "RoPE turns pairs of features: fraction (0.5) · head_dim (6) must be an even number from 2 on, not 3",
    ),
    "rope, broken part": (
        {"head_dim": 8, "position": {"kind": "rope", "fraction": 0.3}},
        "RoPE turns pairs of features: fraction (0.3) · head_dim (8) must be an even number from 2 on, not 2.4",
    ),
    "ntk, one pair": (
        {"head_dim": 2, "position": {"kind": "rope", "scaling": {"kind": "ntk", "factor": 2.0}}},
        "scaling.kind 'ntk' spreads factor over the pairs and needs at least 4 rotated features, not 2; "
        "raise head_dim or fraction",
    ),
    "yarn, order": (
        {
            "position": {
                "kind": "rope",
                "scaling": {"kind": "yarn", "factor": 2.0, "original_max_seq_len": 64, "beta_fast": 0.5},
            }
        },
        "position.scaling: beta_fast (0.5) must be more than beta_slow (1)",
    ),
    "yarn, short": (
        {
            "position": {
                "kind": "rope",
                "scaling": {"kind": "yarn", "factor": 2.0, "original_max_seq_len": 6},
            }
        },
        "position.scaling: original_max_seq_len (6) is so short that no pair of features turns beta_slow (1)",
    ),
    "llama3, order": (
        {"position": {"kind": "rope", "scaling": {"kind": "llama3", "low_frequency_factor": 4.0}}},
        "position.scaling: high_frequency_factor (4) must be more than low_frequency_factor (4)",
    ),
    "t5, reach": (
        {"position": {"kind": "t5", "num_buckets": 32, "max_distance": 16}},
        "position: max_distance (16) must be more than half of num_buckets (32)",
    ),
    "t5, odd": (
        {"position": {"kind": "t5", "num_buckets": 31}},
        "position: num_buckets must be an even number from 4 on, not 31",
    ),
    "t5, few": (
        {"position": {"kind": "t5", "num_buckets": 2}},
        "position.num_buckets: must be at least 4, not 2",
    ),
    "nothing to normalise with": (
        {"norm": {"kind": "none"}, "attention": {"qk_norm": True}},
        "attention.qk_norm uses the model's norm, and norm.kind is 'none'; change one of them",
    ),
    "pattern without window": (
        {"attention": {"window_pattern": "LG"}},
        "attention: window_pattern ('LG') says which layers are windowed, and window is left out; "
        "give attention.window too",
    ),
    "local layers without window": (
        {"attention": {"window_pattern": "LL"}},
        "attention: window_pattern ('LL') says which layers are windowed, and window is left out; "
        "give attention.window too",
    ),
    "window without local layers": (
        {"attention": {"window": 8, "window_pattern": "GG"}},
        "attention: window (8) is that of local layers, and window_pattern ('GG') has none",
    ),
    "pattern": ({"attention": {"window": 8, "window_pattern": "LX"}}, "attention.window_pattern: "),
    "sdpa, capped": (
        {"attention": {"kernel": "sdpa", "softcap": 20.0}},
        "attention: kernel 'sdpa' cannot cap scores (softcap 20.0); use kernel 'auto', 'flex' or 'reference'",
    ),
    "flex, dropout": (
        {"attention": {"kernel": "flex", "dropout": 0.1}},
        "attention: kernel 'flex' has no dropout (dropout 0.1); use kernel 'auto' or set dropout to 0",
    ),
    "experts with biases": (
        {"bias": True, "feed_forward": {"kind": "moe"}},
        "bias = true does not go with feed_forward.kind 'moe', whose experts have no biases",
    ),
    "fewer experts than chosen": (
        {"feed_forward": {"kind": "moe", "num_experts": 2, "top_k": 3}},
        "feed_forward: top_k (3) is more than num_experts (2)",
    ),
    "zero": ({"d_model": 0}, "d_model: must be more than 0, not 0"),
    "dropout": ({"dropout": 1.0}, "dropout: must be at least 0 and less than 1, not 1.0"),
    "attention dropout": (
        {"attention": {"dropout": 1.0}},
        "attention.dropout: must be at least 0 and less than 1, not 1.0",
    ),
    "no cap": ({"logit_softcap": 0}, "logit_softcap: must be more than 0, not 0"),
    "infinite cap": ({"logit_softcap": float("inf")}, "logit_softcap: "),
    "fraction": (
        {"position": {"kind": "rope", "fraction": 1.5}},
        "position.fraction: must be more than 0 and at most 1, not 1.5",
    ),
    "factor": (
        {"position": {"kind": "rope", "scaling": {"kind": "linear", "factor": 0.5}}},
        "position.scaling.factor: must be at least 1, not 0.5",
    ),
    "no factor": (
        {"position": {"kind": "rope", "scaling": {"kind": "linear"}}},
        "position.scaling.factor: a value is needed",
    ),
    "block": ({"block": "postnorm"}, "block: must be 'pre_norm', 'post_norm', 'sandwich_norm' or 'parallel'"),
    "kernel": ({"attention": {"kernel": "flash"}}, "attention.kernel: "),
    "norm": (
        {"norm": {"kind": "rmsnrom"}},
        "norm.kind: there is no kind 'rmsnrom'; did you mean 'rmsnorm'? (kinds: rmsnorm, layernorm, none)",
    ),
    "scaling": (
        {"position": {"kind": "rope", "scaling": {"kind": "yarm", "factor": 2.0}}},
        "position.scaling.kind: there is no kind 'yarm'; did you mean 'yarn'?",
    ),
    "key of another kind": (
        {"norm": {"kind": "rmsnorm", "bias": True}},
        "norm.bias: there is no such key in kind 'rmsnorm'",
    ),
    "scaling without rope": (
        {"position": {"kind": "alibi", "scaling": {"kind": "linear", "factor": 2.0}}},
        "position.scaling: there is no such key in kind 'alibi'",
    ),
    "key": ({"n_heads": 3}, "n_heads: there is no such key in kind "),
}


@pytest.mark.parametrize("cls", [DecoderConfig, EncoderDecoderConfig])
@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_config_is_one_clear_line(cls: type[Config], name: str) -> None:
    tree, message = IMPOSSIBLE[name]
    with pytest.raises(ConfigError) as caught:
        from_tree(cls, tree)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1


def test_a_key_of_the_other_family_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_layers: there is no such key in kind 'encoder_decoder'"):
        from_tree(EncoderDecoderConfig, {"num_layers": 3})
    with pytest.raises(ConfigError, match="start_id: there is no such key in kind 'decoder'"):
        from_tree(DecoderConfig, {"start_id": 3})


def test_a_start_id_is_one_of_the_vocabulary() -> None:
    assert EncoderDecoderConfig(vocab_size=7, start_id=6).build().start_id == 6
    assert EncoderDecoderConfig(start_id=50_000).start_id == 50_000  # the vocabulary is the tokenizer's
    with pytest.raises(ConfigError) as caught:
        from_tree(EncoderDecoderConfig, {"vocab_size": 7, "start_id": 7})
    assert str(caught.value).startswith("start_id (7) is no id of a vocabulary of vocab_size 7")


def test_parts_refuse_by_themselves_what_their_configs_refuse() -> None:
    """In a notebook there is no config."""
    with pytest.raises(ValueError, match=r"top_k \(3\) is more than num_experts \(2\)"):
        MoE(8, 16, num_experts=2, top_k=3)
    with pytest.raises(ValueError, match=r"num_heads \(6\) must be a multiple of num_kv_heads \(4\)"):
        Attention(24, num_heads=6, num_kv_heads=4, head_dim=4)
    with pytest.raises(ValueError, match=r"fraction \(1\) · head_dim \(3\) must be an even number"):
        RotaryPosition(3)
    with pytest.raises(ValueError, match=r"max_distance \(4\) must be more than half of num_buckets \(8\)"):
        T5Position(2, num_buckets=8, max_distance=4)


def test_a_head_size_of_its_own_frees_d_model_from_the_heads() -> None:
    assert DecoderConfig(d_model=10, num_heads=4, head_dim=6).head_size == 6


def test_an_odd_head_size_is_fine_without_rotation() -> None:
    assert (
        from_tree(DecoderConfig, {"d_model": 12, "num_heads": 4, "position": {"kind": "learned"}}).head_size
        == 3
    )


def test_left_out_sizes_follow_from_the_others() -> None:
    config = DecoderConfig(vocab_size=7, d_model=96, num_heads=6)
    assert (config.kv_heads, config.head_size) == (6, 16)
    up = DecoderLM(config).get_parameter("blocks.0.feed_forward.up.weight")
    assert up.shape == (256, 96)  # 8/3 · 96 is 256 already


def test_toml_round_trip() -> None:
    config = from_tree(
        DecoderConfig,
        {"vocab_size": 9, "num_kv_heads": 2, "norm": {"kind": "layernorm", "bias": False}, "dropout": 0.1},
    )
    assert from_tree(DecoderConfig, tomllib.loads(to_toml(config))) == config


def test_a_model_without_a_vocabulary_says_what_to_give() -> None:
    with pytest.raises(
        ValueError, match=r"DecoderConfig needs vocab_size to build a model, e\.g\. vocab_size=50257"
    ):
        DecoderLM(DecoderConfig())
