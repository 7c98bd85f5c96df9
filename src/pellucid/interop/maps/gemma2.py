"""The Gemma-2 family of Hugging Face: sandwich norms, soft-caps, windows on every other layer, GEGLU.

Their gains are stored as distances from 1; adding and subtracting it rounds, where a distance has more digits
than a number near 1 can hold. Dropout and `vocab_multiple` are not translated, as in llama.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pellucid.config import from_tree, merge
from pellucid.interop.maps import fields, llama_lineage, windows
from pellucid.interop.maps.naming import AboveOne
from pellucid.interop.maps.rope import rope_faults
from pellucid.model import DecoderConfig
from pellucid.model.feedforward import GEGLUConfig

TABLE = llama_lineage.name_table(
    {
        "blocks.{layer}.attention_norm.gain": AboveOne("model.layers.{layer}.input_layernorm.weight"),
        "blocks.{layer}.attention_out_norm.gain": AboveOne(
            "model.layers.{layer}.post_attention_layernorm.weight"
        ),
        "blocks.{layer}.feed_forward_norm.gain": AboveOne(
            "model.layers.{layer}.pre_feedforward_layernorm.weight"
        ),
        "blocks.{layer}.feed_forward_out_norm.gain": AboveOne(
            "model.layers.{layer}.post_feedforward_layernorm.weight"
        ),
        "final_norm.gain": AboveOne("model.norm.weight"),
    }
)

FIXED = {
    **llama_lineage.FIXED,
    "block": "sandwich_norm",
    "feed_forward.kind": "geglu",
    "attention.qk_norm": False,
    "bias": False,
    "scale_embeddings": True,
}

DEFAULTS: dict[str, Any] = {
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "tie_word_embeddings": True,
}
"""What their config has where a config.json is silent."""

ACTIVATIONS = {"gelu_pytorch_tanh": True, "gelu_new": True, "gelu": False}
"""Their words → whether GELU is computed by tanh; the first word with a meaning is the one that is written."""


def config_to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The content of config.json. Raises ConfigError naming each field that the family cannot express."""
    scale = config.attention.scale
    # Their scale is n ** -0.5 for a whole number n.
    scalar = config.head_size if scale is None else round(scale**-2)
    faults = llama_lineage.divisible_faults(config) + rope_faults(config)
    if scale is not None and (scalar < 1 or abs(scalar**-0.5 - scale) > 1e-12):
        faults.append(f"attention.scale: must be 1 / sqrt(a whole number), not {scale!r}")
    fields.require_family("Gemma-2", config, FIXED, faults)
    assert isinstance(config.feed_forward, GEGLUConfig)
    is_tanh = config.feed_forward.approximate
    return {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        **llama_lineage.fields_to_hf(config),
        "intermediate_size": fields.inner_width(config),
        "hidden_activation": next(word for word, tanh in ACTIVATIONS.items() if tanh == is_tanh),
        "attention_bias": fields.attention_has_bias(config),
        "query_pre_attn_scalar": scalar,
        "attn_logit_softcapping": config.attention.softcap,
        "final_logit_softcapping": config.logit_softcap,
        # Releases that know no layer_types window every other layer: the whole length is no window.
        "sliding_window": config.attention.window or config.max_seq_len,
        "layer_types": windows.layer_types(config),
    }


def config_from_hf(theirs: Mapping[str, Any]) -> DecoderConfig:
    """Our config for the content of a config.json; what is left out there has the family's default.

    Raises CheckpointError naming the field when it is another family or a variant that is not built here,
    and ConfigError when its numbers do not fit each other.
    """
    wanted = {
        "use_bidirectional_attention": False,
        "partial_rotary_factor": 1,
        "quantization_config": None,
    }
    fields.require_values(theirs, "gemma2", wanted)
    theirs = DEFAULTS | dict(theirs)
    common = llama_lineage.fields_from_hf(theirs)
    scalar = fields.count(theirs, "query_pre_attn_scalar")
    types = theirs.get("layer_types") or [
        windows.GLOBAL if layer % 2 else windows.LOCAL for layer in range(common["num_layers"])
    ]
    tree = {
        **common,
        "feed_forward": {
            "d_ff": fields.count(theirs, "intermediate_size"),
            "approximate": fields.choose(theirs, "hidden_activation", "gelu_pytorch_tanh", ACTIVATIONS),
        },
        "attention": {
            "scale": None if scalar == theirs["head_dim"] else scalar**-0.5,
            "softcap": theirs["attn_logit_softcapping"],
            "bias": bool(theirs.get("attention_bias")) or None,
            **windows.window_from_hf(types, theirs["sliding_window"], common["num_layers"]),
        },
        "logit_softcap": theirs["final_logit_softcapping"],
    }
    return from_tree(DecoderConfig, merge(fields.nest(FIXED), tree), where=fields.WHERE)


def weights_to_hf(weights: Mapping[str, Tensor], config: DecoderConfig) -> dict[str, Tensor]:
    """The weights under their names, as in llama.py."""
    config_to_hf(config)
    return TABLE.weights_to_hf(weights, config)


def weights_from_hf(weights: Mapping[str, Tensor], config: DecoderConfig) -> dict[str, Tensor]:
    """The weights under our names, as in llama.py."""
    return TABLE.weights_from_hf(weights, config)
