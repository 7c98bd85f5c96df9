"""What Llama and its descendants write alike: RMSNorm, RoPE, grouped queries, and their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pellucid.interop.maps.fields import count
from pellucid.interop.maps.naming import Names, NameTable, VocabularyRows
from pellucid.interop.maps.rope import rope_from_hf, rope_to_hf
from pellucid.model import DecoderConfig
from pellucid.model.norms import RMSNormConfig
from pellucid.model.positions import RotaryPositionConfig

FIXED = {
    "kind": "decoder",
    "norm.kind": "rmsnorm",
    "position.kind": "rope",
    "position.fraction": 1.0,
}
"""Our fields that every family of the lineage has in one way only."""

NAMES: Names = {
    "embedding.table": VocabularyRows("model.embed_tokens.weight"),
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
    "output.weight": VocabularyRows("lm_head.weight"),
}
"""Ours → theirs, as in Llama. Both sides store matrices as [out, in] and RoPE's feature pairs as halves."""


def name_table(changes: Names) -> NameTable:
    """Llama's table with a family's own rows instead of, or besides, Llama's."""
    return NameTable(
        names={**NAMES, **changes},
        copies={"lm_head.weight": "model.embed_tokens.weight"},
        ignored=(".rotary_emb.inv_freq",),
        prefix="model.",
    )


def divisible_faults(config: DecoderConfig) -> list[str]:
    """For families whose own check wants whole heads in the width, although head_dim is free."""
    if config.d_model % config.num_heads == 0:
        return []
    return [f"d_model: {config.d_model} is not a multiple of num_heads ({config.num_heads})"]


def fields_to_hf(config: DecoderConfig) -> dict[str, Any]:
    """Ids of special tokens are the tokenizer's to say and are written as unknown."""
    assert isinstance(config.norm, RMSNormConfig)
    assert isinstance(config.position, RotaryPositionConfig)
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.norm.eps,
        **rope_to_hf(config.position),
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def fields_from_hf(theirs: Mapping[str, Any], *, default_theta: float = 10_000.0) -> dict[str, Any]:
    """The same fields as a tree of ours. Raises CheckpointError naming a field that cannot be read."""
    heads, width = count(theirs, "num_attention_heads"), count(theirs, "hidden_size")
    kv_heads, head_dim = theirs.get("num_key_value_heads"), theirs.get("head_dim")
    return {
        "vocab_size": count(theirs, "vocab_size"),
        "d_model": width,
        "num_layers": count(theirs, "num_hidden_layers"),
        "num_heads": heads,
        "num_kv_heads": None if kv_heads == heads else kv_heads,
        "head_dim": None if head_dim == width / heads else head_dim,
        "max_seq_len": count(theirs, "max_position_embeddings"),
        "norm": {"kind": "rmsnorm", "eps": theirs["rms_norm_eps"]},
        "position": rope_from_hf(theirs, default_theta),
        "tie_embeddings": bool(theirs.get("tie_word_embeddings")),
    }
