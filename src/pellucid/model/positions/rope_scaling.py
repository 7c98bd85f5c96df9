"""How RoPE's frequencies change so that a model reads further than it was trained: each kind a function.

A scaling takes the frequencies theta^(-2i/R) of the R/2 pairs, in radians a place, highest first, and gives
those to use instead. All numbers of a kind are the fields of its config, which is therefore the function too.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from pellucid.config import Config

Factor = Annotated[float, Field(ge=1)]


class _Scaling(Config):
    def scale(self, frequencies: Float[Tensor, " pairs"], theta: float) -> Float[Tensor, " pairs"]:
        """The frequencies to use instead of theta^(-2i/R)."""
        del theta
        return frequencies

    @property
    def magnitude(self) -> float:
        """What cosines and sines are multiplied by: its square sharpens the scores."""
        return 1.0

    def check(self, rotated: int) -> None:
        """Raises ValueError if `rotated` features of a head are too few."""
        del rotated


class NoScaling(_Scaling):
    """The frequencies as they are."""

    kind: Literal["none"] = "none"


class LinearScaling(_Scaling):
    """f / factor: every position is squeezed into the range of training (position interpolation).

    Source: Chen et al. 2023, arXiv:2306.15595, eq. 4.
    """

    kind: Literal["linear"] = "linear"
    factor: Factor
    """How many times further the model is to read."""

    def scale(self, frequencies: Float[Tensor, " pairs"], theta: float) -> Float[Tensor, " pairs"]:
        del theta
        return frequencies / self.factor


class NTKScaling(_Scaling):
    """A larger base, theta' = theta · factor^(R/(R-2)): the lowest frequency is divided by factor, the highest stays.

    Written for frequencies: f · factor^(-2i/(R-2)). Static: the same at every length.
    Source: bloc97 2023, "NTK-Aware Scaled RoPE"; Peng et al. 2023, arXiv:2309.00071, eq. 15-16.
    """

    kind: Literal["ntk"] = "ntk"
    factor: Factor
    """How many times further the model is to read."""

    def scale(self, frequencies: Float[Tensor, " pairs"], theta: float) -> Float[Tensor, " pairs"]:
        del theta
        pair = torch.arange(frequencies.numel(), device=frequencies.device, dtype=frequencies.dtype)
        return frequencies * self.factor ** (-pair / (frequencies.numel() - 1))

    def check(self, rotated: int) -> None:
        if rotated < 4:
            raise ValueError(
                f"scaling.kind 'ntk' spreads factor over the pairs and needs at least 4 rotated features, not "
                f"{rotated}; raise head_dim or fraction, or use scaling.kind 'linear'"
            )


class YarnScaling(_Scaling):
    """Pairs that turn often in the trained length keep their frequency, slow ones are interpolated by factor.

    Pair i turns original_max_seq_len · f_i / 2π times in the trained length; i(r) is the pair that turns r
    times. Between i(beta_fast), rounded down, and i(beta_slow), rounded up, a straight line leads from f to
    f / factor. Cosines and sines are multiplied by attention_factor, so scores by its square: the paper's
    1 / t.  Source: Peng et al. 2023, arXiv:2309.00071, eq. 17-25; the rounding: the authors' code,
    github.com/jquesnelle/yarn.
    """

    kind: Literal["yarn"] = "yarn"
    factor: Factor
    """How many times further the model is to read."""
    original_max_seq_len: int = Field(gt=0)
    """The length, in tokens, that the model was trained at before."""
    beta_fast: float = Field(default=32.0, gt=0)
    """Pairs with more turns than this in the original length keep their frequency; more than beta_slow."""
    beta_slow: float = Field(default=1.0, gt=0)
    """Pairs with fewer turns than this in the original length are slowed by factor."""
    attention_factor: float | None = Field(default=None, gt=0)
    """What cosines and sines are multiplied by. Left out: 0.1 · ln(factor) + 1."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.beta_fast <= self.beta_slow:
            raise ValueError(
                f"beta_fast ({self.beta_fast:g}) must be more than beta_slow ({self.beta_slow:g}): pairs with more "
                "turns than beta_fast stay, those with fewer than beta_slow are slowed"
            )
        if self.original_max_seq_len <= 2 * math.pi * self.beta_slow:
            raise ValueError(
                f"original_max_seq_len ({self.original_max_seq_len}) is so short that no pair of features turns "
                f"beta_slow ({self.beta_slow:g}) times in it; it must be more than 2π · beta_slow"
            )
        return self

    def scale(self, frequencies: Float[Tensor, " pairs"], theta: float) -> Float[Tensor, " pairs"]:
        rotated = 2 * frequencies.numel()

        def pair_of(turns: float) -> float:
            reach = self.original_max_seq_len / (2 * math.pi * turns)
            return rotated * math.log(reach) / (2 * math.log(theta))

        # Cut at 0 and R - 1, not at the R/2 pairs there are, as in the authors' code: it changes the slope.
        low = max(math.floor(pair_of(self.beta_fast)), 0)
        high = min(math.ceil(pair_of(self.beta_slow)), rotated - 1)
        pair = torch.arange(frequencies.numel(), device=frequencies.device, dtype=frequencies.dtype)
        slowed = ((pair - low) / max(high - low, 0.001)).clamp(0, 1)  # low ≥ high: every pair turns often
        return frequencies / self.factor * slowed + frequencies * (1 - slowed)

    @property
    def magnitude(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        return 0.1 * math.log(self.factor) + 1


class Llama3Scaling(_Scaling):
    """Frequencies of short waves stay, those of long ones are divided by factor, with a smooth way between.

    With t = original_max_seq_len · f / 2π, the turns in the trained length, and s the place of t between
    low_frequency_factor (s = 0) and high_frequency_factor (s = 1), cut to [0, 1]: s · f + (1 - s) · f / factor.
    Source: Grattafiori et al. 2024, arXiv:2407.21783, and the code of Llama 3.1, `apply_scaling`.
    """

    kind: Literal["llama3"] = "llama3"
    factor: Factor = 8.0
    """How many times slower the lowest frequencies become."""
    low_frequency_factor: float = Field(default=1.0, gt=0)
    """Pairs with fewer turns than this in the original length are slowed by factor."""
    high_frequency_factor: float = Field(default=4.0, gt=0)
    """Pairs with more turns than this in the original length stay; more than low_frequency_factor."""
    original_max_seq_len: int = Field(default=8192, gt=0)
    """The length, in tokens, that the model was trained at before."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.high_frequency_factor <= self.low_frequency_factor:
            raise ValueError(
                f"high_frequency_factor ({self.high_frequency_factor:g}) must be more than low_frequency_factor "
                f"({self.low_frequency_factor:g}): pairs with more turns than it stay, those with fewer are slowed"
            )
        return self

    def scale(self, frequencies: Float[Tensor, " pairs"], theta: float) -> Float[Tensor, " pairs"]:
        del theta
        turns = self.original_max_seq_len * frequencies / (2 * math.pi)
        between = self.high_frequency_factor - self.low_frequency_factor
        kept = ((turns - self.low_frequency_factor) / between).clamp(0, 1)
        return frequencies * kept + frequencies / self.factor * (1 - kept)


RopeScaling = Annotated[
    NoScaling | LinearScaling | NTKScaling | YarnScaling | Llama3Scaling, Field(discriminator="kind")
]
