"""The Qwen3 family of Hugging Face: Llama with normalised queries and keys, and windows on some layers.

Dropout and `vocab_multiple` are not translated, as in llama.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pellucid.config import from_tree, merge
from pellucid.interop.maps import fields, llama_lineage, windows
from pellucid.interop.maps.rope import rope_faults
from pellucid.model import DecoderConfig

TABLE = llama_lineage.name_table(
    {
        "blocks.{layer}.attention.query_norm.gain": "model.layers.{layer}.self_attn.q_norm.weight",
        "blocks.{layer}.attention.key_norm.gain": "model.layers.{layer}.self_attn.k_norm.weight",
    }
)

FIXED = {
    **llama_lineage.FIXED,
    "block": "pre_norm",
    "feed_forward.kind": "swiglu",
    "attention.qk_norm": True,
    "attention.softcap": None,
    "bias": False,
    "scale_embeddings": False,
    "logit_softcap": None,
}

DEFAULTS: dict[str, Any] = {
    "num_key_value_heads": 32,
    "head_dim": 128,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
"""What their config has where a config.json is silent."""


def config_to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The content of config.json. Raises ConfigError naming each field that the family cannot express."""
    fields.require_family("Qwen3", config, FIXED, fields.scale_faults(config) + rope_faults(config))
    types = windows.layer_types(config)
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **llama_lineage.fields_to_hf(config),
        "intermediate_size": fields.inner_width(config),
        "hidden_act": "silu",
        "attention_bias": fields.attention_has_bias(config),
        "use_sliding_window": windows.LOCAL in types,
        "sliding_window": config.attention.window,
        "layer_types": types,
    }


def config_from_hf(theirs: Mapping[str, Any]) -> DecoderConfig:
    """Our config for the content of a config.json; what is left out there has the family's default.

    Raises CheckpointError naming the field when it is another family or a variant that is not built here,
    and ConfigError when its numbers do not fit each other.
    """
    wanted = {"hidden_act": "silu", "partial_rotary_factor": 1, "quantization_config": None}
    fields.require_values(theirs, "qwen3", wanted)
    theirs = DEFAULTS | dict(theirs)
    common = llama_lineage.fields_from_hf(theirs)
    window = theirs["sliding_window"] if theirs.get("use_sliding_window") else None
    tree = {
        **common,
        "feed_forward": {"d_ff": fields.count(theirs, "intermediate_size")},
        "attention": {
            "bias": bool(theirs.get("attention_bias")) or None,
            **windows.window_from_hf(_layer_types(theirs, window), window, common["num_layers"]),
        },
    }
    return from_tree(DecoderConfig, merge(fields.nest(FIXED), tree), where=fields.WHERE)


def _layer_types(theirs: Mapping[str, Any], window: int | None) -> list[str]:
    """As written, or by the older rule: windows from layer `max_window_layers` on."""
    if theirs.get("layer_types") is not None:
        return theirs["layer_types"]
    first = theirs["max_window_layers"]
    return [
        windows.LOCAL if window is not None and layer >= first else windows.GLOBAL
        for layer in range(theirs["num_hidden_layers"])
    ]


def weights_to_hf(weights: Mapping[str, Tensor], config: DecoderConfig) -> dict[str, Tensor]:
    """The weights under their names, as in llama.py."""
    config_to_hf(config)
    return TABLE.weights_to_hf(weights, config)


def weights_from_hf(weights: Mapping[str, Tensor], config: DecoderConfig) -> dict[str, Tensor]:
    """The weights under our names, as in llama.py."""
    return TABLE.weights_from_hf(weights, config)
