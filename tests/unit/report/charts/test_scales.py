"""Ticks are round, on the axis, and written with as many digits as tell them apart."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.report.charts.scales import Scale, labels, number
from pellucid.report.charts.values import Axis, ends


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_on_the_axis_apart_and_not_too_many(low, length):
    scale = Scale(low, low + length)
    if not scale.low < scale.high or length < 1e-9 * abs(low):
        return
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 8
    assert all(-1e-6 <= scale.share(tick) <= 1 + 1e-6 for tick in ticks)


def test_ticks_are_round():
    assert Scale(0, 600).ticks() == [0, 100, 200, 300, 400, 500, 600]
    assert Scale(1.17, 2.69).ticks() == pytest.approx([1.5, 2.0, 2.5])
    assert Scale(0.5, 300, is_log=True).ticks() == pytest.approx([1, 10, 100])
    assert Scale(1, 20, is_log=True).ticks() == pytest.approx([1, 2, 5, 10, 20])


def test_a_logarithmic_scale_has_even_ratios():
    scale = Scale(1, 100, is_log=True)
    assert scale.share(10) == pytest.approx(0.5)
    assert scale.share(0) == -math.inf


@pytest.mark.parametrize(
    ("ticks", "written"),
    [
        ([0, 0.5, 1.0], ["0.0", "0.5", "1.0"]),
        ([0, 100, 200], ["0", "100", "200"]),
        ([0, 2000, 4000], ["0", "2000", "4000"]),
        ([0, 20_000, 40_000], ["0", "20k", "40k"]),
        ([5e5, 1e6, 1.5e6], ["0.5M", "1.0M", "1.5M"]),
        ([2e9, 4e9], ["2B", "4B"]),
        ([0.0, 0.001, 0.002], ["0.000", "0.001", "0.002"]),
        ([0, 1e-7, 2e-7], ["0", "1e-07", "2e-07"]),
        ([-0.02, 0.0, 0.02], ["-0.02", "0.00", "0.02"]),
    ],
)
def test_labels(ticks, written):
    assert labels(ticks) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0.000"), (1.23456, "1.235"), (123456.7, "123,457"), (0.00123456, "0.001235"), (1.5e-6, "1.500e-06"),
     (2e18, "2.000e+18"), (math.nan, "–")],
)  # fmt: skip
def test_numbers_for_readers(value, written):
    assert number(value) == written


def test_an_axis_ends_where_the_data_does_and_is_never_empty():
    values = [np.array([3.0, np.nan, 1.0]), np.array([np.inf, 2.0])]
    assert ends(values, Axis("x")) == (1.0, 3.0)
    assert ends(values, Axis("x", low=0.0, high=9.0)) == (0.0, 9.0)
    assert ends([np.array([5.0])], Axis("x")) == (4.75, 5.25)
    assert ends([np.array([0.0])], Axis("x")) == (-0.5, 0.5)
    assert ends([np.array([np.nan])], Axis("x")) == (0.0, 1.0)
    assert ends([np.array([-1.0, 0.0, 0.1, 10.0])], Axis("x", is_log=True)) == (0.1, 10.0)
