"""Where residuals and norms sit: pre-norm, post-norm, sandwich norm, or both branches in parallel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from pellucid.model.attention import Attention
from pellucid.model.cache import KVCache
from pellucid.model.dropout import DropoutRate, drop
from pellucid.model.interface import Auxiliary
from pellucid.model.kernels import AttentionContext

Layout = Literal["pre_norm", "post_norm", "sandwich_norm", "parallel"]


class Block(nn.Module):
    """Attention, then (in a decoder that reads a source) cross-attention, then the feed-forward layer.

    With f a branch, the residual stream x becomes

        pre_norm       x + f(norm(x))            the stream itself is never normalised
        post_norm      norm(x + f(x))            the original
        sandwich_norm  x + out_norm(f(norm(x)))  as in Gemma 2
        parallel       x + Σ f(norm(x))          all branches read one normalised input, as in GPT-J

    `norm` makes a norm of d_model features. Dropout falls on what each branch adds. [B, T, D] → [B, T, D],
    and the feed-forward layer's side losses.
    Sources, in that order: Xiong et al. 2020, arXiv:2002.04745; Vaswani et al. 2017, arXiv:1706.03762;
    Ding et al. 2021, arXiv:2105.13290; Wang & Komatsuzaki 2021 (GPT-J-6B).
    """

    def __init__(
        self,
        attention: Attention,
        feed_forward: nn.Module,
        norm: Callable[[], nn.Module],
        *,
        layout: Layout = "pre_norm",
        cross_attention: Attention | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layout, self.dropout = layout, DropoutRate(dropout)
        shares_norm, has_out_norms = layout == "parallel", layout == "sandwich_norm"
        self.attention_norm = norm()
        self.attention = attention
        self.attention_out_norm = norm() if has_out_norms else None
        has_cross = cross_attention is not None
        self.cross_attention_norm = norm() if has_cross and not shares_norm else None
        self.cross_attention = cross_attention
        self.cross_attention_out_norm = norm() if has_cross and has_out_norms else None
        self.feed_forward_norm = None if shares_norm else norm()
        self.feed_forward = feed_forward
        self.feed_forward_out_norm = norm() if has_out_norms else None

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        context: AttentionContext,
        *,
        source: Float[Tensor, "B S D"] | None = None,
        source_context: AttentionContext | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> tuple[Float[Tensor, "B T D"], Auxiliary]:
        if self.layout == "parallel":
            h = self.attention_norm(x)
            added = self.attention(h, context, cache=cache, layer=layer)
            if self.cross_attention is not None:
                added = added + self._cross(h, source, source_context, cache, layer)
            y, auxiliary = self._feed(h)
            return x + drop(added + y, self.dropout.now(training=self.training)), auxiliary

        h = self._enter(x, self.attention_norm)
        y = self.attention(h, context, cache=cache, layer=layer)
        x = self._leave(x, y, self.attention_norm, self.attention_out_norm)
        if self.cross_attention is not None:
            h = self._enter(x, self.cross_attention_norm)
            y = self._cross(h, source, source_context, cache, layer)
            x = self._leave(x, y, self.cross_attention_norm, self.cross_attention_out_norm)
        h = self._enter(x, self.feed_forward_norm)
        y, auxiliary = self._feed(h)
        return self._leave(x, y, self.feed_forward_norm, self.feed_forward_out_norm), auxiliary

    def _enter(self, x: Tensor, norm: nn.Module | None) -> Tensor:
        return x if norm is None or self.layout == "post_norm" else norm(x)

    def _leave(self, x: Tensor, y: Tensor, norm: nn.Module | None, out_norm: nn.Module | None) -> Tensor:
        x = x + drop(y if out_norm is None else out_norm(y), self.dropout.now(training=self.training))
        return norm(x) if norm is not None and self.layout == "post_norm" else x

    def _cross(
        self,
        h: Tensor,
        source: Tensor | None,
        context: AttentionContext | None,
        cache: KVCache | None,
        layer: int,
    ) -> Tensor:
        assert self.cross_attention is not None
        if context is None:
            raise ValueError("this block reads an encoded source; give `source` and `source_context`")
        if cache is not None and cache.cross is not None:
            stored = cache.cross.keys[layer], cache.cross.values[layer]
            return self.cross_attention(h, context, stored=stored)
        return self.cross_attention(h, context, source=source)

    def _feed(self, h: Tensor) -> tuple[Tensor, Auxiliary]:
        y = self.feed_forward(h)
        return y if isinstance(y, tuple) else (y, {})
