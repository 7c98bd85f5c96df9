"""RoPE's pairs: in halves here and in Hugging Face's files, interleaved in llama.cpp's files of the Llama family."""

from __future__ import annotations

from torch import Tensor


def interleave(rows: Tensor, heads: int) -> Tensor:
    """[heads · 2 · E/2, …] → [heads · E/2 · 2, …]: rows a₀ a₁ … b₀ b₁ … of a head become a₀ b₀ a₁ b₁ …"""
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(rows.shape)


def separate(rows: Tensor, heads: int) -> Tensor:
    """The inverse of `interleave`."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(rows.shape)
