"""What attention needs besides queries, keys and values, made once a forward pass and shared by its layers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from pellucid.model.masks import Mask
from pellucid.model.positions import Angles, Position


@dataclass(frozen=True)
class AttentionContext:
    """The mask, the position scheme's rotation and bias, and what a kernel prepared of them."""

    mask: Mask = field(default_factory=Mask)
    dense: Bool[Tensor, "rows 1 T S"] | None = None
    """The mask written out, where a kernel needs that (see `Mask.dense`)."""
    bias: Float[Tensor, "*B H T S"] | None = None
    """What is added to the scores."""
    blocks: BlockMask | None = None
    """The mask as FlexAttention takes it, where that kernel is used."""
    position: Position | None = None
    angles: Angles = None

    def rotate(self, x: Float[Tensor, "B heads T E"]) -> Float[Tensor, "B heads T E"]:
        if self.position is None or self.angles is None:
            return x
        return self.position.rotate(x, self.angles)

    def seen(self, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "rows 1 T S"] | None:
        """The mask written out whatever the kernels know; None where every query sees every key."""
        if self.dense is not None:
            return self.dense
        if not self.mask.is_plain:
            return self.mask.dense(queries, keys, device)
        if not self.mask.is_causal or queries == 1:
            return None
        return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)[None, None]
