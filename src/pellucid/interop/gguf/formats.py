"""The number formats of a GGUF file, and which tensor is kept in which."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from torch import Tensor

from pellucid.errors import ConfigError

GGUFFormat = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"]
FILE_TYPES: dict[GGUFFormat, str] = {
    "f32": "ALL_F32",
    "f16": "MOSTLY_F16",
    "bf16": "MOSTLY_BF16",
    "q8_0": "MOSTLY_Q8_0",
    "q4_0": "MOSTLY_Q4_0",
    "q4_1": "MOSTLY_Q4_1",
}
"""What the file is said to be."""
_HEAD, _TABLE = "output.weight", "token_embd.weight"
_EXACT = ("position_embd.", "ffn_gate_inp.")
"""Learned positions and the router of experts: small, and added or compared as they are."""


def format_of(name: str, shape: tuple[int, ...], wanted: GGUFFormat, *, is_tied: bool) -> str:
    """The word of ggml for the format of a tensor.

    Vectors stay in float32. In a 4-bit file the head has 8 bits, as llama.cpp's own quantiser gives it more than the
    rest. A matrix whose rows are no whole blocks of 32 is kept in f16.
    """
    if len(shape) == 1 or any(word in name for word in _EXACT):
        return "F32"
    if wanted in ("q4_0", "q4_1") and name == (_TABLE if is_tied else _HEAD):
        wanted = "q8_0"
    if wanted.startswith("q") and shape[-1] % 32:
        return "F16"
    return wanted.upper()


def encoded(gguf: Any, name: str, tensor: Tensor, number_format: str) -> np.ndarray[Any, Any]:
    """The tensor's numbers, or its blocks of bytes. Raises ConfigError for a number too large for f16."""
    array = tensor.detach().to("cpu").float().contiguous().numpy()
    if number_format == "F16" and np.abs(array).max() > np.finfo(np.float16).max:
        raise ConfigError(
            f"GGUF: {name} has numbers up to {np.abs(array).max():.3g}, and f16 ends at 65504; quantize to bf16 or f32"
        )
    return gguf.quants.quantize(array, gguf.GGMLQuantizationType[number_format])
