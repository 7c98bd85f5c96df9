"""How a run has fared: what the guard counts and remembers, and what resume must know of it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Health:
    """Counts over the whole run, steps that were gone back over included, and the running measure of its loss."""

    skipped: int = 0
    """Updates left out because the loss or the gradient was not finite."""
    skipped_lately: int = 0
    """How many of them the guard remembers: it forgets them after enough good updates in a row."""
    made_in_a_row: int = 0
    """Updates made since the last one that was left out."""
    faulty_since: int = 0
    """The step of the first of `skipped_lately`."""
    overflows: int = 0
    """Updates left out because the gradient scaler had scaled too far, as is expected now and then."""
    spikes: int = 0
    """Updates whose loss was far above what was to be expected."""
    rollbacks: int = 0
    lr_factor: float = 1.0
    """What rollbacks have left of the learning rate."""
    good_step: int = -1
    """The last step whose weights are known to be sound: the update after it, or an evaluation,
    was finite. -1: none yet."""
    losses: int = 0
    """How many losses the mean and the variance are made of."""
    mean: float = 0.0
    variance: float = 0.0

    def limit(self, *, deviations: float, nats: float) -> float:
        """The loss above which it is a spike: mean + max(deviations · sqrt(variance), nats)."""
        return self.mean + max(deviations * math.sqrt(self.variance), nats)

    def measure(self, loss: float, window: int) -> None:
        """Take a loss x into the running mean m and variance v: d = x - m, m ← m + a d, v ← (1 - a) (v + a d²).

        a = 1 / losses over the first `window` of them, which gives their plain mean and variance, then 1 / window.
        Source: Finch 2009, "Incremental calculation of weighted mean and variance", sections 4 and 9.
        """
        self.losses = min(self.losses + 1, window)
        share, distance = 1 / self.losses, loss - self.mean
        self.mean += share * distance
        self.variance = (1 - share) * (self.variance + share * distance**2)
