"""The T5 v1.1 family of Hugging Face (also Flan-T5): an encoder-decoder with relative positions and GEGLU.

Its head is free, its scores are not scaled, and the bias for distances is kept in the first layer of each half.
The original T5 (v1.0) is another model: its head is the token table behind states scaled by d_model ** -0.5, which
is refused. A tied head of ours is not scaled; it is written as a free head that equals the table, and read back
as one. Dropout and `vocab_multiple` are not translated, as in llama.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pellucid.config import from_tree, merge
from pellucid.errors import CheckpointError
from pellucid.interop.maps import fields
from pellucid.interop.maps.naming import Names, NameTable, VocabularyRows
from pellucid.model import EncoderDecoderConfig
from pellucid.model.norms import RMSNormConfig
from pellucid.model.positions import T5PositionConfig

HEAD, SHARED = "lm_head.weight", "shared.weight"


def _half(half: str, branches: Mapping[str, str]) -> dict[str, str]:
    """Names of the encoder or the decoder; `branches` are ours → theirs, in the order in which they run."""
    names = {
        f"{half}.position.table": f"{half}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        f"{half}.final_norm.gain": f"{half}.final_layer_norm.weight",
    }
    for number, (ours, theirs) in enumerate(branches.items()):
        layer = f"{half}.block.{{layer}}.layer.{number}"
        names[f"{half}.blocks.{{layer}}.{ours}_norm.gain"] = f"{layer}.layer_norm.weight"
        matrices = _FEED_FORWARD if ours == "feed_forward" else _ATTENTION
        for matrix, theirs_matrix in matrices.items():
            names[f"{half}.blocks.{{layer}}.{ours}.{matrix}.weight"] = (
                f"{layer}.{theirs}.{theirs_matrix}.weight"
            )
    return names


_ATTENTION = {"query": "q", "key": "k", "value": "v", "output": "o"}
_FEED_FORWARD = {"gate": "wi_0", "up": "wi_1", "down": "wo"}

NAMES: Names = {
    "embedding.table": VocabularyRows(SHARED),
    **_half("encoder", {"attention": "SelfAttention", "feed_forward": "DenseReluDense"}),
    **_half(
        "decoder",
        {
            "attention": "SelfAttention",
            "cross_attention": "EncDecAttention",
            "feed_forward": "DenseReluDense",
        },
    ),
    "output.weight": VocabularyRows(HEAD),
}
"""Ours → theirs."""

TABLE = NameTable(
    names=NAMES,
    copies={
        HEAD: SHARED,
        "encoder.embed_tokens.weight": SHARED,
        "decoder.embed_tokens.weight": SHARED,
    },
    # Old files have one that no release reads.
    ignored=(".EncDecAttention.relative_attention_bias.weight",),
)

FIXED = {
    "kind": "encoder_decoder",
    "block": "pre_norm",
    "norm.kind": "rmsnorm",
    "position.kind": "t5",
    "feed_forward.kind": "geglu",
    "feed_forward.approximate": True,
    "attention.qk_norm": False,
    "attention.window": None,
    "attention.softcap": None,
    "attention.scale": 1.0,
    "bias": False,
    "scale_embeddings": False,
    "share_embeddings": True,
    "logit_softcap": None,
}

DEFAULTS: dict[str, Any] = {
    "n_positions": 512,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
}
"""What their config has where a config.json is silent; its length is a habit of theirs, not a bound."""


def config_to_hf(config: EncoderDecoderConfig) -> dict[str, Any]:
    """The content of config.json. Raises ConfigError naming each field that the family cannot express.

    Ids of special tokens are the tokenizer's to say and are written as unknown, but for the first of a target.
    """
    faults: list[str] = []
    if config.kv_heads != config.num_heads:
        faults.append(f"num_kv_heads: must be num_heads ({config.num_heads}), not {config.num_kv_heads}")
    if fields.attention_has_bias(config) and not config.bias:
        faults.append("attention.bias: must be False, not True")
    fields.require_family("T5 v1.1", config, FIXED, faults)
    norm, position = config.norm, config.position
    assert isinstance(norm, RMSNormConfig)
    assert isinstance(position, T5PositionConfig)
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "d_kv": config.head_size,
        "d_ff": fields.inner_width(config),
        "num_layers": config.num_encoder_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "num_heads": config.num_heads,
        "n_positions": config.max_seq_len,
        "relative_attention_num_buckets": position.num_buckets,
        "relative_attention_max_distance": position.max_distance,
        "layer_norm_epsilon": norm.eps,
        "feed_forward_proj": "gated-gelu",
        # What tells v1.1 from the original; transformers 5 ties a head that equals the table all the same.
        "tie_word_embeddings": False,
        "decoder_start_token_id": config.start_id or 0,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def config_from_hf(theirs: Mapping[str, Any]) -> EncoderDecoderConfig:
    """Our config for the content of a config.json; what is left out there has the family's default.

    Raises CheckpointError naming the field when it is another family or a variant that is not built here (the
    original T5 among them), and ConfigError when its numbers do not fit each other.
    """
    wanted = {
        "is_encoder_decoder": True,
        "feed_forward_proj": "gated-gelu",
        "dense_act_fn": "gelu_new",
        "quantization_config": None,
    }
    fields.require_values(theirs, "t5", wanted)
    _refuse_scaled_head(theirs)
    fields.choose(theirs, "feed_forward_proj", "relu", {"gated-gelu": True})
    theirs = DEFAULTS | dict(theirs)
    width, heads = fields.count(theirs, "d_model"), fields.count(theirs, "num_heads")
    head_dim, depth = fields.count(theirs, "d_kv"), fields.count(theirs, "num_layers")
    tree = {
        "vocab_size": fields.count(theirs, "vocab_size"),
        "d_model": width,
        "num_heads": heads,
        "head_dim": None if head_dim * heads == width else head_dim,
        "num_encoder_layers": depth,
        "num_decoder_layers": depth
        if theirs.get("num_decoder_layers") is None
        else fields.count(theirs, "num_decoder_layers"),
        "max_seq_len": fields.count(theirs, "n_positions"),
        "norm": {"eps": theirs["layer_norm_epsilon"]},
        "position": {
            "num_buckets": theirs["relative_attention_num_buckets"],
            "max_distance": theirs["relative_attention_max_distance"],
        },
        "feed_forward": {"d_ff": fields.count(theirs, "d_ff")},
        "tie_embeddings": False,
        "start_id": theirs.get("decoder_start_token_id"),
    }
    return from_tree(EncoderDecoderConfig, merge(fields.nest(FIXED), tree), where=fields.WHERE)


def _refuse_scaled_head(theirs: Mapping[str, Any]) -> None:
    """The original T5 is told by tie_word_embeddings; transformers 5 writes what follows from it instead."""
    is_tied = theirs.get("tie_word_embeddings") is not False
    if theirs.get("scale_decoder_outputs", is_tied):
        raise CheckpointError(
            "config.json: tie_word_embeddings: this is the original T5, whose head is the token table behind states "
            "scaled by d_model ** -0.5; only T5 v1.1 can be read here, which says false (so does Flan-T5)"
        )


def weights_to_hf(weights: Mapping[str, Tensor], config: EncoderDecoderConfig) -> dict[str, Tensor]:
    """The weights under their names. A tied head is written as a copy of the table.

    Raises ConfigError as `config_to_hf`, and CheckpointError listing the tensors that do not fit the config.
    """
    config_to_hf(config)
    theirs = TABLE.weights_to_hf(weights, config)
    return theirs if HEAD in theirs else theirs | {HEAD: theirs[SHARED].clone()}


def weights_from_hf(weights: Mapping[str, Tensor], config: EncoderDecoderConfig) -> dict[str, Tensor]:
    """The weights under our names, for `EncoderDecoderLM(config).load_state_dict`.

    Where a file has no head, it is the table, as transformers 5 writes them when they are equal.
    Raises CheckpointError listing the tensors that do not fit the config.
    """
    if HEAD not in weights and SHARED in weights and not config.tie_embeddings:
        weights = {**weights, HEAD: weights[SHARED].clone()}
    return TABLE.weights_from_hf(weights, config)
