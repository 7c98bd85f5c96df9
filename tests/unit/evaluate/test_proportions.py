"""Intervals of shares and of paired differences of shares: published values, McNemar's test, exact coverage."""

import math
from collections.abc import Iterator

import pytest

from pellucid.evaluate.proportions import tango, wilson


@pytest.mark.parametrize(
    ("gained", "lost", "count", "bounds"),
    [
        (12, 2, 50, (0.0611, 0.3447)),
        (0, 0, 44, (-0.0803, 0.0803)),
        (9, 3, 32, (-0.0274, 0.3900)),
    ],
)
def test_it_solves_the_score_equation_of_an_independent_likelihood(
    gained: int, lost: int, count: int, bounds: tuple[float, float]
) -> None:
    """The constrained likelihood maximised by golden section in place of its closed form, z = 1.959964."""
    found = tango(gained, lost, count, 0.95)
    assert found == pytest.approx(bounds, abs=5e-4)
    for d in found:
        low, high = max(0.0, -d), (1 - d) / 2  # of the share of lost items

        def log_likelihood(q: float, d: float = d) -> float:
            parts = ((gained, q + d), (lost, q), (count - gained - lost, 1 - 2 * q - d))
            return sum(n * math.log(max(p, 1e-300)) for n, p in parts if n)

        for _ in range(200):
            a, b = high - 0.618034 * (high - low), low + 0.618034 * (high - low)
            low, high = (low, b) if log_likelihood(a) > log_likelihood(b) else (a, high)
        statistic = (gained - lost - count * d) / math.sqrt(count * (2 * low + d * (1 - d)))
        assert abs(statistic) == pytest.approx(1.959964, abs=1e-3)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.999])
def test_zero_is_outside_where_mcnemars_test_rejects_it(level: float) -> None:
    z = {0.9: 1.644854, 0.95: 1.959964, 0.999: 3.290527}[level]
    for gained in range(0, 40, 3):
        for lost in range(0, 40, 5):
            low, high = tango(gained, lost, 100, level)
            rejects = abs(gained - lost) > z * math.sqrt(gained + lost)
            assert (low > 0 or high < 0) == rejects
            assert -1 <= low < high <= 1
            assert (low, high) == tuple(-end for end in reversed(tango(lost, gained, 100, level)))


def pairs(gained: float, lost: float, count: int) -> Iterator[tuple[int, int, float]]:
    """All counts of gained and lost items that are not too rare, with their probabilities."""
    same = 1 - gained - lost
    for b in range(count + 1):
        for c in range(count + 1 - b):
            logs = (
                math.lgamma(count + 1)
                - math.lgamma(b + 1)
                - math.lgamma(c + 1)
                - math.lgamma(count - b - c + 1)
            )
            logs += b * math.log(gained) + c * math.log(lost) + (count - b - c) * math.log(same)
            if logs > -16:
                yield b, c, math.exp(logs)


@pytest.mark.parametrize(
    ("gained", "lost", "count", "most"),
    [(0.1, 0.05, 100, 0.97), (0.2, 0.2, 50, 0.97), (0.08, 0.02, 200, 0.97), (0.0025, 0.0025, 200, 1.0)],
)
def test_exact_coverage(gained: float, lost: float, count: int, most: float) -> None:
    """95 %, and more where so few answers differ that nothing between can be had."""
    covered = 0.0
    for b, c, probability in pairs(gained, lost, count):
        low, high = tango(b, c, count, 0.95)
        covered += probability * (low <= gained - lost <= high)
    assert 0.94 <= covered <= most


def test_wilsons_example() -> None:
    assert wilson(81 / 263, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    assert wilson(0, 20, 0.95) == pytest.approx((0.0, 0.1611), abs=1e-4)
