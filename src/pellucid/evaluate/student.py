"""Student's t for a few values, such as one a seed: intervals, paired tests, and Holm's correction. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice

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
    return t_beyond(abs(mean) / error, len(differences) - 1)


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
    sine, cosine = _sine_and_cosine(t, degrees)
    total = math.fsum(islice(_terms(cosine, degrees), degrees // 2))
    return 2 / math.pi * (math.atan2(t, math.sqrt(degrees)) + sine * total) if degrees % 2 else sine * total


def t_beyond(t: float, degrees: int) -> float:
    """P(|T| > t), right to many digits where it is small too.

    The series of `t_within` without an end adds up to 1, so that its further terms are what lies beyond; all of them
    are positive, and nothing cancels as it does in 1 - P(|T| ≤ t).
    """
    if not t >= 2:  # much lies beyond: 1 - P is as good, and further terms would be many
        return 1 - t_within(t, degrees)
    sine, cosine = _sine_and_cosine(t, degrees)
    total = 0.0
    for term in islice(_terms(cosine, degrees), degrees // 2, None):
        total += term
        if not term > 1e-17 * sine**2 * total:  # the rest is at most term / sin²θ
            break
    return 2 / math.pi * sine * total if degrees % 2 else sine * total


def _sine_and_cosine(t: float, degrees: int) -> tuple[float, float]:
    """Of θ = atan(t / √ν); the cosine not by the angle, which near a right one has few digits left."""
    root = math.sqrt(degrees)
    return math.sin(math.atan2(t, root)), root / math.hypot(t, root)


def _terms(cosine: float, degrees: int) -> Iterator[float]:
    """The terms of the series, without an end: c, 2/3 c³, … for odd degrees, 1, 1/2 c², … for even ones."""
    term, power = (cosine, 1) if degrees % 2 else (1.0, 0)
    while True:
        yield term
        term *= cosine**2 * (power + 1) / (power + 2)
        power += 2


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
