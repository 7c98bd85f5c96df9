"""The numbers of a model in GGUF's words, and those that GGUF keeps in a tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pellucid.model import DecoderConfig
from pellucid.model.positions.rope_scaling import RopeScaling

Numbers = dict[str, int | float | str]


def metadata(theirs: Mapping[str, Any], config: DecoderConfig) -> Numbers:
    """Without the architecture's name before them: `context_length` and so on. `theirs` is the config.json."""
    found: Numbers = {
        "context_length": config.max_seq_len,
        "embedding_length": config.d_model,
        "block_count": config.num_layers,
        "feed_forward_length": theirs["n_inner" if "n_inner" in theirs else "intermediate_size"],
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.kv_heads,
        "attention.key_length": config.head_size,
        "attention.value_length": config.head_size,
    }
    norm = config.norm
    if norm.kind == "rmsnorm":
        found["attention.layer_norm_rms_epsilon"] = norm.eps
    elif norm.kind == "layernorm":
        found["attention.layer_norm_epsilon"] = norm.eps
    if config.position.kind == "rope":
        found |= {"rope.freq_base": config.position.theta, "rope.dimension_count": config.head_size}
        found |= _scaling(config.position.scaling)
    if "num_local_experts" in theirs:
        found |= {
            "expert_count": theirs["num_local_experts"],
            "expert_used_count": theirs["num_experts_per_tok"],
        }
    if config.attention.softcap is not None:
        found["attn_logit_softcapping"] = config.attention.softcap
    if config.logit_softcap is not None:
        found["final_logit_softcapping"] = config.logit_softcap
    if theirs["model_type"] == "gemma2":
        found["attention.sliding_window"] = theirs["sliding_window"]
    return found


def _scaling(scaling: RopeScaling) -> Numbers:
    if scaling.kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": scaling.factor}
    if scaling.kind == "yarn":
        return {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": scaling.factor,
            "rope.scaling.original_context_length": scaling.original_max_seq_len,
            # What is left over the factor that llama.cpp takes by itself.
            "rope.scaling.attn_factor": scaling.magnitude / (0.1 * math.log(scaling.factor) + 1),
        }
    return {}


def frequency_factors(config: DecoderConfig) -> Tensor | None:
    """What Llama 3's scaling divides the frequencies by, [E / 2]: a tensor of its own. None without it."""
    position = config.position
    if position.kind != "rope" or position.scaling.kind != "llama3":
        return None
    pairs = torch.arange(0, config.head_size, 2, dtype=torch.float64)
    plain = position.theta ** (-pairs / config.head_size)
    return (plain / position.scaling.scale(plain, position.theta)).float()
