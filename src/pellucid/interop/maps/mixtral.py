"""The Mixtral family of Hugging Face: Llama with a mixture of experts, and a window on every layer or on none.

Files hold a tensor for each expert; transformers 5 stacks them when it reads them. Dropout, `vocab_multiple`
and the router's side losses are not translated: they do not change what a trained model computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pellucid.config import from_tree, merge
from pellucid.interop.maps import fields, llama_lineage
from pellucid.interop.maps.naming import Unstacked
from pellucid.interop.maps.rope import rope_faults
from pellucid.model import DecoderConfig
from pellucid.model.feedforward import MoEConfig

_LAYER = "model.layers.{layer}.block_sparse_moe"
TABLE = llama_lineage.name_table(
    {
        "blocks.{layer}.feed_forward.router.weight": f"{_LAYER}.gate.weight",
        "blocks.{layer}.feed_forward.gate": Unstacked(f"{_LAYER}.experts.{{expert}}.w1.weight"),
        "blocks.{layer}.feed_forward.up": Unstacked(f"{_LAYER}.experts.{{expert}}.w3.weight"),
        "blocks.{layer}.feed_forward.down": Unstacked(f"{_LAYER}.experts.{{expert}}.w2.weight"),
    }
)

FIXED = {
    **llama_lineage.FIXED,
    "block": "pre_norm",
    "feed_forward.kind": "moe",
    "feed_forward.normalize_top_k": True,
    "attention.qk_norm": False,
    "attention.softcap": None,
    "bias": False,
    "scale_embeddings": False,
    "logit_softcap": None,
}

DEFAULTS: dict[str, Any] = {
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "num_experts_per_tok": 2,
    "num_local_experts": 8,
}
"""What their config has where a config.json is silent."""


def config_to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The content of config.json. Raises ConfigError naming each field that the family cannot express."""
    pattern = config.attention.window_pattern
    faults = fields.scale_faults(config) + rope_faults(config)
    if "G" in pattern:
        faults.append(f"attention.window_pattern: must be 'L', one window on all layers, not {pattern!r}")
    if fields.attention_has_bias(config):
        faults.append("attention.bias: must be False, not True")
    fields.require_family("Mixtral", config, FIXED, faults)
    assert isinstance(config.feed_forward, MoEConfig)
    return {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        **llama_lineage.fields_to_hf(config),
        "intermediate_size": fields.inner_width(config),
        "hidden_act": "silu",
        "num_local_experts": config.feed_forward.num_experts,
        "num_experts_per_tok": config.feed_forward.top_k,
        "sliding_window": config.attention.window,
    }


def config_from_hf(theirs: Mapping[str, Any]) -> DecoderConfig:
    """Our config for the content of a config.json; what is left out there has the family's default.

    Raises CheckpointError naming the field when it is another family or a variant that is not built here,
    and ConfigError when its numbers do not fit each other.
    """
    wanted = {"hidden_act": "silu", "partial_rotary_factor": 1, "quantization_config": None}
    fields.require_values(theirs, "mixtral", wanted)
    theirs = DEFAULTS | dict(theirs)
    tree = {
        **llama_lineage.fields_from_hf(theirs, default_theta=1e6),
        "feed_forward": {
            "d_ff": fields.count(theirs, "intermediate_size"),
            "num_experts": fields.count(theirs, "num_local_experts"),
            "top_k": fields.count(theirs, "num_experts_per_tok"),
        },
        "attention": {"window": theirs.get("sliding_window")},
    }
    return from_tree(DecoderConfig, merge(fields.nest(FIXED), tree), where=fields.WHERE)


def weights_to_hf(weights: Mapping[str, Tensor], config: DecoderConfig) -> dict[str, Tensor]:
    """The weights under their names, as in llama.py."""
    config_to_hf(config)
    return TABLE.weights_to_hf(weights, config)


def weights_from_hf(weights: Mapping[str, Tensor], config: DecoderConfig) -> dict[str, Tensor]:
    """The weights under our names, as in llama.py."""
    return TABLE.weights_from_hf(weights, config)
