import pytest
import torch

from pellucid.config import from_tree
from pellucid.errors import CheckpointError, ConfigError
from pellucid.interop.maps import t5
from pellucid.model import DecoderConfig, EncoderDecoderConfig, EncoderDecoderLM

OURS = {
    "vocab_size": 31,
    "d_model": 16,
    "num_heads": 4,
    "num_encoder_layers": 2,
    "num_decoder_layers": 3,
    "max_seq_len": 64,
    "position": {"kind": "t5"},
    "feed_forward": {"kind": "geglu", "d_ff": 24},
    "attention": {"scale": 1.0},
    "tie_embeddings": False,
    "start_id": 0,
}
THEIRS = {
    "model_type": "t5",
    "vocab_size": 31,
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
}


def ours(**fields) -> EncoderDecoderConfig:
    return from_tree(EncoderDecoderConfig, OURS | fields)


def weights(**fields) -> dict[str, torch.Tensor]:
    return EncoderDecoderLM(ours(**fields)).state_dict()


# Configs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"block": "post_norm"}, "block: must be 'pre_norm', not 'post_norm'"),
        ({"norm": {"kind": "layernorm"}}, "norm.kind: must be 'rmsnorm', not 'layernorm'"),
        ({"position": {"kind": "rope"}}, "position.kind: must be 't5', not 'rope'"),
        ({"feed_forward": {"kind": "swiglu"}}, "feed_forward.kind: must be 'geglu', not 'swiglu'"),
        (
            {"feed_forward": {"kind": "geglu", "approximate": False}},
            "feed_forward.approximate: must be True, not False",
        ),
        ({"attention": {}}, "attention.scale: must be 1.0, not None"),
        ({"attention": {"scale": 0.5}}, "attention.scale: must be 1.0, not 0.5"),
        ({"attention": {"scale": 1.0, "qk_norm": True}}, "attention.qk_norm: must be False, not True"),
        ({"attention": {"scale": 1.0, "window": 8}}, "attention.window: must be None, not 8"),
        ({"attention": {"scale": 1.0, "softcap": 8.0}}, "attention.softcap: must be None, not 8.0"),
        ({"attention": {"scale": 1.0, "bias": True}}, "attention.bias: must be False, not True"),
        ({"bias": True}, "bias: must be False, not True"),
        ({"num_kv_heads": 2}, "num_kv_heads: must be num_heads (4), not 2"),
        ({"share_embeddings": False}, "share_embeddings: must be True, not False"),
        ({"scale_embeddings": True}, "scale_embeddings: must be False, not True"),
        ({"logit_softcap": 30.0}, "logit_softcap: must be None, not 30.0"),
        ({"vocab_size": None}, "vocab_size: a value is needed"),
    ],
    ids=str,
)
def test_what_the_family_cannot_express_is_refused_by_name(fields: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        t5.config_to_hf(ours(**fields))
    assert str(caught.value) == f"not a model of the T5 v1.1 family:\n{message}"


def test_a_decoder_is_refused() -> None:
    with pytest.raises(ConfigError, match="kind: must be 'encoder_decoder', not 'decoder'"):
        t5.config_to_hf(DecoderConfig(vocab_size=31))


def test_every_obstacle_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        t5.weights_to_hf({}, ours(norm={"kind": "layernorm"}, bias=True, num_kv_heads=1))
    assert len(str(caught.value).splitlines()) == 4


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"head_dim": 6},
        {"num_decoder_layers": 1, "start_id": 7},
        {"norm": {"kind": "rmsnorm", "eps": 1e-5}},
        {"position": {"kind": "t5", "num_buckets": 8, "max_distance": 20}},
    ],
    ids=str,
)
def test_config_round_trip(fields: dict) -> None:
    assert t5.config_from_hf(t5.config_to_hf(ours(**fields))) == ours(**fields)


@pytest.mark.parametrize(
    "fields", [{"dropout": 0.1}, {"vocab_multiple": 8}, {"tie_embeddings": True}], ids=str
)
def test_what_changes_no_result_is_no_part_of_the_exported_config(fields: dict) -> None:
    assert t5.config_to_hf(ours(**fields)) == t5.config_to_hf(ours())


def test_a_width_left_to_the_rule_is_written_out() -> None:
    assert t5.config_to_hf(ours(feed_forward={"kind": "geglu"}))["d_ff"] == 64


def test_a_target_begins_after_id_0_where_ours_leaves_it_open() -> None:
    assert t5.config_to_hf(ours(start_id=None))["decoder_start_token_id"] == 0


def test_what_their_config_leaves_out_has_the_familys_defaults() -> None:
    assert t5.config_from_hf(THEIRS) == ours(
        num_decoder_layers=2,
        max_seq_len=512,
        norm={"kind": "rmsnorm", "eps": 1e-6},
        position={"kind": "t5", "num_buckets": 32, "max_distance": 128},
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "mt5"}, "model_type: 'mt5' cannot be read here, only 't5'"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder: False cannot be read here, only True"),
        ({"feed_forward_proj": "relu"}, "feed_forward_proj: 'relu' cannot be read here, only 'gated-gelu'"),
        (
            {"feed_forward_proj": "gated-silu"},
            "feed_forward_proj: 'gated-silu' cannot be read here, only 'gated-gelu'",
        ),
        ({"dense_act_fn": "gelu"}, "dense_act_fn: 'gelu' cannot be read here, only 'gelu_new'"),
        ({"d_kv": None}, "d_kv: a whole number above 0 is needed, not None"),
        ({"num_layers": 0}, "num_layers: a whole number above 0 is needed, not 0"),
        ({"num_decoder_layers": 0}, "num_decoder_layers: a whole number above 0 is needed, not 0"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_refused_by_name(fields: dict, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        t5.config_from_hf(THEIRS | fields)
    assert str(caught.value) == f"config.json: {message}"


def test_an_activation_left_out_is_the_original_ones() -> None:
    theirs = {name: value for name, value in THEIRS.items() if name != "feed_forward_proj"}
    with pytest.raises(CheckpointError, match="feed_forward_proj: 'relu' cannot be read here"):
        t5.config_from_hf(theirs)


@pytest.mark.parametrize(
    "fields",
    [
        {"tie_word_embeddings": True},
        {"tie_word_embeddings": None},
        {"tie_word_embeddings": True, "scale_decoder_outputs": True},
    ],
    ids=str,
)
def test_the_original_t5_is_refused_with_its_reason(fields: dict) -> None:
    with pytest.raises(
        CheckpointError, match=r"original T5, whose head .* scaled by d_model \*\* -0\.5; only"
    ):
        t5.config_from_hf(THEIRS | fields)


def test_v1_1_is_known_in_files_of_transformers_5_too() -> None:
    written = THEIRS | {"tie_word_embeddings": True, "scale_decoder_outputs": False}
    assert t5.config_from_hf(written) == t5.config_from_hf(THEIRS)


def test_numbers_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"config\.json.*: start_id \(31\) is no id of a vocabulary"):
        t5.config_from_hf(THEIRS | {"decoder_start_token_id": 31})


# Weights ----------------------------------------------------------------------------------------------


def test_weights_round_trip() -> None:
    mine = weights()
    theirs = t5.weights_to_hf(mine, ours())
    back = t5.weights_from_hf(theirs, ours())
    assert list(back) == list(mine)
    assert all(torch.equal(back[name], mine[name]) for name in mine)


def test_every_row_of_the_name_table_is_used_and_unique() -> None:
    mine = weights(num_encoder_layers=1, num_decoder_layers=1)
    assert set(t5.NAMES) == {name.replace("blocks.0.", "blocks.{layer}.") for name in mine}
    theirs = t5.weights_to_hf(mine, ours(num_encoder_layers=1, num_decoder_layers=1))
    assert len(theirs) == len(mine)


def test_the_bias_for_distances_lies_in_the_first_layer_of_each_half() -> None:
    theirs = t5.weights_to_hf(weights(), ours())
    assert [name for name in theirs if "relative" in name] == [
        f"{half}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        for half in ("encoder", "decoder")
    ]


def test_rows_that_pad_the_vocabulary_are_left_out() -> None:
    theirs = t5.weights_to_hf(weights(vocab_multiple=8), ours(vocab_multiple=8))
    assert theirs["shared.weight"].shape == theirs["lm_head.weight"].shape == (31, 16)
    back = t5.weights_from_hf(theirs, ours(vocab_multiple=8))
    assert back["embedding.table"].shape == back["output.weight"].shape == (32, 16)
    assert not back["output.weight"][31:].any()


def test_a_tied_head_is_written_as_a_copy_and_read_as_none() -> None:
    tied, mine = ours(tie_embeddings=True), weights(tie_embeddings=True)
    theirs = t5.weights_to_hf(mine, tied)
    assert torch.equal(theirs["lm_head.weight"], theirs["shared.weight"])
    assert theirs["lm_head.weight"].data_ptr() != theirs["shared.weight"].data_ptr()
    assert set(t5.weights_from_hf(theirs, tied)) == set(mine)
    theirs["lm_head.weight"] += 1
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from shared\.weight although"):
        t5.weights_from_hf(theirs, tied)


def test_a_head_that_is_left_out_is_the_table() -> None:
    theirs = t5.weights_to_hf(weights(), ours())
    del theirs["lm_head.weight"]
    back = t5.weights_from_hf(theirs, ours())
    assert torch.equal(back["output.weight"], back["embedding.table"])


def test_what_other_writers_add_without_meaning_is_left_out() -> None:
    mine = weights()
    theirs = t5.weights_to_hf(mine, ours())
    theirs["encoder.embed_tokens.weight"] = theirs["shared.weight"].clone()
    theirs["decoder.embed_tokens.weight"] = theirs["shared.weight"].clone()
    theirs["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.ones(32, 4)
    assert set(t5.weights_from_hf(theirs, ours())) == set(mine)


def test_tables_that_differ_are_refused() -> None:
    theirs = t5.weights_to_hf(weights(), ours())
    theirs["decoder.embed_tokens.weight"] = theirs["shared.weight"] + 1
    with pytest.raises(CheckpointError, match=r"decoder\.embed_tokens\.weight differs from shared\.weight"):
        t5.weights_from_hf(theirs, ours())


def test_tensors_that_do_not_fit_are_listed() -> None:
    theirs = t5.weights_to_hf(weights(), ours())
    del theirs["decoder.final_layer_norm.weight"]
    theirs["encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"] = torch.ones(32, 4)
    theirs["encoder.block.0.layer.1.DenseReluDense.wo.weight"] = torch.ones(16, 20)
    with pytest.raises(CheckpointError) as caught:
        t5.weights_from_hf(theirs, ours())
    assert str(caught.value).splitlines() == [
        "3 tensors do not fit the config:",
        "missing: decoder.final_layer_norm.weight [16]",
        "unexpected: encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight [32, 4]",
        "wrong shape: encoder.block.0.layer.1.DenseReluDense.wo.weight is [16, 20], the config says [16, 24]",
    ]
