import math
from typing import Any

import pytest
import torch

from pellucid.config import from_tree
from pellucid.errors import CheckpointError, ConfigError
from pellucid.interop.maps.rope import rope_faults, rope_from_hf, rope_to_hf
from pellucid.model import DecoderConfig
from pellucid.model.positions import RotaryPositionConfig

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def read(**theirs: Any) -> RotaryPositionConfig:
    return from_tree(RotaryPositionConfig, rope_from_hf({"max_position_embeddings": 99} | theirs))


def test_the_base_is_written_for_both_versions_of_transformers() -> None:
    theirs = rope_to_hf(RotaryPositionConfig(theta=5e5))
    assert theirs == {"rope_theta": 5e5, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}


def test_a_scaling_is_written_for_both_versions_of_transformers() -> None:
    theirs = rope_to_hf(
        from_tree(RotaryPositionConfig, {"theta": 5e5, "scaling": {"kind": "llama3", "factor": 8.0}})
    )
    assert theirs == {
        "rope_theta": 5e5,
        "rope_scaling": LLAMA3,
        "rope_parameters": {**LLAMA3, "rope_theta": 5e5},
    }


@pytest.mark.parametrize(
    "scaling",
    [
        {"kind": "none"},
        {"kind": "linear", "factor": 4.0},
        {"kind": "yarn", "factor": 4.0, "original_max_seq_len": 64},
        {
            "kind": "yarn",
            "factor": 4.0,
            "original_max_seq_len": 64,
            "beta_fast": 16.0,
            "beta_slow": 2.0,
            "attention_factor": 1.5,
        },
        {"kind": "llama3", "factor": 4.0, "low_frequency_factor": 2.0, "high_frequency_factor": 3.0},
        {"kind": "llama3", "original_max_seq_len": 64},
    ],
    ids=str,
)
@pytest.mark.parametrize("version", [4, 5])
def test_a_scaling_comes_back_from_either_version(scaling: dict, version: int) -> None:
    position = from_tree(RotaryPositionConfig, {"theta": 700.0, "scaling": scaling})
    theirs = rope_to_hf(position)
    if version == 4:
        del theirs["rope_parameters"]
    else:
        theirs = {"rope_parameters": theirs["rope_parameters"]}
    assert read(**theirs) == position


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_theta": 700.0, "rope_scaling": None},
        {"rope_theta": 700.0, "rope_scaling": {"type": "default"}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 700.0}},
        {"rope_theta": 700.0, "rope_parameters": {"rope_theta": 700.0, "partial_rotary_factor": 1.0}},
    ],
    ids=str,
)
def test_the_base_is_read_in_every_spelling(fields: dict) -> None:
    assert read(**fields) == RotaryPositionConfig(theta=700.0)


def test_a_base_left_out_is_the_familys() -> None:
    assert rope_from_hf({}, default_theta=1e6)["theta"] == 1e6


def test_the_old_word_for_the_kind_is_read() -> None:
    assert read(rope_scaling={"type": "linear", "factor": 2}).scaling.model_dump() == {
        "kind": "linear",
        "factor": 2.0,
    }


@pytest.mark.parametrize(
    ("beside", "inside", "length"), [(None, None, 99), (None, 64, 64), (32, 64, 32)], ids=str
)
def test_the_trained_length_is_found_where_transformers_finds_it(
    beside: int | None, inside: int | None, length: int
) -> None:
    field = "original_max_position_embeddings"
    spec = {"rope_type": "yarn", "factor": 2.0, field: inside}
    assert read(rope_parameters=spec, **{field: beside}).scaling.original_max_seq_len == length


def test_yarns_two_magnitude_scales_become_one_factor() -> None:
    spec = {"rope_type": "yarn", "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.7}
    factor = read(rope_parameters=spec).scaling.attention_factor
    assert factor == pytest.approx((0.1 * math.log(40) + 1) / (0.07 * math.log(40) + 1), rel=1e-15)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "rope_scaling: rope_type 'dynamic' cannot be read here, only 'default', 'linear', 'yarn', 'llama3'",
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
            "rope_parameters: one RoPE for each type of layer cannot be read here, only 'default', 'linear', "
            "'yarn', 'llama3'",
        ),
        (
            {"rope_parameters": {"partial_rotary_factor": 0.25}},
            "rope_parameters: a partial_rotary_factor other than 1 cannot be read here",
        ),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "truncate": False}},
            "rope_parameters: yarn without truncate cannot be read here",
        ),
        ({"rope_scaling": "linear"}, "rope_scaling: a table is needed, not 'linear'"),
        (
            {"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}},
            "rope_theta: two values that differ: 10000.0 and 500000.0; keep one of them",
        ),
        (
            {"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope_parameters, rope_scaling: two values that differ: {'kind': 'none'} and "
            "{'kind': 'linear', 'factor': 2.0}; keep one of them",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(fields: dict, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(**fields)
    assert str(caught.value) == f"config.json: {message}"


def test_a_scaling_without_its_factor_is_refused_by_name() -> None:
    spec = {"rope_type": "yarn", "mscale": 1.0, "mscale_all_dim": 0.7}
    with pytest.raises(ConfigError, match="factor"):
        read(rope_parameters=spec)


def test_a_static_ntk_scaling_is_refused_with_the_base_that_says_the_same() -> None:
    position = {"kind": "rope", "theta": 100.0, "scaling": {"kind": "ntk", "factor": 4.0}}
    config = from_tree(DecoderConfig, {"d_model": 16, "num_heads": 4, "position": position})
    (fault,) = rope_faults(config)
    assert fault.startswith("position.scaling.kind: must be 'none', 'linear', 'yarn' or 'llama3', not 'ntk'")
    same = from_tree(
        DecoderConfig, {"d_model": 16, "num_heads": 4, "position": {"kind": "rope", "theta": 1600.0}}
    )
    assert "position.theta 1600.0 without scaling gives the same frequencies" in fault
    built = [
        each.position.build(d_model=16, num_heads=4, head_dim=4, max_seq_len=9, is_causal=True)
        for each in (config, same)
    ]
    first, second = (each.frequencies(torch.device("cpu")) for each in built)
    assert (first - second).abs().max() < 1e-15
