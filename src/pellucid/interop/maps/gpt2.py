"""The GPT-2 family of Hugging Face: LayerNorm, learned positions, a plain feed-forward layer, biases everywhere.

Their matrices in blocks are stored as [in, out], and query, key and value as one. Dropout and
`vocab_multiple` are not translated, as in llama.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pellucid.config import from_tree, merge
from pellucid.interop.maps import fields
from pellucid.interop.maps.naming import NameTable, Transposed, VocabularyRows
from pellucid.model import DecoderConfig
from pellucid.model.feedforward import GELUConfig, ReLU2Config, ReLUConfig
from pellucid.model.norms import LayerNormConfig

TABLE = NameTable(
    names={
        "embedding.table": VocabularyRows("transformer.wte.weight"),
        "position.table": "transformer.wpe.weight",
        "blocks.{layer}.attention_norm.gain": "transformer.h.{layer}.ln_1.weight",
        "blocks.{layer}.attention_norm.bias": "transformer.h.{layer}.ln_1.bias",
        (
            "blocks.{layer}.attention.query.weight",
            "blocks.{layer}.attention.key.weight",
            "blocks.{layer}.attention.value.weight",
        ): Transposed("transformer.h.{layer}.attn.c_attn.weight"),
        (
            "blocks.{layer}.attention.query.bias",
            "blocks.{layer}.attention.key.bias",
            "blocks.{layer}.attention.value.bias",
        ): "transformer.h.{layer}.attn.c_attn.bias",
        "blocks.{layer}.attention.output.weight": Transposed("transformer.h.{layer}.attn.c_proj.weight"),
        "blocks.{layer}.attention.output.bias": "transformer.h.{layer}.attn.c_proj.bias",
        "blocks.{layer}.feed_forward_norm.gain": "transformer.h.{layer}.ln_2.weight",
        "blocks.{layer}.feed_forward_norm.bias": "transformer.h.{layer}.ln_2.bias",
        "blocks.{layer}.feed_forward.up.weight": Transposed("transformer.h.{layer}.mlp.c_fc.weight"),
        "blocks.{layer}.feed_forward.up.bias": "transformer.h.{layer}.mlp.c_fc.bias",
        "blocks.{layer}.feed_forward.down.weight": Transposed("transformer.h.{layer}.mlp.c_proj.weight"),
        "blocks.{layer}.feed_forward.down.bias": "transformer.h.{layer}.mlp.c_proj.bias",
        "final_norm.gain": "transformer.ln_f.weight",
        "final_norm.bias": "transformer.ln_f.bias",
        "output.weight": VocabularyRows("lm_head.weight"),
    },
    copies={"lm_head.weight": "transformer.wte.weight"},
    ignored=(".attn.bias", ".attn.masked_bias"),
    prefix="transformer.",
)

FIXED = {
    "kind": "decoder",
    "block": "pre_norm",
    "norm.kind": "layernorm",
    "norm.bias": True,
    "position.kind": "learned",
    "attention.qk_norm": False,
    "attention.window": None,
    "attention.softcap": None,
    "bias": True,
    "scale_embeddings": False,
    "logit_softcap": None,
}

DEFAULTS: dict[str, Any] = {
    "n_positions": 1024,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
}
"""What their config has where a config.json is silent."""

ACTIVATIONS: dict[str, dict[str, Any]] = {
    "gelu_new": {"kind": "gelu", "approximate": True},
    "gelu_pytorch_tanh": {"kind": "gelu", "approximate": True},
    "gelu": {"kind": "gelu", "approximate": False},
    "relu": {"kind": "relu"},
    "relu2": {"kind": "relu2"},
}
"""Their words → our feed-forward layer; the first word with a meaning is the one that is written."""


def config_to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The content of config.json. Raises ConfigError naming each field that the family cannot express.

    Ids of special tokens are the tokenizer's to say and are written as unknown.
    """
    layer, size = config.feed_forward, config.head_size
    kinds = sorted({meaning["kind"] for meaning in ACTIVATIONS.values()})
    faults = fields.scale_faults(config)
    if not isinstance(layer, GELUConfig | ReLUConfig | ReLU2Config):
        faults.append(f"feed_forward.kind: must be one of {', '.join(kinds)}, not {layer.kind!r}")
    if config.kv_heads != config.num_heads:
        faults.append(f"num_kv_heads: must be num_heads ({config.num_heads}), not {config.num_kv_heads}")
    if size * config.num_heads != config.d_model:
        faults.append(
            f"head_dim: must be d_model / num_heads ({config.d_model} / {config.num_heads}), not {size}"
        )
    if not fields.attention_has_bias(config):
        faults.append("attention.bias: must be True, not False")
    fields.require_family("GPT-2", config, FIXED, faults)
    assert isinstance(config.norm, LayerNormConfig)
    meaning = layer.model_dump(exclude={"d_ff"})
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_embd": config.d_model,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_positions": config.max_seq_len,
        "n_inner": fields.inner_width(config),
        "activation_function": next(word for word, known in ACTIVATIONS.items() if known == meaning),
        "layer_norm_epsilon": config.norm.eps,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def config_from_hf(theirs: Mapping[str, Any]) -> DecoderConfig:
    """Our config for the content of a config.json; what is left out there has the family's default.

    Raises CheckpointError naming the field when it is another family or a variant that is not built here,
    and ConfigError when its numbers do not fit each other.
    """
    wanted = {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
        "quantization_config": None,
    }
    fields.require_values(theirs, "gpt2", wanted)
    theirs = DEFAULTS | dict(theirs)
    width = fields.count(theirs, "n_embd")
    layer = fields.choose(theirs, "activation_function", "gelu_new", ACTIVATIONS)
    tree = {
        "vocab_size": fields.count(theirs, "vocab_size"),
        "d_model": width,
        "num_layers": fields.count(theirs, "n_layer"),
        "num_heads": fields.count(theirs, "n_head"),
        "max_seq_len": fields.count(theirs, "n_positions"),
        "norm": {"eps": theirs["layer_norm_epsilon"]},
        "feed_forward": {**layer, "d_ff": theirs.get("n_inner") or 4 * width},
        "tie_embeddings": bool(theirs["tie_word_embeddings"]),
    }
    return from_tree(DecoderConfig, merge(fields.nest(FIXED), tree), where=fields.WHERE)


def weights_to_hf(weights: Mapping[str, Tensor], config: DecoderConfig) -> dict[str, Tensor]:
    """The weights under their names. A tied head is not written twice.

    Raises ConfigError as `config_to_hf`, and CheckpointError listing the tensors that do not fit the config.
    """
    config_to_hf(config)
    return TABLE.weights_to_hf(weights, config)


def weights_from_hf(weights: Mapping[str, Tensor], config: DecoderConfig) -> dict[str, Tensor]:
    """The weights under our names, for `DecoderLM(config).load_state_dict`.

    A head that repeats a tied table and the mask buffers of old files are left out.
    Raises CheckpointError listing the tensors that do not fit the config.
    """
    return TABLE.weights_from_hf(weights, config)
