"""Kernels of our own for few rows on CPUs (kernels.cpp), as functions over tensors. They have no gradients.

torch reads a bf16 matrix at half the rate of the memory when it multiplies a single row, and knows no 8- or 4-bit
format with the group size that others use. Every function here computes what its torch counterpart computes, in
float32, and gives equal rows equal results whatever batch they come in.
"""

from __future__ import annotations

from ctypes import POINTER, byref, c_float, c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.model.native.blocks import Blocks
from pellucid.runtime.native import Built, build

SOURCE = Path(__file__).with_name("kernels.cpp")

FORMATS = {"fp32": 0, "bf16": 1, "fp16": 2, "q8": 3, "q4": 4}
"""Numbers by which kernels.cpp knows the formats."""

_BY_DTYPE = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}

_ARGUMENTS = {
    "linear": [c_int, c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int64],
    "unpack_matrix": [c_int, c_void_p, c_void_p, c_int, c_int64, c_int64],
    "attend_one": [c_int, *[c_void_p] * 7, *[c_int64] * 9, c_float, c_float],
    "rms_norm": [c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_float],
    "run_blocks": [POINTER(Blocks)],
}


def built() -> Built:
    """Whether there are such kernels here, and why not."""
    return build(SOURCE)


def is_available() -> bool:
    """Whether they can be called on this machine."""
    return _library() is not None


def linear(
    format_number: int, weight: Tensor, x: Float[Tensor, "*rows k"], n: int
) -> Float[Tensor, "*rows n"]:
    """X · wᵀ for a weight of n rows in the given format. x is float32; k a multiple of 16, if quantised of 32."""
    x = x.contiguous()
    k = x.shape[-1]
    y = x.new_empty(*x.shape[:-1], n)
    _library().linear(format_number, weight.data_ptr(), x.data_ptr(), y.data_ptr(), x.numel() // k, n, k)
    return y


def unpack(format_number: int, weight: Tensor, n: int, k: int, dtype: torch.dtype) -> Float[Tensor, "n k"]:
    """The numbers of a quantised matrix, as float32 or bfloat16."""
    y = torch.empty(n, k, dtype=dtype)
    is_bf16 = int(dtype == torch.bfloat16)
    _library().unpack_matrix(format_number, weight.data_ptr(), y.data_ptr(), is_bf16, n, k)
    return y


def can_attend_one(
    q: Float[Tensor, "B H T E"], k: Float[Tensor, "B K S E"], v: Float[Tensor, "B K S E"]
) -> bool:
    """Whether `attend_one` takes these: one query a row in float32, on a CPU, without gradients."""
    return (
        q.shape[2] == 1
        and q.dtype == torch.float32
        and q.device.type == "cpu"
        and q.shape[3] % 16 == 0
        and k.dtype == v.dtype
        and k.dtype in _BY_DTYPE
        and k.stride() == v.stride()
        and k.stride(3) == 1
        and k.stride(2) == k.shape[3]
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and is_available()
    )


def attend_one(
    q: Float[Tensor, "B H 1 E"],
    k: Float[Tensor, "B K S E"],
    v: Float[Tensor, "B K S E"],
    *,
    scale: float,
    softcap: float | None = None,
    seen: Bool[Tensor, "rows 1 1 S"] | None = None,
    bias: Float[Tensor, "*rows H 1 S"] | None = None,
) -> Float[Tensor, "B H 1 E"]:
    """softmax(cap(q kᵀ · scale) + bias + mask) v; keys and values are read in their own format."""
    batch, heads, _, e = q.shape
    kv_heads, length = k.shape[1], k.shape[2]
    q = q.contiguous()
    y, scores = torch.empty_like(q), q.new_empty(batch, heads, length)
    mask = None if seen is None else seen.to(torch.uint8).contiguous()
    added = None if bias is None else bias.float().expand(*bias.shape[:-3], heads, 1, length).contiguous()
    _library().attend_one(
        _BY_DTYPE[k.dtype],
        q.data_ptr(),
        k.data_ptr(),
        v.data_ptr(),
        None if mask is None else mask.data_ptr(),
        None if added is None else added.data_ptr(),
        scores.data_ptr(),
        y.data_ptr(),
        batch,
        heads,
        kv_heads,
        length,
        e,
        k.stride(0),
        k.stride(1),
        0 if mask is None or mask.shape[0] == 1 else length,
        0 if added is None or added.dim() == 3 or added.shape[0] == 1 else heads * length,
        scale,
        softcap or 0.0,
    )
    return y


def can_normalise(x: Tensor, gain: Tensor) -> bool:
    """Whether `rms_norm` takes these: few rows in float32, on a CPU, without gradients."""
    return (
        x.dtype == gain.dtype == torch.float32
        and x.device.type == "cpu"
        and x.shape[-1] == gain.numel()
        and x.shape[-1] % 16 == 0
        and x.numel() <= 64 * x.shape[-1]
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and is_available()
    )


def rms_norm(x: Float[Tensor, "*rows D"], gain: Float[Tensor, " D"], eps: float) -> Float[Tensor, "*rows D"]:
    """X / sqrt(mean(x²) + eps) · gain."""
    x = x.contiguous()
    y = torch.empty_like(x)
    d = x.shape[-1]
    _library().rms_norm(x.data_ptr(), gain.data_ptr(), y.data_ptr(), x.numel() // d, d, eps)
    return y


def run_blocks(blocks: Blocks) -> None:
    """All blocks of a decoder for one new position a row (see `pellucid.model.one_position`)."""
    _library().run_blocks(byref(blocks))


@cache
def _library() -> Any:
    library = built().library
    if library is None:
        return None
    for name, arguments in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    return library
