"""What has been written so far, as every step over logits sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Written:
    """The ids of each row so far, the prompt's included; of an encoder-decoder, the target's."""

    ids: Int[Tensor, "B T"]
    """Padded on the left."""
    lengths: Int[Tensor, " B"] | None
    """How many of each row's last ids are no padding; None: all."""
    num_new: Int[Tensor, " B"]
    """How many of each row's last ids are new."""

    def held(self) -> Bool[Tensor, "B T"]:
        """Where the ids are no padding."""
        if self.lengths is None:
            return torch.ones_like(self.ids, dtype=torch.bool)
        return self._last(self.lengths)

    def new(self) -> Bool[Tensor, "B T"]:
        """Where the ids were generated, not given."""
        return self._last(self.num_new)

    def rows(self, first: int, end: int) -> Written:
        """Those rows alone."""
        lengths = None if self.lengths is None else self.lengths[first:end]
        return Written(self.ids[first:end], lengths, self.num_new[first:end])

    def _last(self, counts: Int[Tensor, " B"]) -> Bool[Tensor, "B T"]:
        width = self.ids.shape[1]
        from_the_end = torch.arange(width, 0, -1, device=self.ids.device)
        return from_the_end <= counts.to(self.ids.device)[:, None]


Step = Callable[[Float[Tensor, "B V"], Written], Float[Tensor, "B V"]]
"""One change to the logits of the next id, given all that is written. It changes nothing else."""
