"""Student's t for a few values, such as one a seed: intervals, paired tests, and Holm's correction. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pellucid.errors import DataError
from pellucid.evaluate.interval import Interval


def student_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """The mean of a few independent values, and where the true mean lies: mean ± t · s / √n.

    Source: Student 1908, Biometrika 6(1). Raises DataError for fewer than two values.
    """
    mean, error = _mean_and_error(values)
    half = t_quantile((1 + level) / 2, len(values) - 1) * error
    return Interval(mean, mean - half, mean + half, level)


def paired_p_value(differences: Sequence[float]) -> float:
    """How probable a mean at least so far from 0 would be, on either side, were the true mean difference 0.

    differences: of two things measured under the same conditions, such as two recipes with the same seed.
    Raises DataError for fewer than two of them.
    """
    mean, error = _mean_and_error(differences)
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return 1 - t_within(abs(mean) / error, len(differences) - 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several tests, raised so that all of them together are wrong as rarely as one.

    The k-th smallest of m becomes the largest of (m - j + 1) · p_j over the j ≤ k smallest, at most 1.
    Source: Holm 1979, Scandinavian Journal of Statistics 6(2).
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def t_within(t: float, degrees: int) -> float:
    """P(|T| ≤ t) of Student's t with a whole number of degrees of freedom, by its finite series.

    With θ = atan(t / √ν):   ν odd:   (2/π) · (θ + sin θ · (cos θ + 2/3 cos³θ + … up to cos^(ν-2)θ)),
                             ν even:  sin θ · (1 + 1/2 cos²θ + (1·3)/(2·4) cos⁴θ + … up to cos^(ν-2)θ).
    Source: Abramowitz & Stegun 1964, 26.7.3 and 26.7.4.
    """
    angle = math.atan2(t, math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = degrees % 2 == 1
    term, total = (cosine, 0.0) if is_odd else (1.0, 0.0)
    for power in range(1 if is_odd else 0, degrees - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + sine * total) if is_odd else sine * total


def t_quantile(probability: float, degrees: int) -> float:
    """The t below which T lies with this probability, between 0.5 and 1. Raises DataError for less than one degree."""
    if degrees < 1:
        raise DataError(f"Student's t wants at least 1 degree of freedom, not {degrees}")
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # of the angle, which is bounded
        middle = (low + high) / 2
        within = t_within(math.sqrt(degrees) * math.tan(middle), degrees)
        low, high = (middle, high) if (1 + within) / 2 < probability else (low, middle)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and its standard error s / √n."""
    if len(values) < 2:
        raise DataError(f"{len(values)} value(s), and how far a mean is off needs at least 2 to be said")
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) / math.sqrt(len(array))
