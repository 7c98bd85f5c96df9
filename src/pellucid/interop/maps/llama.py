"""The Llama family of Hugging Face: RMSNorm, RoPE (scaled or not), SwiGLU, grouped-query attention.

Dropout is not translated, because it does not change what a trained model computes; nor is `vocab_multiple`:
rows that only pad our tables are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pellucid.config import from_tree, merge
from pellucid.interop.maps import fields, llama_lineage
from pellucid.interop.maps.rope import rope_faults
from pellucid.model import DecoderConfig

TABLE = llama_lineage.name_table({})

FIXED = {
    **llama_lineage.FIXED,
    "block": "pre_norm",
    "feed_forward.kind": "swiglu",
    "attention.qk_norm": False,
    "attention.window": None,
    "attention.softcap": None,
    "scale_embeddings": False,
    "logit_softcap": None,
}

DEFAULTS: dict[str, Any] = {
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
}
"""What their config has where a config.json is silent."""


def config_to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The content of config.json. Raises ConfigError naming each field that the family cannot express."""
    faults = llama_lineage.divisible_faults(config) + fields.scale_faults(config) + rope_faults(config)
    fields.require_family("Llama", config, FIXED, faults)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **llama_lineage.fields_to_hf(config),
        "intermediate_size": fields.inner_width(config),
        "hidden_act": "silu",
        "attention_bias": fields.attention_has_bias(config),
        "mlp_bias": config.bias,
    }


def config_from_hf(theirs: Mapping[str, Any]) -> DecoderConfig:
    """Our config for the content of a config.json; what is left out there has the family's default.

    Raises CheckpointError naming the field when it is another family or a variant that is not built here,
    and ConfigError when its numbers do not fit each other.
    """
    wanted = {"hidden_act": "silu", "partial_rotary_factor": 1, "quantization_config": None}
    fields.require_values(theirs, "llama", wanted)
    theirs = DEFAULTS | dict(theirs)
    attention_bias, bias = bool(theirs.get("attention_bias")), bool(theirs.get("mlp_bias"))
    tree = {
        **llama_lineage.fields_from_hf(theirs),
        "feed_forward": {"d_ff": fields.count(theirs, "intermediate_size")},
        "attention": {"bias": None if attention_bias == bias else attention_bias},
        "bias": bias,
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

    A head that repeats a tied table and the frequency buffers of old files are left out.
    Raises CheckpointError listing the tensors that do not fit the config.
    """
    return TABLE.weights_from_hf(weights, config)
