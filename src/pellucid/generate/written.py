"""What a step over logits may look at: the ids written so far."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Written:
    """The ids of every row so far, padded on the left; of an encoder-decoder, the target's.

    lengths: how many of each row's last ids are no padding; None: all. num_new: how many of each row's last
    ids are new, that is, were chosen and not given.
    """

    ids: Int[Tensor, "B T"]
    lengths: Int[Tensor, " B"] | None
    num_new: Int[Tensor, " B"]
