"""Averages of parts: within their bounds, equal to the undivided ones where they should be, and covered."""

import math

import numpy as np
import pytest

from pellucid.errors import DataError
from pellucid.evaluate.items import item_difference, item_interval, item_mean
from pellucid.evaluate.proportions import tango, wilson
from pellucid.evaluate.student import student_interval

REPLICATIONS = 1500


@pytest.mark.parametrize(
    ("shares", "sizes"),
    [
        ([0.97] * 67, [20] * 67),
        (np.linspace(0.5, 1, 67), [20] * 67),
        ([0.9, 0.5, 0.99, 0.7, 0.3], [10, 200, 30, 100, 50]),
        ([0.8, 0.5], [5, 200]),
    ],
)
def test_averages_of_shares_are_covered(shares: list[float], sizes: list[int]) -> None:
    """Half of one per cent below 93 % is what chance takes from 1,500 replications."""
    rng, of_item = np.random.default_rng(0), np.repeat(shares, sizes)
    found = [
        item_interval((rng.random(len(of_item)) < of_item).astype(float), sizes) for _ in range(REPLICATIONS)
    ]
    assert all(0 <= each.low <= each.value <= each.high <= 1 for each in found)
    assert 0.925 <= np.mean([each.low <= np.mean(shares) <= each.high for each in found]) <= 0.98


@pytest.mark.parametrize(
    ("pairs", "sizes"),
    [
        ([(0.005, 0.005)] * 67, [20] * 67),
        ([(0.1, 0.05)] * 20, [50] * 20),
        ([(0.4, 1e-9), (1e-9, 0.4)], [30, 30]),
    ],
)
def test_differences_of_averages_are_covered(pairs: list[tuple[float, float]], sizes: list[int]) -> None:
    rng, truth = np.random.default_rng(0), np.mean([gained - lost for gained, lost in pairs])
    gained, lost = (np.repeat([pair[side] for pair in pairs], sizes) for side in (0, 1))
    covered = 0
    for _ in range(REPLICATIONS):
        drawn = rng.random(len(gained))
        is_gained, is_lost = drawn < gained, drawn > 1 - lost
        found = item_difference(is_lost.astype(float), is_gained.astype(float), sizes)
        covered += found.low <= truth <= found.high
    assert 0.925 <= covered / REPLICATIONS <= 0.97


def test_equal_parts_that_are_alike_are_as_sure_as_the_whole() -> None:
    right = np.tile([1.0] * 70 + [0.0] * 30, 5)
    found = item_interval(right, [100] * 5)
    assert (found.low, found.high) == pytest.approx(wilson(0.7, 500, 0.95))
    better = np.tile([1.0] * 75 + [0.0] * 25, 5)
    found = item_difference(right, better, [100] * 5)
    assert (found.low, found.high) == pytest.approx(tango(25, 0, 500, 0.95))


def test_parts_that_are_all_right_or_all_alike_are_not_certain() -> None:
    all_right = item_interval(np.ones(140), [20, 60, 60])
    assert (all_right.value, all_right.high) == (1.0, 1.0)
    assert 0.9 < all_right.low < 1
    alike = item_difference(np.ones(140), np.ones(140), [20, 60, 60])
    assert alike.low == -alike.high < 0


def test_averages_of_losses_by_hand() -> None:
    """Two parts: the errors add in squares; of equal sizes and variances Student's t has all degrees of freedom."""
    values = np.array([1.0, 2.0, 3.0, 11.0, 12.0, 13.0])
    found = item_interval(values, [3, 3])
    assert found.value == item_mean(values, [3, 3]) == 7.0
    error = math.sqrt(1 / 3 + 1 / 3) / 2
    assert found.half == pytest.approx(2.776445 * error, rel=1e-5)  # 4 degrees
    assert item_interval(values[:4], [3, 1]).value == 6.5
    assert item_difference(values, values + 1, [3, 3]).value == 1.0
    alone = item_interval(values[:3], [3])
    assert alone.low < student_interval(list(values[:3])).value == alone.value < alone.high


def test_too_few_items() -> None:
    with pytest.raises(DataError, match="at least 2"):
        item_difference(np.ones(1), np.zeros(1))
    with pytest.raises(DataError, match="every part has one item"):
        item_interval(np.array([0.3, 0.4]), [1, 1])
