"""A model with the digits that a GGUF file keeps: what the other side is to be compared with."""

from __future__ import annotations

import copy

import torch

from pellucid.interop.gguf.formats import GGUFFormat, encoded, format_of
from pellucid.model import Transformer
from pellucid.runtime.extras import require

_NAMES = {
    "embedding.table": "token_embd.weight",
    "output.weight": "output.weight",
    "position.table": "position_embd.weight",
}
"""Ours → GGUF's, where its format depends on the name."""


@torch.no_grad()
def rounded(model: Transformer, number_format: GGUFFormat) -> Transformer:
    """A copy in float32. Rows of matrices are those of the file, in another order at most, so that their blocks are."""
    gguf = require("gguf", extra="export", purpose="exporting to GGUF")
    found = copy.deepcopy(model).float()
    is_tied = bool(getattr(model.config, "tie_embeddings", False))
    for name, parameter in found.named_parameters():
        theirs = "ffn_gate_inp.weight" if name.endswith("router.weight") else _NAMES.get(name, name)
        kind = format_of(theirs, tuple(parameter.shape), number_format, is_tied=is_tied)
        blocks = encoded(gguf, name, parameter, kind)
        numbers = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind])
        parameter.copy_(torch.from_numpy(numbers).reshape(parameter.shape))
    return found
