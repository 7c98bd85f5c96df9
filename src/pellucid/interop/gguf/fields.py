"""The numbers of a GGUF file of the Llama family in Hugging Face's words, which `maps/llama.py` reads."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from pellucid.errors import CheckpointError
from pellucid.interop.gguf.container import Container

ARCHITECTURE = "llama"


def config_json(container: Container) -> dict[str, Any]:
    """Raises CheckpointError for what is missing, and for numbers that the tensors do not have: then nothing is made
    of them.
    """
    found = container.metadata.get("general.architecture")
    if found != ARCHITECTURE:
        raise CheckpointError(f"architecture {found!r}: only GGUF files of the Llama family are read here")
    fields, tensors = _Fields(container.metadata), container.tensors
    if fields.get("expert_count"):
        raise CheckpointError("llama.expert_count: a mixture of experts cannot be read from GGUF here")
    heads, width = fields.count("attention.head_count"), fields.count("embedding_length")
    kv_heads = fields.count("attention.head_count_kv", heads)
    head_dim = fields.count("attention.key_length", width // heads)
    inner, depth = fields.count("feed_forward_length"), fields.count("block_count")
    for name in ("attention.value_length", "rope.dimension_count"):
        if fields.count(name, head_dim) != head_dim:
            raise CheckpointError(f"llama.{name}: must be the size of a head, {head_dim}, to be read here")
    vocab_size = _rows(container, "token_embd.weight", columns=width)
    for name, rows in {"attn_q": heads * head_dim, "attn_k": kv_heads * head_dim, "ffn_gate": inner}.items():
        if _rows(container, f"blk.0.{name}.weight", columns=width) != rows:
            raise CheckpointError(f"blk.0.{name}.weight: must have {rows} rows by the file's own numbers")
    blocks = {name.split(".")[1] for name in tensors if re.match(r"blk\.\d+\.", name)}
    if len(blocks) != depth:
        raise CheckpointError(f"llama.block_count: is {depth}, and there are tensors of {len(blocks)} blocks")
    return {
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": inner,
        "max_position_embeddings": fields.count("context_length"),
        "rms_norm_eps": fields.real("attention.layer_norm_rms_epsilon"),
        "rope_theta": fields.real("rope.freq_base", 10_000.0),
        "rope_scaling": _scaling(fields, "rope_freqs.weight" in tensors),
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in tensors,
    }


def _rows(container: Container, name: str, *, columns: int) -> int:
    if name not in container.tensors:
        raise CheckpointError(f"{name}: is missing")
    shape = container.tensors[name].shape
    if len(shape) != 2 or shape[1] != columns:
        raise CheckpointError(f"{name}: is {list(shape)}, and llama.embedding_length is {columns}")
    return shape[0]


def _scaling(fields: _Fields, has_factors: bool) -> dict[str, Any] | None:
    kind = fields.get("rope.scaling.type") or "linear"  # so llama.cpp takes it
    factor = fields.real("rope.scaling.factor", fields.real("rope.scale_linear", 1.0)) or 1.0
    if has_factors or kind not in ("none", "linear", "yarn"):
        found = "a factor for each frequency (rope_freqs.weight)" if has_factors else f"type {kind!r}"
        raise CheckpointError(
            f"llama.rope.scaling: {found} cannot be read from GGUF here; import the hf directory of this model"
        )
    if kind == "none" or factor == 1:
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    scaling = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": fields.count(
            "rope.scaling.original_context_length", fields.count("context_length")
        ),
    }
    share = fields.real("rope.scaling.attn_factor", 1.0)
    return scaling if share == 1 else {**scaling, "attention_factor": share * (0.1 * math.log(factor) + 1)}


class _Fields:
    """Metadata of the architecture, by name."""

    def __init__(self, metadata: dict[str, Any]) -> None:
        self._metadata = metadata

    def get(self, name: str) -> Any:
        return self._metadata.get(f"{ARCHITECTURE}.{name}")

    def count(self, name: str, default: int | None = None) -> int:
        value = self.get(name) if self.get(name) is not None else default
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(f"llama.{name}: a whole number above 0 is needed, not {value!r}")
        return value

    def real(self, name: str, default: float | None = None) -> float:
        """Stored as float32: the shortest number that is the same there is what was meant."""
        value = self.get(name) if self.get(name) is not None else default
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise CheckpointError(f"llama.{name}: a number is needed, not {value!r}")
        return float(str(np.float32(value)))
