"""Means over a task's items, also where it has parts that count alike, and differences of two models. No torch.

A task in parts (a folder of files) has the plain average of its parts' means. parts: how many items each has, in the
order of the items; empty for a task that is one whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import DataError
from pellucid.evaluate.bootstrap import difference_interval, ratio_interval
from pellucid.evaluate.interval import Interval
from pellucid.evaluate.proportions import tango, wilson
from pellucid.evaluate.student import t_quantile

Floats = NDArray[np.float64]

_BORROWED = 2
"""Items that each part takes from the average of all, so that a few right answers are no certainty."""
_MOST_DEGREES = 1000
"""Of freedom, above which Student's t is the normal distribution to three digits."""


def item_mean(values: Floats, parts: Sequence[int] = ()) -> float:
    """The mean, or the plain average of the parts' means."""
    return float(_means(values, parts or (len(values),)).mean()) if len(values) else math.nan


def item_interval(values: Floats, parts: Sequence[int] = (), *, level: float = 0.95) -> Interval:
    """The mean over other items of the same kind; of a task in parts, with new items in the same parts.

    Zeros and ones in parts have Wilson's interval for as many items as, undivided, would make the average so exact:
    θ (1 - θ) / V, with V the mean of parts' variance p (1 - p) / n, over their number. p is taken 2 items' worth
    towards the average θ: parts of a few items that are all right are not without doubt. Other numbers in parts have
    Student's t with Satterthwaite's degrees of freedom.

    Source: Wilson 1927; effective sizes as in Korn & Graubard 1998, Survey Methodology 24(2); Satterthwaite 1946,
    Biometrics Bulletin 2(6). Raises DataError for fewer than two items.
    """
    if len(parts) < 2:
        return ratio_interval(values, np.ones(len(values)), level=level)
    if not _is_share(values):
        return _student(values, parts, level)
    value, sizes = item_mean(values, parts), np.asarray(parts, np.float64)
    near = _towards(_means(values, parts), value, sizes)
    count = _effective(value * (1 - value), near * (1 - near), sizes)
    return Interval(value, *wilson(value, count, level), level)


def item_difference(
    first: Floats,
    second: Floats,
    parts: Sequence[int] = (),
    *,
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
) -> Interval:
    """Second - first of the means, item by item. For right and wrong answers Tango's interval, which is always finite;
    in parts for as many items as, undivided, would make the difference so exact: see `item_interval`.

    Raises DataError for fewer than two items.
    """
    difference = second - first
    if not (_is_share(first) and _is_share(second)):
        if len(parts) > 1:
            return _student(difference, parts, level)
        ones = np.ones(len(difference))
        return difference_interval(difference, ones, level=level, replicates=replicates, seed=seed)
    if len(difference) < 2:
        raise DataError(f"{len(difference)} item(s), and an interval needs at least 2")
    of_parts = parts or (len(difference),)
    value, unlike = item_mean(difference, of_parts), item_mean(np.abs(difference), of_parts)
    count = float(len(difference))
    if len(of_parts) > 1:
        sizes = np.asarray(of_parts, np.float64)
        near = _towards(_means(difference, of_parts), value, sizes)
        near_unlike = _towards(_means(np.abs(difference), of_parts), unlike, sizes)
        count = _effective(unlike - value**2, near_unlike - near**2, sizes)
    return Interval(
        value, *tango(count * (unlike + value) / 2, count * (unlike - value) / 2, count, level), level
    )


def apart(first: Interval, second: Interval) -> Interval:
    """Second - first of two values that nothing pairs: what each may be off, on that side, adds in squares.

    Source: Newcombe 1998, Statistics in Medicine 17(8), method 10; Zou & Donner 2008 (MOVER).
    """
    value = second.value - first.value
    below = math.hypot(second.value - second.low, first.high - first.value)
    above = math.hypot(second.high - second.value, first.value - first.low)
    return Interval(value, value - below, value + above, first.level)


def _is_share(values: Floats) -> bool:
    return bool(np.isin(values, (0, 1)).all())


def _means(values: Floats, parts: Sequence[int]) -> Floats:
    """Of each part."""
    return np.add.reduceat(values, _begins(parts)) / np.asarray(parts)


def _begins(parts: Sequence[int]) -> NDArray[np.int64]:
    return np.cumsum([0, *parts[:-1]])


def _towards(of_parts: Floats, average: float, sizes: Floats) -> Floats:
    return (sizes * of_parts + _BORROWED * average) / (sizes + _BORROWED)


def _effective(spread: float, of_parts: Floats, sizes: Floats) -> float:
    """As many items as have `spread` / items for the variance that the average of parts has."""
    squared = float((of_parts / sizes).sum()) / len(sizes) ** 2
    if squared <= 0 or spread <= 0:  # all alike: the variances are equal, whatever they are
        return len(sizes) ** 2 / float((1 / sizes).sum())
    return spread / squared


def _student(values: Floats, parts: Sequence[int], level: float) -> Interval:
    """Of the average of the parts' means; a part of one item has the variance of the others."""
    sizes = np.asarray(parts, np.float64)
    several = sizes > 1
    if not several.any():
        raise DataError("every part has one item, and an interval needs at least 2 in one")
    squares = np.add.reduceat((values - np.repeat(_means(values, parts), parts)) ** 2, _begins(parts))
    pooled = squares.sum() / (sizes - 1)[several].sum()
    errors = np.where(several, squares / np.maximum(1, sizes - 1), pooled) / sizes
    degrees = errors.sum() ** 2 / max(np.square(errors[several]) @ (1 / (sizes[several] - 1)), 1e-300)
    half = _quantile((1 + level) / 2, degrees) * math.sqrt(errors.sum()) / len(sizes)
    value = item_mean(values, parts)
    return Interval(value, value - half, value + half, level)


def _quantile(probability: float, degrees: float) -> float:
    if degrees > _MOST_DEGREES:
        return NormalDist().inv_cdf(probability)
    return t_quantile(probability, max(1, math.floor(degrees)))
