"""What has been written so far, as every step over logits sees it."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Written:
    """The ids of each row so far, the prompt's included; of an encoder-decoder, the target's."""

    ids: Int[Tensor, "B T"]
    """Padded on the left."""
    lengths: Int[Tensor, " B"] | None
    """How many of each row's last ids are no padding; None: all."""
    num_new: Int[Tensor, " B"]
    """How many of each row's last ids are new."""
