"""How far a score would move on other texts of the same kind: intervals of ratios over documents. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import DataError
from pellucid.evaluate.interval import Interval
from pellucid.evaluate.proportions import wilson
from pellucid.evaluate.student import t_quantile

__all__ = ["Interval", "difference_interval", "ratio_interval", "studentised"]

Floats = NDArray[np.float64]

_FEWEST_DRAWN = 5
"""Of fewer units, one draw in twenty or more is of one unit alone, which has no spread: Student's t serves them."""
_MOST_DRAWN = 5000
"""Of more units the quantiles are those of the normal distribution; at 5,000 they cover 94 to 95 %."""
_ROUNDING = 1e-12
_CHUNK_WEIGHTS = 1 << 20
"""Weights of resampled units in memory at once."""


def ratio_interval(
    numerators: Sequence[float] | NDArray[Any],
    denominators: Sequence[float] | NDArray[Any],
    *,
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
) -> Interval:
    """Σ numerators / Σ denominators of a score, and how far it would move on other units of the same kind.

    Units are what was drawn independently: documents, never tokens. A mean loss has their summed losses over their
    tokens; an accuracy 0 or 1 over 1. Differences of scores, which have two signs, are for `difference_interval`.

    The studentised bootstrap: units are drawn anew with replacement, t* = (r* - r) / se* each time, and the bounds are
    r ± q · se, q the `level` quantile of |t*|, or on a side where it is larger that of t* or -t* with half the misses.
    se is the linearised standard error of a ratio, for the bounds with the jackknife's weights (the residual e of unit
    i over 1 - its share of the denominators), since a long document draws the ratio to itself. Where no numerator is
    negative, all of it is done with log r, which is less skewed.

    Fewer than five units have Student's t in place of q, more than 5,000 the normal distribution's quantile. Where
    so few units differ from the rest that most draws have none of them, and no spread, it is Student's t with
    (Σe²)² / Σe⁴ degrees of freedom, so that the bounds are finite. Zeros and ones over ones need no draws: Wilson's
    interval. Which methods covered less is in docs/experiments.md.

    Source: Efron 1981, Canadian Journal of Statistics 9(2); Hall 1988, JRSS B 50(1) (symmetric); Cochran 1977,
    Sampling Techniques, ch. 6 (ratios).
    Raises DataError for fewer than two units.
    """
    tops, bottoms = _checked(numerators, denominators)
    value = float(tops.sum() / bottoms.sum())
    if bool((bottoms == 1).all() and np.isin(tops, (0, 1)).all()):
        low, high = wilson(value, len(tops), level)
    else:
        ends = studentised(tops[None], bottoms[None], level=level, replicates=replicates, seed=seed)
        low, high = (float(end[0]) for end in ends)
    return Interval(value, low, high, level)


def difference_interval(
    numerators: Sequence[float] | NDArray[Any],
    denominators: Sequence[float] | NDArray[Any],
    *,
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
) -> Interval:
    """The same of a paired difference: its numerators are the differences of two models' numerators, unit by unit.

    It treats both signs alike: of the exchanged pair it is the mirror image. Right and wrong answers, whose differences
    are often 0, have a better one: `items.item_difference`.
    """
    tops, bottoms = _checked(numerators, denominators)
    ends = studentised(
        tops[None], bottoms[None], level=level, replicates=replicates, seed=seed, is_difference=True
    )
    low, high = (float(end[0]) for end in ends)
    return Interval(float(tops.sum() / bottoms.sum()), low, high, level)


def studentised(
    numerators: Floats,
    denominators: Floats,
    *,
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
    is_difference: bool = False,
) -> tuple[Floats, Floats]:
    """The bounds for many data sets of equally many units at once, [sets, units] → [sets] each; see `ratio_interval`.

    All sets are resampled by the same draws: what one gets does not depend on the others. is_difference: never in logs.
    """
    units = denominators.shape[1]
    total = denominators.sum(axis=1)
    ratio = numerators.sum(axis=1) / total
    expected = ratio[:, None] * denominators
    residuals = numerators - expected
    # What is left of equal ratios is rounding, and no spread.
    residuals[np.abs(residuals) <= _ROUNDING * (np.abs(numerators) + np.abs(expected))] = 0
    of_unit = residuals / (1 - denominators / total[:, None])
    error = np.sqrt((units - 1) / units * np.square(of_unit).sum(axis=1)) / total
    is_positive = (numerators >= 0).all(axis=1) & (ratio > 0) & (not is_difference)
    scale = np.where(is_positive, ratio, 1.0)
    half = (1 + level) / 2
    if units < _FEWEST_DRAWN:
        below = above = np.full(len(ratio), t_quantile(half, units - 1))
    elif units > _MOST_DRAWN:
        below = above = np.full(len(ratio), NormalDist().inv_cdf(half))
    else:
        shifts, errors = _resampled(residuals, denominators, replicates, seed)
        t = _t_values(shifts, errors, scale[:, None], is_positive[:, None])
        both = _upper_quantile(np.abs(t), level)
        below, above = (
            _finite(np.maximum(both, _upper_quantile(side, half)), residuals, half) for side in (t, -t)
        )
    with np.errstate(over="ignore", invalid="ignore"):
        below, above = (np.where(error > 0, q * error, 0.0) for q in (below, above))
        low = np.where(is_positive, ratio * np.exp(-below / scale), ratio - below)
        return low, np.where(is_positive, ratio * np.exp(above / scale), ratio + above)


def _t_values(shifts: Floats, errors: Floats, scale: Floats, in_logs: NDArray[np.bool_]) -> Floats:
    """t* of every draw, [sets, replicates]; of log r where `in_logs`, and `scale` is r there."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw of one unit alone has no spread
        logs = np.log1p(shifts / scale) * (scale + shifts)
        t = np.where(in_logs, logs, shifts) / errors
    t[np.isnan(t)] = np.inf
    t[shifts == 0] = 0
    return t


def _resampled(residuals: Floats, denominators: Floats, replicates: int, seed: int) -> tuple[Floats, Floats]:
    """r* - r and se* of every draw, [sets, replicates].

    With e = top - r · bottom, how often each unit was drawn w, and d = Σwe / Σw·bottom:
    r* - r = d, and se*² = n/(n-1) · Σ w (e - d · bottom)² / (Σw·bottom)².
    """
    units = residuals.shape[1]
    rng = np.random.default_rng(seed)
    shifts, errors = np.empty((len(residuals), replicates)), np.empty((len(residuals), replicates))
    rows = max(1, _CHUNK_WEIGHTS // units)
    squares, products, bottoms2 = residuals**2, residuals * denominators, denominators**2
    for first in range(0, replicates, rows):
        part = slice(first, min(first + rows, replicates))
        count = part.stop - first
        drawn = rng.integers(0, units, size=(count, units)) + units * np.arange(count)[:, None]
        weights = np.bincount(drawn.reshape(-1), minlength=count * units).reshape(count, units)
        weights = weights.astype(np.float64)
        bottoms = denominators @ weights.T
        shift = residuals @ weights.T / bottoms
        spread = squares @ weights.T
        moved = shift**2 * (bottoms2 @ weights.T)
        squared = spread - 2 * shift * (products @ weights.T) + moved
        # What is left of differences between equal numbers is no spread.
        squared[squared <= 1e-12 * np.maximum(spread, moved)] = 0
        shifts[:, part], errors[:, part] = shift, np.sqrt(units / (units - 1) * squared) / bottoms
    return shifts, errors


def _upper_quantile(values: Floats, level: float) -> Floats:
    """Of each row, the smallest value that at least `level` of them do not exceed; infinite ones are allowed."""
    count = values.shape[1]
    place = min(count - 1, math.ceil(level * (count + 1)) - 1)
    return np.partition(values, place, axis=1)[:, place]


def _finite(quantiles: Floats, residuals: Floats, probability: float) -> Floats:
    """Student's t in place of infinite ones, with as many degrees of freedom as units carry the spread."""
    for index in np.flatnonzero(~np.isfinite(quantiles)):
        squares = residuals[index] ** 2 / max(float(np.square(residuals[index]).max()), 1e-300)
        degrees = float(squares.sum()) ** 2 / max(float(np.square(squares).sum()), 1e-300)
        quantiles[index] = t_quantile(probability, max(1, math.floor(degrees)))
    return quantiles


def _checked(
    numerators: Sequence[float] | NDArray[Any], denominators: Sequence[float] | NDArray[Any]
) -> tuple[Floats, Floats]:
    """As float64, without the units that have nothing of either."""
    tops, bottoms = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if tops.shape != bottoms.shape or tops.ndim != 1:
        raise DataError(
            f"a ratio wants two lists of equal length, not shapes {tops.shape} and {bottoms.shape}"
        )
    if not (np.isfinite(tops).all() and np.isfinite(bottoms).all()) or (bottoms < 0).any():
        raise DataError("a ratio wants finite numbers, and denominators that are not negative")
    is_there = (tops != 0) | (bottoms != 0)
    tops, bottoms = tops[is_there], bottoms[is_there]
    if np.count_nonzero(bottoms) < 2:
        raise DataError(f"{np.count_nonzero(bottoms)} unit(s), and an interval needs at least 2")
    return tops, bottoms
