"""The numbers of a config.json against the tensors beside it, before anything is built by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pellucid.errors import CheckpointError

_COUNTS = ("n_layer", "num_hidden_layers", "num_layers", "num_decoder_layers", "num_local_experts")
"""Each layer and each expert has tensors of its own."""
_SIDES = (
    *(
        "d_ff",
        "d_kv",
        "d_model",
        "head_dim",
        "hidden_size",
        "intermediate_size",
        "n_embd",
        "n_head",
        "n_inner",
    ),
    *(
        "num_attention_heads",
        "num_heads",
        "num_key_value_heads",
        "relative_attention_num_buckets",
        "vocab_size",
    ),
)
"""Each is a side of some tensor, or a part of one."""
_FEW = 1000
"""So many layers are built in no time, without memory."""


def require_sizes(theirs: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError for a number that is larger than the tensors allow.

    A config that asks for 10¹² layers would else be built, layer by layer, to find that the weights do not fit it.
    Small differences are left to that finding, which names every tensor.
    """
    longest = max((side for tensor in weights.values() if tensor.numel() for side in tensor.shape), default=0)
    for fields, most, there in (
        (_COUNTS, max(len(weights), _FEW), f"{len(weights)} tensors"),
        (_SIDES, max(longest, _FEW**2), f"tensors whose longest side is {longest}"),
    ):
        for field in fields:
            value = theirs.get(field)
            if isinstance(value, int) and value > most:
                raise CheckpointError(
                    f"config.json: {field}: {value} does not fit the weights beside it, {there}; fetch both again"
                )
