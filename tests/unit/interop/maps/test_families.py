"""What every family promises: no field of a config is lost in silence, and no tensor is without a name."""

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import pytest

from pellucid.config import Config, from_tree, merge
from pellucid.errors import CheckpointError, ConfigError
from pellucid.interop.maps import gemma2, gpt2, llama, mixtral, qwen3
from pellucid.interop.maps.fields import nest
from pellucid.model import DecoderConfig, DecoderLM, EncoderDecoderConfig

ROPE = {"norm": {"kind": "rmsnorm"}, "position": {"kind": "rope"}, "num_kv_heads": 2}
FAMILIES: dict[str, tuple[ModuleType, dict[str, Any]]] = {
    "gpt2": (
        gpt2,
        {
            "norm": {"kind": "layernorm"},
            "position": {"kind": "learned"},
            "feed_forward": {"kind": "gelu", "d_ff": 24},
            "bias": True,
        },
    ),
    "llama": (llama, ROPE | {"feed_forward": {"kind": "swiglu", "d_ff": 24}}),
    "qwen3": (qwen3, ROPE | {"feed_forward": {"kind": "swiglu", "d_ff": 24}, "attention": {"qk_norm": True}}),
    "gemma2": (
        gemma2,
        ROPE
        | {
            "block": "sandwich_norm",
            "feed_forward": {"kind": "geglu", "d_ff": 24},
            "attention": {"window": 5, "window_pattern": "LG", "softcap": 50.0},
            "scale_embeddings": True,
            "logit_softcap": 30.0,
        },
    ),
    "mixtral": (mixtral, ROPE | {"feed_forward": {"kind": "moe", "num_experts": 4, "d_ff": 24}}),
}

OTHER_VALUES: dict[str, Any] = {
    "vocab_size": 37,
    "d_model": 32,
    "num_layers": 3,
    "num_heads": 8,
    "num_kv_heads": 1,
    "head_dim": 6,
    "max_seq_len": 99,
    "prompt_mask": "prefix",
    "block": "parallel",
    "norm.kind": "none",
    "norm.eps": 0.25,
    "norm.bias": False,
    "position.kind": "none",
    "position.theta": 500.0,
    "position.fraction": 0.5,
    "position.scaling.kind": ("position.scaling", {"kind": "linear", "factor": 2.0}),
    "attention.qk_norm": None,
    "attention.window": 7,
    "attention.window_pattern": ("attention", {"window": 7, "window_pattern": "GL"}),
    "attention.softcap": 2.0,
    "attention.dropout": 0.1,
    "attention.scale": 0.2,
    "attention.bias": None,
    "attention.kernel": "reference",
    "feed_forward.kind": ("feed_forward", {"kind": "relu", "d_ff": 24}),
    "feed_forward.d_ff": 40,
    "feed_forward.approximate": None,
    "feed_forward.num_experts": 3,
    "feed_forward.top_k": 1,
    "feed_forward.normalize_top_k": None,
    "feed_forward.balance_coefficient": 0.5,
    "feed_forward.z_coefficient": 0.5,
    "bias": None,
    "dropout": 0.1,
    "tie_embeddings": None,
    "scale_embeddings": None,
    "vocab_multiple": 16,
    "logit_softcap": 2.0,
}
"""For every field a value that no family above has; None: the opposite of what it has."""

WITHOUT_TRACE = {
    "dropout",
    "attention.dropout",
    "attention.kernel",
    "vocab_multiple",
    "feed_forward.balance_coefficient",
    "feed_forward.z_coefficient",
}
"""Fields that do not change what a trained model computes."""


def tree_of(family: str) -> dict[str, Any]:
    return {
        "vocab_size": 31,
        "d_model": 16,
        "num_layers": 2,
        "num_heads": 4,
        "max_seq_len": 64,
        **FAMILIES[family][1],
    }


def leaves(config: Config, above: str = "") -> Iterator[str]:
    for name, value in config:
        if isinstance(value, Config):
            yield from leaves(value, f"{above}{name}.")
        elif (above, name) != ("", "kind"):
            yield above + name


def opposite(family: str, path: str) -> bool:
    if path == "attention.bias":  # left out, it is the model's
        return family != "gpt2"
    value: Any = from_tree(DecoderConfig, tree_of(family))
    for name in path.split("."):
        value = getattr(value, name)
    return not value


def changed(family: str, path: str) -> DecoderConfig:
    value = OTHER_VALUES[path]
    if isinstance(value, tuple):
        path, value = value
    elif value is None:
        value = opposite(family, path)
    change: Mapping[str, Any] = nest({path: value})
    if path == "norm.kind" and family == "qwen3":
        change = {"norm": {"kind": "layernorm"}}  # none does not go with qk_norm
    return from_tree(DecoderConfig, merge(tree_of(family), change))


CASES = [
    (family, path)
    for family in FAMILIES
    for path in leaves(from_tree(DecoderConfig, tree_of(family)))
    if (family, path) != ("mixtral", "bias")  # our own config refuses it
]


def test_every_field_of_a_config_has_another_value() -> None:
    assert {path for _, path in CASES} == set(OTHER_VALUES)


@pytest.mark.parametrize(("family", "path"), CASES)
def test_a_field_comes_back_or_is_refused_by_name(family: str, path: str) -> None:
    maps = FAMILIES[family][0]
    config = changed(family, path)
    assert config != from_tree(DecoderConfig, tree_of(family))
    refusal = refused(maps, config)
    if refusal:
        assert path not in WITHOUT_TRACE
        needed = "attention.window" if path == "attention.window_pattern" and family != "mixtral" else path
        assert f"\n{needed}: must be " in refusal
        return
    wanted = from_tree(DecoderConfig, tree_of(family)) if path in WITHOUT_TRACE else config
    assert maps.config_from_hf(maps.config_to_hf(config)) == wanted


def refused(maps: ModuleType, config: DecoderConfig) -> str:
    try:
        maps.config_to_hf(config)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_decoder_is_refused(family: str) -> None:
    tree = {name: value for name, value in tree_of(family).items() if name != "num_layers"}
    with pytest.raises(ConfigError, match="kind: must be 'decoder', not 'encoder_decoder'"):
        FAMILIES[family][0].config_to_hf(from_tree(EncoderDecoderConfig, tree))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_without_a_vocabulary_is_refused(family: str) -> None:
    config = from_tree(DecoderConfig, tree_of(family) | {"vocab_size": None})
    with pytest.raises(ConfigError, match="vocab_size: a value is needed"):
        FAMILIES[family][0].config_to_hf(config)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("fields", [{}, {"tie_embeddings": False, "vocab_multiple": 16}], ids=str)
def test_weights_come_back_in_order_and_their_names_are_others(family: str, fields: dict) -> None:
    maps = FAMILIES[family][0]
    config = from_tree(DecoderConfig, tree_of(family) | fields)
    weights = DecoderLM(config).state_dict()
    theirs = maps.weights_to_hf(weights, config)
    assert not set(theirs) & set(weights)
    assert all(tensor.is_contiguous() for tensor in theirs.values())
    back = maps.weights_from_hf(theirs, config)
    assert list(back) == list(weights)
    assert all((back[name] == weights[name]).all() for name in weights)
    assert all(tensor.is_contiguous() for tensor in back.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_no_two_rows_have_one_name(family: str) -> None:
    rows = FAMILIES[family][0].TABLE.names.values()
    names = [row if isinstance(row, str) else row.name for row in rows]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "mistral"),
        ("model_type", None),
        ("quantization_config", {"bits": 4}),
        ("vocab_size", 0),
    ],
)
def test_their_config_is_refused_by_name(family: str, field: str, value: Any) -> None:
    maps = FAMILIES[family][0]
    theirs = maps.config_to_hf(from_tree(DecoderConfig, tree_of(family)))
    with pytest.raises(CheckpointError, match=rf"^config\.json: {field}: "):
        maps.config_from_hf(theirs | {field: value})
