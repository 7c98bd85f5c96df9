import pytest
import torch

from pellucid.config import from_tree
from pellucid.errors import CheckpointError, ConfigError
from pellucid.interop.maps import llama
from pellucid.model import DecoderConfig, DecoderLM

OURS = {
    "vocab_size": 31,
    "d_model": 16,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "max_seq_len": 64,
}
THEIRS = {
    "model_type": "llama",
    "vocab_size": 31,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def ours(**fields) -> DecoderConfig:
    return from_tree(DecoderConfig, OURS | fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm": {"kind": "layernorm"}}, "norm.kind: must be 'rmsnorm', not 'layernorm'"),
        ({"position": {"kind": "learned"}}, "position.kind: must be 'rope', not 'learned'"),
        ({"feed_forward": {"kind": "gelu"}}, "feed_forward.kind: must be 'swiglu', not 'gelu'"),
        ({"vocab_size": None}, "vocab_size: a value is needed"),
        ({"d_model": 18, "head_dim": 4}, "d_model: 18 is not a multiple of num_heads (4)"),
        ({"attention": {"scale": 0.3}}, "attention.scale: must be 1 / sqrt(head size), 0.5, not 0.3"),
    ],
)
def test_what_the_family_cannot_express_is_refused_by_name(fields: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        llama.config_to_hf(ours(**fields))
    assert str(caught.value) == f"not a model of the Llama family:\n{message}"


def test_every_obstacle_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        llama.weights_to_hf({}, ours(norm={"kind": "layernorm"}, feed_forward={"kind": "gelu"}))
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_kv_heads": None},
        {"head_dim": 6},
        {"tie_embeddings": False, "bias": True},
        {"attention": {"bias": True}},
        {"bias": True, "attention": {"bias": False}},
        {"norm": {"kind": "rmsnorm", "eps": 1e-5}, "position": {"kind": "rope", "theta": 5e5}},
    ],
)
def test_config_round_trip(fields: dict) -> None:
    config = ours(**fields, feed_forward={"kind": "swiglu", "d_ff": 40})
    assert llama.config_from_hf(llama.config_to_hf(config)) == config


def test_a_scale_that_says_the_usual_is_none_of_its_own() -> None:
    assert llama.config_to_hf(ours(attention={"scale": 0.5})) == llama.config_to_hf(ours())


def test_dropout_is_no_part_of_the_exported_model() -> None:
    assert llama.config_to_hf(ours(dropout=0.1)) == llama.config_to_hf(ours())


def test_what_their_config_leaves_out_has_the_familys_defaults() -> None:
    config = llama.config_from_hf(THEIRS)
    assert config == ours(
        num_kv_heads=None,
        max_seq_len=2048,
        norm={"kind": "rmsnorm", "eps": 1e-6},
        position={"kind": "rope", "theta": 10_000.0},
        feed_forward={"kind": "swiglu", "d_ff": 24},
        tie_embeddings=False,
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "mistral"}, "model_type: 'mistral' cannot be read here, only 'llama'"),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu' cannot be read here, only 'silu'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: 0.5 cannot be read here, only 1"),
        ({"hidden_size": None}, "hidden_size: a whole number above 0 is needed, not None"),
        (
            {"num_attention_heads": "four"},
            "num_attention_heads: a whole number above 0 is needed, not 'four'",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(fields: dict, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        llama.config_from_hf(THEIRS | fields)
    assert str(caught.value) == f"config.json: {message}"


def test_a_quantised_checkpoint_is_refused() -> None:
    with pytest.raises(CheckpointError, match="quantization_config"):
        llama.config_from_hf(THEIRS | {"quantization_config": {"quant_method": "gptq"}})


def test_numbers_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"config\.json.*: num_heads \(4\) is not a multiple of num_kv_heads \(3\)"
    ):
        llama.config_from_hf(THEIRS | {"num_key_value_heads": 3})


@pytest.mark.parametrize("fields", [{}, {"bias": True, "tie_embeddings": False}], ids=str)
def test_weights_round_trip_renames_and_copies_nothing(fields: dict) -> None:
    weights = DecoderLM(ours(**fields)).state_dict()
    theirs = llama.weights_to_hf(weights, ours(**fields))
    back = llama.weights_from_hf(theirs, ours(**fields))
    assert list(back) == list(weights)
    assert all(back[name].data_ptr() == weights[name].data_ptr() for name in weights)
    assert not set(theirs) & set(weights)


def test_every_row_of_the_name_table_is_used() -> None:
    full = ours(bias=True, tie_embeddings=False, num_layers=1)
    names = {name.replace("blocks.0.", "blocks.{layer}.") for name in DecoderLM(full).state_dict()}
    assert set(llama.TABLE.names) == names


def test_tensors_that_do_not_fit_are_listed() -> None:
    theirs = llama.weights_to_hf(DecoderLM(ours()).state_dict(), ours())
    del theirs["model.norm.weight"]
    theirs["model.layers.1.self_attn.q_norm.weight"] = torch.ones(4)
    theirs["model.layers.0.self_attn.k_proj.weight"] = torch.ones(16, 16)
    with pytest.raises(CheckpointError) as caught:
        llama.weights_from_hf(theirs, ours())
    assert str(caught.value).splitlines() == [
        "3 tensors do not fit the config:",
        "missing: model.norm.weight [16]",
        "unexpected: model.layers.1.self_attn.q_norm.weight [4]",
        "wrong shape: model.layers.0.self_attn.k_proj.weight is [16, 16], the config says [8, 16]",
    ]


def test_export_of_weights_of_another_config_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"unexpected: blocks\.1\.attention_norm\.gain \[16\]"):
        llama.weights_to_hf(DecoderLM(ours()).state_dict(), ours(num_layers=1))


def test_what_other_writers_add_without_meaning_is_left_out() -> None:
    weights = DecoderLM(ours()).state_dict()
    theirs = llama.weights_to_hf(weights, ours())
    theirs["lm_head.weight"] = theirs["model.embed_tokens.weight"].clone()
    theirs["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    assert set(llama.weights_from_hf(theirs, ours())) == set(weights)


def test_a_head_that_differs_from_the_table_it_is_tied_to_is_refused() -> None:
    theirs = llama.weights_to_hf(DecoderLM(ours()).state_dict(), ours())
    theirs["lm_head.weight"] = theirs["model.embed_tokens.weight"] + 1
    with pytest.raises(CheckpointError, match=r"lm_head.weight differs from model\.embed_tokens\.weight"):
        llama.weights_from_hf(theirs, ours())
