"""Attention with any grouping of key/value heads, over the sequence itself or over an encoded source."""

from __future__ import annotations

import math
from typing import Self

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from pellucid.config import Config
from pellucid.model.cache import KVCache
from pellucid.model.dropout import DropoutRate
from pellucid.model.kernels import AttentionContext, Kernel, attend, attention_weights
from pellucid.model.norms import NormConfig

KeysValues = tuple[Float[Tensor, "B K S E"], Float[Tensor, "B K S E"]]


class Attention(nn.Module):
    """softmax(cap(q kᵀ · scale) + bias + mask) v, with each of K key/value heads shared by H / K query heads.

    K = H is multi-head attention, K = 1 multi-query, between them grouped-query. Input and output [B, T, D].
    Keys and values come from x itself, from `source` [B, S, D] (cross-attention), or as they are (`stored`).
    With a cache, T new positions attend to all S = length + T; without one, S = T.

    query_norm, key_norm: modules over head_dim, applied before rotation (QK-norm, Henry et al. 2020,
    arXiv:2010.04245). scale: 1 / sqrt(head_dim) where left out. softcap: scores become cap · tanh(score / cap)
    (Gemma 2, arXiv:2408.00118). dropout: share of attention weights zeroed in training.
    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1; grouping: Ainslie et al. 2023, arXiv:2305.13245.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        bias: bool = False,
        *,
        query_norm: nn.Module | None = None,
        key_norm: nn.Module | None = None,
        scale: float | None = None,
        softcap: float | None = None,
        dropout: float = 0.0,
        kernel: Kernel = "auto",
    ) -> None:
        super().__init__()
        if num_heads % num_kv_heads:
            raise ValueError(f"num_heads ({num_heads}) must be a multiple of num_kv_heads ({num_kv_heads})")
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        self.query = nn.Linear(d_model, num_heads * head_dim, bias=bias)
        self.key = nn.Linear(d_model, num_kv_heads * head_dim, bias=bias)
        self.value = nn.Linear(d_model, num_kv_heads * head_dim, bias=bias)
        self.output = nn.Linear(num_heads * head_dim, d_model, bias=bias)
        self.query_norm, self.key_norm = query_norm, key_norm
        self.scale = 1 / math.sqrt(head_dim) if scale is None else scale
        self.softcap = softcap
        self.dropout = DropoutRate(dropout) if dropout else None  # none stays none, whatever others move to
        self.kernel: Kernel = kernel

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        context: AttentionContext,
        *,
        source: Float[Tensor, "B S D"] | None = None,
        stored: KeysValues | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "B T D"]:
        q = self.queries(x, context)
        k, v = stored or self.keys_and_values(x if source is None else source, context)
        if cache is not None:
            k, v = cache.append(layer, k, v)
        mixed = attend(
            q,
            k,
            v,
            context,
            scale=self.scale,
            softcap=self.softcap,
            dropout=0.0 if self.dropout is None else self.dropout.now(training=self.training),
            kernel=self.kernel,
        )  # [B, H, T, E]
        return self.output(mixed.transpose(1, 2).flatten(2))

    def queries(self, x: Float[Tensor, "B T D"], context: AttentionContext) -> Float[Tensor, "B H T E"]:
        return context.rotate(self._heads(self.query(x), self.query_norm))

    def keys_and_values(self, x: Float[Tensor, "B S D"], context: AttentionContext) -> KeysValues:
        """What queries meet: [B, K, S, E] each. For an encoded source they are the same at every step."""
        return context.rotate(self._heads(self.key(x), self.key_norm)), self._heads(self.value(x))

    def weights(
        self,
        x: Float[Tensor, "B T D"],
        context: AttentionContext,
        *,
        source: Float[Tensor, "B S D"] | None = None,
    ) -> Float[Tensor, "B H T S"]:
        """How much each query takes from each key (without dropout): for pictures, computed apart from forward."""
        k, _ = self.keys_and_values(x if source is None else source, context)
        return attention_weights(self.queries(x, context), k, context, scale=self.scale, softcap=self.softcap)

    def _heads(self, x: Float[Tensor, "B T HE"], norm: nn.Module | None = None) -> Float[Tensor, "B H T E"]:
        heads = x.unflatten(-1, (-1, self.head_dim))
        # Before the axes change places: torch's LayerNorm under torch.compile fails in the backward pass of others.
        return (heads if norm is None else norm(heads)).transpose(1, 2)


class AttentionConfig(Config):
    """How heads attend. Their number and size are the model's own keys."""

    qk_norm: bool = False
    """Whether queries and keys are normalised, each over its head, by the model's kind of norm."""
    window: int | None = Field(default=None, gt=0)
    """Keys that a query sees in windowed layers, itself included. Left out: all."""
    window_pattern: str = Field(default="L", pattern="^[LG]+$")
    """Which layers are windowed, repeated over the depth: L(ocal) ones are, G(lobal) ones see everything."""
    softcap: float | None = Field(default=None, gt=0)
    """Bound that attention scores approach smoothly. Left out: none."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of attention weights zeroed in training."""
    scale: float | None = Field(default=None, gt=0)
    """Factor of the scores. Left out: 1 / sqrt(head size)."""
    bias: bool | None = None
    """Whether attention's linear layers have biases. Left out: as the model's `bias`."""
    kernel: Kernel = "auto"
    """How it is computed; the result is the same. auto: the fastest for the device, the mask and the bias."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.window is None and self.window_pattern != "L":
            raise ValueError(
                f"window_pattern ({self.window_pattern!r}) says which layers are windowed, and window is left out; "
                "give attention.window too"
            )
        if self.window is not None and "L" not in self.window_pattern:
            raise ValueError(
                f"window ({self.window}) is that of local layers, and window_pattern ({self.window_pattern!r}) has none"
            )
        if self.kernel == "sdpa" and self.softcap is not None:
            raise ValueError(
                f"kernel 'sdpa' cannot cap scores (softcap {self.softcap}); use kernel 'auto', 'flex' or 'reference'"
            )
        if self.kernel == "flex" and self.dropout:
            raise ValueError(
                f"kernel 'flex' has no dropout (dropout {self.dropout}); use kernel 'auto' or set dropout to 0"
            )
        return self

    def window_of(self, layer: int) -> int | None:
        """The window of a layer; None where it sees everything."""
        return self.window if self.window_pattern[layer % len(self.window_pattern)] == "L" else None

    def build(
        self, d_model: int, *, num_heads: int, num_kv_heads: int, head_dim: int, norm: NormConfig, bias: bool
    ) -> Attention:
        return Attention(
            d_model,
            num_heads,
            num_kv_heads,
            head_dim,
            bias=bias if self.bias is None else self.bias,
            query_norm=norm.build(head_dim) if self.qk_norm else None,
            key_norm=norm.build(head_dim) if self.qk_norm else None,
            scale=self.scale,
            softcap=self.softcap,
            dropout=self.dropout,
            kernel=self.kernel,
        )
