import tomllib

import pytest

from pellucid.config import from_tree, to_toml
from pellucid.errors import ConfigError
from pellucid.model import DecoderConfig, DecoderLM


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"d_model": 10, "num_heads": 4},
            "d_model (10) is not divisible by num_heads (4); change one of them or give head_dim",
        ),
        (
            {"d_model": 24, "num_heads": 6, "num_kv_heads": 4},
            "num_heads (6) is not a multiple of num_kv_heads (4); "
            "each key/value head serves the same number of query heads",
        ),
        (
            {"d_model": 12, "num_heads": 4},
            "position.kind 'rope' turns pairs of features, so the head size (3, from "
            "head_dim or d_model / num_heads) must be even",
        ),
        ({"d_model": 0}, "d_model: must be more than 0, not 0"),
        ({"dropout": 1.0}, "dropout: must be at least 0 and less than 1, not 1.0"),
        (
            {"norm": {"kind": "rmsnrom"}},
            "norm.kind: there is no kind 'rmsnrom'; did you mean 'rmsnorm'? (kinds: rmsnorm, layernorm)",
        ),
        (
            {"norm": {"kind": "rmsnorm", "bias": True}},
            "norm.bias: there is no such key in kind 'rmsnorm'",
        ),
        ({"n_layers": 3}, "n_layers: there is no such key in kind 'decoder'; did you mean 'num_layers'?"),
    ],
)
def test_an_impossible_config_is_one_clear_line(tree: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_tree(DecoderConfig, tree)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1


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
        ValueError, match=r"needs vocab_size to build a model, e\.g\. DecoderConfig\(vocab_size=50257\)"
    ):
        DecoderLM(DecoderConfig())
