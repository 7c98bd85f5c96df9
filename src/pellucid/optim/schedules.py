"""Learning-rate schedules: the factor on the peak rate as a function of step and progress.

Progress is the share of the run that is done, 0 … 1: by steps, or by time where a run ends by time. A
schedule therefore fits either kind of run, and has no state.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from pellucid.config import Config


class _Warmup(Config):
    warmup_steps: int = Field(default=100, ge=0)
    """Steps over which the rate rises linearly from near zero to its peak."""

    def warmup(self, step: int) -> float:
        return min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0


class _Decay(_Warmup):
    final_fraction: float = Field(default=0.1, ge=0, le=1)
    """Share of the peak rate that is left at the end."""


class CosineConfig(_Decay):
    """warmup · (final + (1 - final) · (1 + cos(π · progress)) / 2).

    Source: Loshchilov & Hutter 2016, arXiv:1608.03983, eq. 5.
    """

    kind: Literal["cosine"] = "cosine"

    def factor(self, step: int, progress: float) -> float:
        decay = (1 + math.cos(math.pi * min(1.0, progress))) / 2
        return self.warmup(step) * (self.final_fraction + (1 - self.final_fraction) * decay)


class LinearConfig(_Decay):
    """warmup · (1 - (1 - final) · progress).

    Source: Defazio et al. 2023, arXiv:2310.07831 (linear decay).
    """

    kind: Literal["linear"] = "linear"

    def factor(self, step: int, progress: float) -> float:
        return self.warmup(step) * (1 - (1 - self.final_fraction) * min(1.0, progress))


class ConstantConfig(_Warmup):
    """The peak rate throughout, after warmup."""

    kind: Literal["constant"] = "constant"

    def factor(self, step: int, progress: float) -> float:
        del progress
        return self.warmup(step)


ScheduleConfig = Annotated[CosineConfig | LinearConfig | ConstantConfig, Field(discriminator="kind")]
