"""Where residuals and norms sit: pre-norm."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.model.attention import Angles, Attention
from pellucid.model.cache import KVCache
from pellucid.model.positions import Position


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)): the residual stream itself is never normalised.

    Dropout falls on what each branch adds. [B, T, D] → [B, T, D].
    Source: Xiong et al. 2020, arXiv:2002.04745 (pre-norm).
    """

    def __init__(
        self,
        attention: Attention,
        feed_forward: nn.Module,
        attention_norm: nn.Module,
        feed_forward_norm: nn.Module,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention_norm = attention_norm
        self.attention = attention
        self.feed_forward_norm = feed_forward_norm
        self.feed_forward = feed_forward
        self.dropout = dropout

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        position: Position,
        angles: Angles = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "B T D"]:
        x = x + self._drop(self.attention(self.attention_norm(x), position, angles, cache, layer))
        return x + self._drop(self.feed_forward(self.feed_forward_norm(x)))

    def _drop(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x
