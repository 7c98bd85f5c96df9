"""Thinned curves cover the same pixels; running medians are medians."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.report.charts.thinning import running_median, smoothing_window, thinned


def extremes(x, y, columns, edges):
    """By column: lowest and highest, straightforwardly."""
    found = {}
    for a, b in zip(x, y, strict=True):
        column = min(int((a - edges[0]) / (edges[1] - edges[0]) * columns), columns - 1)
        low, high = found.get(column, (math.inf, -math.inf))
        found[column] = (min(low, b), max(high, b))
    return found


def test_every_column_keeps_its_extremes_and_its_ends():
    x = np.arange(10_000.0)
    y = np.random.default_rng(0).standard_normal(10_000).cumsum()
    short_x, short_y = thinned(x, y, 100)
    assert len(short_x) <= 400
    assert (short_x[0], short_x[-1], short_y[-1]) == (0.0, 9999.0, y[-1])
    edges = (x[0], x[-1])
    assert extremes(short_x, short_y, 100, edges) == extremes(x, y, 100, edges)
    assert (np.diff(short_x) > 0).all()


def test_short_curves_stay_and_what_is_not_finite_goes():
    x, y = thinned(np.arange(5.0), np.array([1.0, np.nan, 3.0, np.inf, 5.0]), 100)
    assert x.tolist() == [0.0, 2.0, 4.0]
    assert y.tolist() == [1.0, 3.0, 5.0]


def test_a_curve_that_stands_still_is_no_fault():
    x, y = thinned(np.zeros(1000), np.arange(1000.0), 10)
    assert {0.0, 999.0} <= set(y.tolist())
    assert len(x) <= 4


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.sampled_from([1, 3, 5, 9]))
def test_a_running_median_is_the_median_around_each_place(values, window):
    half = window // 2
    expected = [statistics.median(values[max(0, n - half) : n + half + 1]) for n in range(len(values))]
    assert running_median(np.array(values), window).tolist() == pytest.approx(expected)


def test_long_curves_are_done_in_pieces():
    values = np.random.default_rng(1).standard_normal(20_000)
    found = running_median(values, 5)
    assert found[8191:8194].tolist() == [statistics.median(values[n - 2 : n + 3]) for n in (8191, 8192, 8193)]


def test_windows_are_odd_and_bounded():
    windows = [smoothing_window(count) for count in (0, 1, 59, 600, 10**6)]
    assert windows == [1, 1, 1, 11, 201]


def test_a_stretch_of_nothing_stays_nothing_without_a_warning():
    smooth = running_median(np.array([1.0, 2.0, *[np.nan] * 6, 4.0]), 5)
    assert np.array_equal(smooth, [1.5, 1.5, 1.5, 2.0, np.nan, np.nan, 4.0, 4.0, 4.0], equal_nan=True)
