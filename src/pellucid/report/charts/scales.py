"""Numbers on an axis: where ticks stand and how they are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_SUFFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_FIRST = {"k": 10}
"""A unit is used from so many of it on: 5000 is shorter than 5.0k beside 2.5k."""


@dataclass(frozen=True)
class Scale:
    """low … high onto 0 … 1."""

    low: float
    high: float
    is_log: bool = False

    def share(self, value: float) -> float:
        """How far along the axis a value lies: 0 at its low end, 1 at its high one, beyond them outside of it."""
        if not self.is_log:
            return (value - self.low) / (self.high - self.low)
        return math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else -math.inf

    def has(self, value: float) -> bool:
        return math.isfinite(value) and -1e-9 <= self.share(value) <= 1 + 1e-9

    def ticks(self, wanted: int = 6) -> list[float]:
        """About `wanted` round numbers on the axis: 1, 2 or 5 times a power of ten apart.

        Of a logarithmic axis 1, 2 and 5 times powers of ten, or the powers alone where there are many.
        """
        return self._powers(wanted) if self.is_log else self._multiples(wanted)

    def _multiples(self, wanted: int) -> list[float]:
        step = _round_up((self.high - self.low) / max(1, wanted))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def _powers(self, wanted: int) -> list[float]:
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        every = [factor * 10.0**exponent for exponent in exponents for factor in (1, 2, 5)]
        shown = [tick for tick in every if self.has(tick)]
        powers = [10.0**exponent for exponent in exponents if self.has(10.0**exponent)]
        if len(shown) <= wanted + 2:
            return shown if len(shown) > 1 else self._multiples(wanted)
        return powers[:: math.ceil(len(powers) / wanted)] if len(powers) > 1 else shown


def _round_up(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def labels(ticks: Sequence[float], *, is_log: bool = False) -> list[str]:
    """The ticks of one axis, all in one unit and with as many digits as tell them apart: 0, 20k, 40k."""
    if is_log:
        return [labels([tick])[0] for tick in ticks]
    largest = max((abs(tick) for tick in ticks), default=0.0)
    unit, suffix = next(((u, s) for u, s in _SUFFIXES if largest >= u * _FIRST.get(s, 1)), (1.0, ""))
    step = min((b - a for a, b in pairwise(ticks)), default=largest or 1.0) / unit
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if largest and (largest >= 1e16 or decimals > 5):
        return [f"{tick:.3g}" for tick in ticks]
    return [f"{tick / unit + 0.0:.{decimals}f}{suffix if tick else ''}" for tick in ticks]


def number(value: float) -> str:
    """One value for a reader: four digits that count, thousands apart."""
    if not math.isfinite(value):
        return "–"
    if value and not 1e-4 <= abs(value) < 1e15:
        return f"{value:.3e}"
    whole = 0 if value == 0 else math.floor(math.log10(abs(value)))
    return f"{value:,.{max(0, 3 - whole)}f}"
