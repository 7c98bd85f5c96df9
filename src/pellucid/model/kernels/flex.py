"""FlexAttention: torch's compiler writes a fused kernel for the mask, the bias and the soft-cap at hand."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from pellucid.model.interface import soft_cap
from pellucid.model.kernels.context import AttentionContext
from pellucid.model.masks import Mask


def block_mask(mask: Mask, queries: int, keys: int, device: torch.device) -> BlockMask | None:
    """Which blocks of the score matrix are empty; None where every query sees every key."""
    if mask.is_plain and not mask.is_causal:
        return None
    past = keys - queries

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        del head
        return mask.sees(row, query, key, past)

    return create_block_mask(sees, mask.rows, None, queries, keys, device=device)


def flex(
    q: Float[Tensor, "B H T E"],
    k: Float[Tensor, "B K S E"],
    v: Float[Tensor, "B K S E"],
    context: AttentionContext,
    *,
    scale: float,
    softcap: float | None = None,
) -> Float[Tensor, "B H T E"]:
    """The same function as reference_attention without dropout. Raises ValueError for training on a CPU.

    Source: Dong et al. 2024, arXiv:2412.05496.
    """
    if (
        q.device.type == "cpu"
        and torch.is_grad_enabled()
        and any(x is not None and x.requires_grad for x in (q, k, v, context.bias))
    ):
        raise ValueError(
            "attention.kernel 'flex' has no backward pass on CPUs; train with attention.kernel 'auto'"
        )
    bias, blocks = context.bias, context.blocks
    if blocks is None:  # a context made by hand, or nothing to mask
        blocks = block_mask(context.mask, q.shape[2], k.shape[2], q.device)

    def change(score: Tensor, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        if softcap is not None:
            score = soft_cap(score, softcap)
        if bias is not None:
            score = score + (bias[head, query, key] if bias.dim() == 3 else bias[row, head, query, key])
        return score

    with _quiet() if not torch.compiler.is_compiling() else nullcontext():
        return cast(
            Tensor,
            _kernel(q.device)(
                q,
                k,
                v,
                score_mod=change if softcap is not None or bias is not None else None,
                block_mask=blocks,
                scale=scale,
                enable_gqa=q.shape[1] != k.shape[1],
            ),
        )


def _kernel(device: torch.device) -> Any:
    """Fused where it pays; elsewhere torch's own unfused form, which computes every score."""
    return _compiled() if device.type == "cuda" and not torch.compiler.is_compiling() else flex_attention


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=False)


@contextmanager
def _quiet() -> Generator[None]:
    """Without torch's advice to compile, which was weighed above."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile", UserWarning)
        yield
