"""The Llama family of Hugging Face: RMSNorm, RoPE, SwiGLU, grouped-query attention.

Weights need new names only: both sides store matrices as [out, in] and RoPE's feature pairs as halves.
Dropout is not translated, because it does not change what a trained model computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pellucid.config import from_tree
from pellucid.errors import CheckpointError, ConfigError
from pellucid.model.decoder import DecoderConfig
from pellucid.model.feedforward import SwiGLUConfig
from pellucid.model.norms import RMSNormConfig
from pellucid.model.positions import RotaryPositionConfig
from pellucid.model.stats import on_meta

NAMES = {
    "embedding.table": "model.embed_tokens.weight",
    "blocks.{layer}.attention_norm.gain": "model.layers.{layer}.input_layernorm.weight",
    "blocks.{layer}.attention.query.weight": "model.layers.{layer}.self_attn.q_proj.weight",
    "blocks.{layer}.attention.query.bias": "model.layers.{layer}.self_attn.q_proj.bias",
    "blocks.{layer}.attention.key.weight": "model.layers.{layer}.self_attn.k_proj.weight",
    "blocks.{layer}.attention.key.bias": "model.layers.{layer}.self_attn.k_proj.bias",
    "blocks.{layer}.attention.value.weight": "model.layers.{layer}.self_attn.v_proj.weight",
    "blocks.{layer}.attention.value.bias": "model.layers.{layer}.self_attn.v_proj.bias",
    "blocks.{layer}.attention.output.weight": "model.layers.{layer}.self_attn.o_proj.weight",
    "blocks.{layer}.attention.output.bias": "model.layers.{layer}.self_attn.o_proj.bias",
    "blocks.{layer}.feed_forward_norm.gain": "model.layers.{layer}.post_attention_layernorm.weight",
    "blocks.{layer}.feed_forward.gate.weight": "model.layers.{layer}.mlp.gate_proj.weight",
    "blocks.{layer}.feed_forward.gate.bias": "model.layers.{layer}.mlp.gate_proj.bias",
    "blocks.{layer}.feed_forward.up.weight": "model.layers.{layer}.mlp.up_proj.weight",
    "blocks.{layer}.feed_forward.up.bias": "model.layers.{layer}.mlp.up_proj.bias",
    "blocks.{layer}.feed_forward.down.weight": "model.layers.{layer}.mlp.down_proj.weight",
    "blocks.{layer}.feed_forward.down.bias": "model.layers.{layer}.mlp.down_proj.bias",
    "final_norm.gain": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
"""Our parameter → theirs."""


# Configs --------------------------------------------------------------------------------------------


def config_to_hf(config: DecoderConfig) -> dict[str, Any]:
    """The content of config.json. Raises ConfigError naming each field that the family cannot express.

    The base of RoPE is written twice: `rope_parameters` is read by transformers 5, `rope_theta` by 4.
    Ids of special tokens are the tokenizer's to say and are written as unknown.
    """
    norm, position, feed_forward = config.norm, config.position, config.feed_forward
    faults: list[str] = []
    if config.vocab_size is None:
        faults.append("vocab_size: a value is needed")
    if config.d_model % config.num_heads:
        faults.append(f"d_model: {config.d_model} is not a multiple of num_heads ({config.num_heads})")
    if not isinstance(norm, RMSNormConfig):
        faults.append(f"norm.kind: must be 'rmsnorm', not {norm.kind!r}")
    if not isinstance(position, RotaryPositionConfig):
        faults.append(f"position.kind: must be 'rope', not {position.kind!r}")
    if not isinstance(feed_forward, SwiGLUConfig):
        faults.append(f"feed_forward.kind: must be 'swiglu', not {feed_forward.kind!r}")
    if faults:
        raise ConfigError("not a model of the Llama family:\n" + "\n".join(faults))
    assert isinstance(norm, RMSNormConfig)
    assert isinstance(position, RotaryPositionConfig)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": _shapes(config)["blocks.0.feed_forward.up.weight"][0],
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": norm.eps,
        "rope_theta": position.theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": position.theta},
        "attention_bias": config.bias,
        "mlp_bias": config.bias,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def config_from_hf(theirs: Mapping[str, Any]) -> DecoderConfig:
    """Our config for the content of a config.json; what is left out there has the family's default.

    Raises CheckpointError naming the field when it is another family or a variant that is not built here,
    and ConfigError when its numbers do not fit each other.
    """
    _refuse_variants(theirs)
    heads, width = _count(theirs, "num_attention_heads"), _count(theirs, "hidden_size")
    kv_heads, head_dim = theirs.get("num_key_value_heads"), theirs.get("head_dim")
    tree = {
        "vocab_size": _count(theirs, "vocab_size"),
        "d_model": width,
        "num_layers": _count(theirs, "num_hidden_layers"),
        "num_heads": heads,
        "num_kv_heads": None if kv_heads == heads else kv_heads,
        "head_dim": None if head_dim == width / heads else head_dim,
        "max_seq_len": theirs.get("max_position_embeddings", 2048),
        "norm": {"kind": "rmsnorm", "eps": theirs.get("rms_norm_eps", 1e-6)},
        "position": {"kind": "rope", "theta": _rope_theta(theirs)},
        "feed_forward": {"kind": "swiglu", "d_ff": _count(theirs, "intermediate_size")},
        "bias": bool(theirs.get("attention_bias")),
        "tie_embeddings": bool(theirs.get("tie_word_embeddings")),
    }
    return from_tree(DecoderConfig, tree, where="config.json, in this project's words")


def _count(theirs: Mapping[str, Any], field: str) -> int:
    value = theirs.get(field)
    if not isinstance(value, int) or value < 1:
        raise CheckpointError(f"config.json: {field}: a whole number above 0 is needed, not {value!r}")
    return value


def _refuse_variants(theirs: Mapping[str, Any]) -> None:
    attention_bias = bool(theirs.get("attention_bias"))
    variants = {
        "model_type": (theirs.get("model_type"), "llama"),
        "hidden_act": (theirs.get("hidden_act", "silu"), "silu"),
        "mlp_bias": (bool(theirs.get("mlp_bias")), attention_bias),
        "partial_rotary_factor": (theirs.get("partial_rotary_factor", 1), 1),
        "quantization_config": (theirs.get("quantization_config"), None),
    }
    for field, (value, wanted) in variants.items():
        if value != wanted:
            also = ", the value of attention_bias" if field == "mlp_bias" else ""
            raise CheckpointError(
                f"config.json: {field}: {value!r} cannot be read here, only {wanted!r}{also}"
            )


def _rope_theta(theirs: Mapping[str, Any]) -> float:
    thetas = {theirs["rope_theta"]} if theirs.get("rope_theta") is not None else set[float]()
    for field in ("rope_parameters", "rope_scaling"):  # transformers 5 and 4
        rope = theirs.get(field) or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise CheckpointError(
                f"config.json: {field}: rope_type {kind!r} cannot be read here, only 'default'"
            )
        if rope.get("partial_rotary_factor", 1) != 1:
            raise CheckpointError(
                f"config.json: {field}: a partial_rotary_factor other than 1 cannot be read here"
            )
        if rope.get("rope_theta") is not None:
            thetas.add(rope["rope_theta"])
    if len(thetas) > 1:
        raise CheckpointError(
            f"config.json: rope_theta: two values that differ: {sorted(thetas)}; keep one of them"
        )
    return thetas.pop() if thetas else 10_000.0


# Weights --------------------------------------------------------------------------------------------


def weights_to_hf(weights: Mapping[str, Tensor], config: DecoderConfig) -> dict[str, Tensor]:
    """The same tensors under their names. A tied head is not written twice.

    Raises ConfigError as `config_to_hf`, and CheckpointError listing the tensors that do not fit the config.
    """
    config_to_hf(config)
    shapes = _shapes(config)
    _require_fit(weights, shapes)
    names = _names(config)
    return {names[ours]: weights[ours] for ours in shapes}


def weights_from_hf(weights: Mapping[str, Tensor], config: DecoderConfig) -> dict[str, Tensor]:
    """The same tensors under our names, for `DecoderLM(config).load_state_dict`.

    A head that repeats a tied table and the frequency buffers of old files are left out.
    Raises CheckpointError listing the tensors that do not fit the config.
    """
    names, shapes = _names(config), _shapes(config)
    kept = {name: tensor for name, tensor in weights.items() if not name.endswith(".rotary_emb.inv_freq")}
    head, table = names["output.weight"], names["embedding.table"]
    if (
        config.tie_embeddings
        and head in kept
        and table in kept
        and not torch.equal(kept.pop(head), kept[table])
    ):
        raise CheckpointError(
            f"{head} differs from {table} although the config ties them; set tie_word_embeddings to false"
        )
    _require_fit(kept, {names[ours]: shape for ours, shape in shapes.items()})
    return {ours: kept[names[ours]] for ours in shapes}


def _names(config: DecoderConfig) -> dict[str, str]:
    return {
        ours.format(layer=layer): theirs.format(layer=layer)
        for ours, theirs in NAMES.items()
        for layer in range(config.num_layers)
    }


def _shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in on_meta(config).state_dict().items()}


def _require_fit(weights: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    faults = [f"missing: {name} {list(shape)}" for name, shape in shapes.items() if name not in weights]
    faults += [
        f"unexpected: {name} {list(tensor.shape)}" for name, tensor in weights.items() if name not in shapes
    ]
    faults += [
        f"wrong shape: {name} is {list(weights[name].shape)}, the config says {list(shape)}"
        for name, shape in shapes.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    if faults:
        raise CheckpointError(f"{len(faults)} tensors do not fit the config:\n" + "\n".join(faults))
