"""Learning-rate schedules: the factor on the peak rate as a function of step and progress.

Progress is the share of the run that is done, 0 … 1: by steps, or by time where a run ends by time. A
schedule therefore fits either kind of run, and has no state.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pellucid.config import Config

_DEFAULT_WARMUP_STEPS = 100


class _Warmup(Config):
    warmup_steps: int | None = Field(default=None, ge=0)
    """Steps over which the rate rises linearly from near zero to its peak. Left out: 100, or by warmup_tokens."""
    warmup_tokens: int | None = Field(default=None, ge=0)
    """The same in tokens, instead of steps: whole steps of train.batch_tokens, rounded up."""

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_steps is not None and self.warmup_tokens is not None:
            raise ValueError(
                "warmup_steps and warmup_tokens both say how long the warmup is; give one of them (an empty value, as "
                "in train.schedule.warmup_steps=, takes the other out)"
            )
        return self

    def in_steps(self, batch_tokens: int) -> Self:
        """The same schedule with its warmup stated in steps of `batch_tokens` tokens."""
        steps = self.warmup_steps
        if self.warmup_tokens is not None:
            steps = math.ceil(self.warmup_tokens / batch_tokens)
        elif steps is None:
            steps = _DEFAULT_WARMUP_STEPS
        return self.model_copy(update={"warmup_steps": steps, "warmup_tokens": None})

    def warmup(self, step: int) -> float:
        """min(1, (step + 1) / warmup_steps).  Raises ValueError while the warmup is stated in tokens."""
        steps = self._steps()
        return min(1.0, (step + 1) / steps) if steps else 1.0

    def _steps(self) -> int:
        if self.warmup_tokens is not None:
            raise ValueError("warmup_tokens means nothing without train.batch_tokens; call in_steps first")
        return _DEFAULT_WARMUP_STEPS if self.warmup_steps is None else self.warmup_steps


class _Decay(_Warmup):
    final_fraction: float = Field(default=0.1, ge=0, le=1)
    """Share of the peak rate that is left at the end, and the least rate after warmup."""


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


class WSDConfig(_Decay):
    """Warmup, stable, decay: the peak rate, and at the end a cooldown. Also called a trapezoid.

    warmup · (final + (1 - final) · c(u)), u = max(0, 1 - (1 - progress) / decay_fraction): 0 … 1 over the cooldown;
    c(u) = 1 - u, or 1 - sqrt(u).
    Up to the cooldown the rate does not depend on the run's length, so a run can be made longer from any checkpoint
    before it.  Source: Hu et al. 2024, arXiv:2404.06395, sec. 4; 1 - sqrt: Hägele et al. 2024, arXiv:2405.18392.
    """

    kind: Literal["wsd"] = "wsd"
    decay_fraction: float = Field(default=0.2, gt=0, le=1)
    """Share of the run over which the rate falls."""
    cooldown: Literal["linear", "1-sqrt"] = "1-sqrt"
    """How it falls; 1-sqrt first fast, then slowly."""
    final_fraction: float = Field(default=0.0, ge=0, le=1)
    """Share of the peak rate that is left at the end, and the least rate after warmup."""

    def factor(self, step: int, progress: float) -> float:
        cooled = max(0.0, 1 - (1 - min(1.0, progress)) / self.decay_fraction)
        left = 1 - (cooled if self.cooldown == "linear" else math.sqrt(cooled))
        return self.warmup(step) * (self.final_fraction + (1 - self.final_fraction) * left)


class InverseSqrtConfig(_Warmup):
    """max(min_fraction, sqrt(warmup / (step + 1))) after warmup: of the step alone, however long the run is.

    With warmup 4,000 and a peak lr of (d_model · 4,000)^-0.5 it is the Transformer's own schedule. Without a warmup
    the rate falls from the first step, by 1 / sqrt(step + 1).
    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 3.
    """

    kind: Literal["inverse_sqrt"] = "inverse_sqrt"
    min_fraction: float = Field(default=0.0, ge=0, le=1)
    """Share of the peak rate below which the rate does not fall after warmup."""

    def factor(self, step: int, progress: float) -> float:
        del progress
        peak = max(1, self._steps())
        decay = math.sqrt(peak / max(peak, step + 1))
        return self.warmup(step) * max(self.min_fraction, decay)


class ConstantConfig(_Warmup):
    """The peak rate throughout, after warmup."""

    kind: Literal["constant"] = "constant"

    def factor(self, step: int, progress: float) -> float:
        del progress
        return self.warmup(step)


ScheduleConfig = Annotated[
    CosineConfig | LinearConfig | WSDConfig | InverseSqrtConfig | ConstantConfig, Field(discriminator="kind")
]
