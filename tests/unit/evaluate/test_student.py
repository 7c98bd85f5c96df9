"""Student's t against the printed tables; p-values and Holm's correction against worked examples."""

import math

import numpy as np
import pytest

from pellucid.errors import DataError
from pellucid.evaluate.student import holm, paired_p_value, student_interval, t_beyond, t_quantile, t_within

# Abramowitz & Stegun 1964, table 26.10, and the same in any handbook.
TABLE = {
    (0.95, 1): 6.314,
    (0.975, 1): 12.706,
    (0.975, 2): 4.303,
    (0.975, 3): 3.182,
    (0.975, 4): 2.776,
    (0.975, 5): 2.571,
    (0.995, 6): 3.707,
    (0.975, 9): 2.262,
    (0.995, 10): 3.169,
    (0.9, 15): 1.341,
    (0.975, 30): 2.042,
    (0.9995, 120): 3.373,
}


@pytest.mark.parametrize(("place", "expected"), TABLE.items())
def test_quantiles_are_those_of_the_table(place: tuple[float, int], expected: float) -> None:
    assert t_quantile(*place) == pytest.approx(expected, abs=5.1e-4)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 12, 31])
def test_the_series_equals_the_integral_of_the_density(degrees: int) -> None:
    """Trapezoids over the density, whose gamma functions the series does not have."""
    constant = math.gamma((degrees + 1) / 2) / (math.sqrt(degrees * math.pi) * math.gamma(degrees / 2))
    for t in (0.3, 1.0, 2.5):
        x = np.linspace(-t, t, 200_001)
        area = np.trapezoid(constant * (1 + x**2 / degrees) ** (-(degrees + 1) / 2), x)
        assert t_within(t, degrees) == pytest.approx(area, abs=1e-9)


# The regularised incomplete beta function I(ν / (ν + t²); ν/2, 1/2), with 50 digits by mpmath.
TAILS = {
    (3, 2): 0.0954659662667,
    (2, 100): 0.0482121787311,
    (20, 3): 2.73203250247e-4,
    (1e4, 3): 2.2053155023e-12,
    (12, 5): 7.08949251716e-5,
    (50, 4): 9.57445365697e-7,
    (30, 9): 2.48370470416e-10,
    (6, 30): 1.39427687672e-6,
    (40, 26): 6.97611390425e-25,
    (1e9, 2): 1e-18,
    (1e12, 1): 6.36619772368e-13,
}


@pytest.mark.parametrize(("place", "expected"), TAILS.items())
def test_small_tails_keep_their_digits(place: tuple[float, int], expected: float) -> None:
    assert t_beyond(*place) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("degrees", [1, 2, 3, 8, 53])
def test_what_lies_within_and_beyond_is_all(degrees: int) -> None:
    for t in (0.0, 0.5, 1.999, 2.0, 2.001, 7.0):
        assert t_within(t, degrees) + t_beyond(t, degrees) == pytest.approx(1, abs=1e-14)
    assert t_beyond(math.inf, degrees) == 0
    assert math.isnan(t_beyond(math.nan, degrees))


def test_differences_that_hardly_vary_have_a_small_p_and_no_negative_one() -> None:
    """With two degrees of freedom p = 1 - t / √(2 + t²), which is 1 / t² for a large t."""
    differences = [1.0, 1.0 + 1e-9, 1.0 - 1e-9]
    t = float(np.mean(differences) / (np.std(differences, ddof=1) / math.sqrt(3)))
    assert paired_p_value(differences) == pytest.approx(1 / t**2, rel=1e-9)
    wide = [paired_p_value(list(1 + 1e-9 * np.random.default_rng(n).standard_normal(9))) for n in range(20)]
    assert all(0 < p < 1e-50 for p in wide)


def test_many_degrees_are_a_normal_distribution() -> None:
    assert t_within(1.959964, 100_000) == pytest.approx(0.95, abs=1e-5)


def test_an_interval_by_hand() -> None:
    """Student's own data, additional hours of sleep: mean 1.58, s 1.2300, n 10."""
    hours = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    found = student_interval(hours)
    assert found.value == pytest.approx(1.58)
    assert (found.low, found.high) == pytest.approx((0.7001, 2.4599), abs=1e-4)
    assert found.half == pytest.approx(2.262 * 1.2300 / math.sqrt(10), abs=1e-3)
    assert student_interval(hours, level=0.99).low < found.low
    assert paired_p_value(hours) == pytest.approx(0.002833, abs=1e-6)  # as R prints it


def test_values_that_do_not_differ() -> None:
    assert student_interval([2.0, 2.0, 2.0]).half == 0
    assert paired_p_value([0.0, 0.0]) == 1
    assert paired_p_value([0.5, 0.5]) == 0


def test_one_value_has_no_interval() -> None:
    for of in (student_interval, paired_p_value):
        with pytest.raises(DataError, match="needs at least 2"):
            of([1.0])


def test_p_values_of_no_difference_are_uniform() -> None:
    values = np.random.default_rng(0).standard_normal((2000, 4))
    p = np.array([paired_p_value(list(row)) for row in values])
    for share in (0.05, 0.25, 0.5, 0.9):
        assert (p < share).mean() == pytest.approx(share, abs=0.03)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
