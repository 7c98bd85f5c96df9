"""Intervals contain what they should as often as they say, and follow their formula.

Coverage is measured with seed 0 for the data and with the default seed for the draws, neither of them chosen; the
draws are half of the default or fewer, for time.
Every shape has a true ratio that is known from its distributions. Losses of the tokens of a document are exponential
with the document's own mean, so that their sum is a gamma variable: that is what is drawn.
"""

import json
import math
import time

import numpy as np
import pytest

from pellucid.errors import DataError
from pellucid.evaluate.bootstrap import Interval, difference_interval, ratio_interval, studentised

REPLICATIONS = 2000


def lengths(rng: np.random.Generator, size: tuple[int, int], spread: float) -> np.ndarray:
    """Tokens of documents: whole numbers, log-normal, a median of 150."""
    return np.maximum(1, np.round(rng.lognormal(5, spread, size)))


def student_documents(rng, size, spread):
    """Document means 1 + |t₃| / 2: their fourth moment, and that of what is summed, is infinite."""
    tokens = lengths(rng, size, spread)
    means = 1 + np.abs(rng.standard_t(3, size)) / 2
    return means * rng.gamma(tokens), tokens, 1 + math.sqrt(3) / math.pi


def lognormal_documents(rng, size, spread):
    """Document means log-normal: the hardest tenth costs 2.8 times the median and more."""
    tokens = lengths(rng, size, spread)
    means = rng.lognormal(0, 0.8, size)
    return means * rng.gamma(tokens), tokens, math.exp(0.32)


def mild_documents(rng, size, spread):
    tokens = lengths(rng, size, spread)
    return rng.lognormal(0, 0.3, size) * rng.gamma(tokens), tokens, math.exp(0.045)


def bits_per_byte(rng, size, spread):
    """Losses over bytes, where documents with longer tokens cost more a token."""
    tokens, a_token = lengths(rng, size, spread), rng.lognormal(1.4, 0.2, size)
    means = 0.3 * a_token + rng.lognormal(0, 0.5, size)
    return means * rng.gamma(tokens), tokens * a_token, 0.3 + math.exp(0.125) / math.exp(1.42)


def paired(rng, size, spread):
    """Differences of two models a document, t₃ around a small true one, over bytes."""
    tokens = lengths(rng, size, spread)
    differences = tokens * (0.02 + 0.1 * rng.standard_t(3, size)) + np.sqrt(tokens) * rng.standard_t(3, size)
    return differences, 4.2 * tokens, 0.02 / 4.2


def skewed_pairs(rng, size, spread):
    """The other model loses much on a few documents."""
    tokens = lengths(rng, size, spread)
    each = 0.02 + 0.2 * (rng.lognormal(0, 0.6, size) - math.exp(0.18))
    return tokens * each + np.sqrt(tokens) * rng.standard_normal(size), 4.2 * tokens, 0.02 / 4.2


@pytest.mark.parametrize("documents", [50, 200])
@pytest.mark.parametrize(
    ("shape", "spread"),
    [
        (lognormal_documents, 1.0),
        (lognormal_documents, 1.5),
        (mild_documents, 1.0),
        (bits_per_byte, 1.0),
        (paired, 1.0),
        (skewed_pairs, 1.0),
    ],
)
def test_95_percent_intervals_contain_the_truth_as_often(shape, spread: float, documents: int) -> None:
    tops, bottoms, truth = shape(np.random.default_rng(0), (REPLICATIONS, documents), spread)
    low, high = studentised(tops, bottoms, replicates=1000)
    assert 0.93 <= np.mean((low <= truth) & (truth <= high)) <= 0.97


@pytest.mark.parametrize(("documents", "least"), [(50, 0.91), (200, 0.93), (1000, 0.93)])
def test_where_even_the_third_moment_is_infinite(documents: int, least: float) -> None:
    """Fifty such documents cannot show how heavy their tail is: 92.8 % over four seeds, more than any other way."""
    tops, bottoms, truth = student_documents(np.random.default_rng(0), (REPLICATIONS, documents), 1.0)
    low, high = studentised(tops, bottoms, replicates=500)
    assert least <= np.mean((low <= truth) & (truth <= high)) <= 0.97


@pytest.mark.parametrize("documents", [3, 5, 10, 20])
def test_few_documents_are_covered_too(documents: int) -> None:
    tops, bottoms, truth = mild_documents(np.random.default_rng(0), (REPLICATIONS, documents), 1.0)
    low, high = studentised(tops, bottoms, replicates=1000)
    assert 0.93 <= np.mean((low <= truth) & (truth <= high)) <= 0.98
    assert np.isfinite(high).all()


@pytest.mark.parametrize("share", [0.25, 0.7, 0.97])
@pytest.mark.parametrize("items", [50, 200, 1000])
def test_accuracies_are_covered(share: float, items: int) -> None:
    """Over all counts of right answers, by their binomial probabilities, the coverage is exact."""
    covered = 0.0
    for right in range(items + 1):
        log_p = math.lgamma(items + 1) - math.lgamma(right + 1) - math.lgamma(items - right + 1)
        log_p += right * math.log(share) + (items - right) * math.log(1 - share)
        if log_p > -20:
            found = ratio_interval([1.0] * right + [0.0] * (items - right), [1.0] * items)
            covered += math.exp(log_p) * (found.low <= share <= found.high)
    assert 0.93 <= covered <= 0.97


def test_other_levels() -> None:
    tops, bottoms, truth = mild_documents(np.random.default_rng(0), (REPLICATIONS, 60), 1.0)
    for level in (0.8, 0.99):
        low, high = studentised(tops, bottoms, level=level, replicates=1000)
        assert np.mean((low <= truth) & (truth <= high)) == pytest.approx(level, abs=0.025)


def by_hand(
    tops: np.ndarray, bottoms: np.ndarray, level: float, replicates: int, seed: int
) -> tuple[float, float]:
    """The same interval, one draw after the other, every sum over the drawn units themselves."""
    n, ratio, rng = len(tops), tops.sum() / bottoms.sum(), np.random.default_rng(seed)
    in_logs = bool((tops >= 0).all())

    def error_of(top: np.ndarray, bottom: np.ndarray) -> float:
        r = top.sum() / bottom.sum()
        return math.sqrt(n * np.var(top - r * bottom, ddof=1)) / bottom.sum()

    t = []
    for _ in range(replicates):
        drawn = rng.integers(0, n, size=n)
        top, bottom = tops[drawn], bottoms[drawn]
        other, error = top.sum() / bottom.sum(), error_of(top, bottom)
        t.append((math.log(other / ratio) * other if in_logs else other - ratio) / error)
    without = np.array([(np.delete(tops, i).sum() / np.delete(bottoms, i).sum()) for i in range(n)])
    jackknife = math.sqrt((n - 1) / n * np.sum((without - ratio) ** 2))

    def quantile(values: list[float], level: float) -> float:
        return sorted(values)[math.ceil(level * (replicates + 1)) - 1]

    both, half = quantile([abs(x) for x in t], level), (1 + level) / 2
    below = max(both, quantile(t, half)) * jackknife
    above = max(both, quantile([-x for x in t], half)) * jackknife
    if in_logs:
        return ratio * math.exp(-below / ratio), ratio * math.exp(above / ratio)
    return ratio - below, ratio + above


@pytest.mark.parametrize("shift", [0.0, -40.0])
@pytest.mark.parametrize(("level", "replicates", "seed"), [(0.95, 400, 0), (0.8, 199, 5)])
def test_it_equals_a_computation_draw_by_draw(shift: float, level: float, replicates: int, seed: int) -> None:
    rng = np.random.default_rng(1)
    bottoms = lengths(rng, (1, 30), 1.0)[0]
    tops = rng.lognormal(0, 0.5, 30) * bottoms + shift
    found = ratio_interval(tops, bottoms, level=level, replicates=replicates, seed=seed)
    assert found.value == pytest.approx(tops.sum() / bottoms.sum(), rel=1e-12)
    assert (found.low, found.high) == pytest.approx(by_hand(tops, bottoms, level, replicates, seed), rel=1e-9)
    assert found.level == level


def test_many_units_are_drawn_in_several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    bottoms = lengths(rng, (1, 40), 1.0)[0]
    tops = rng.lognormal(0, 0.5, 40) * bottoms
    whole = ratio_interval(tops, bottoms, replicates=100)
    monkeypatch.setattr("pellucid.evaluate.bootstrap._CHUNK_WEIGHTS", 7 * 40)
    assert ratio_interval(tops, bottoms, replicates=100).low == pytest.approx(whole.low, rel=1e-9)


def test_equal_units_leave_no_doubt() -> None:
    found = ratio_interval([2.0, 4.0, 6.0, 8.0, 3.0, 1.0], [1.0, 2.0, 3.0, 4.0, 1.5, 0.5])
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)
    none = ratio_interval([0.0] * 6, [3.0, 1.0, 2.0, 5.0, 4.0, 7.0])
    assert (none.value, none.low, none.high) == (0.0, 0.0, 0.0)


def test_all_right_is_not_certain() -> None:
    found = ratio_interval([1] * 20, [1] * 20)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(20 / (20 + 1.959964**2), rel=1e-6)


def test_a_unit_without_text_changes_nothing() -> None:
    tops, bottoms = [3.0, 1.0, 2.0, 6.0, 5.0], [2.0, 1.0, 3.0, 4.0, 2.0]
    assert ratio_interval([*tops, 0.0], [*bottoms, 0.0]) == ratio_interval(tops, bottoms)


@pytest.mark.parametrize(
    "units", [([], []), ([1.5], [2.0]), ([1.5, 0.0], [2.0, 0.0]), ([1.5, 1.0], [2.0, 0.0])]
)
def test_too_few_units(units: tuple[list[float], list[float]]) -> None:
    with pytest.raises(DataError, match="an interval needs at least 2"):
        ratio_interval(*units)


@pytest.mark.parametrize(
    ("tops", "bottoms", "message"),
    [
        ([1.0, 2.0], [1.0], "two lists of equal length"),
        ([1.0, math.nan], [1.0, 1.0], "finite numbers"),
        ([1.0, 2.0], [1.0, -1.0], "not negative"),
    ],
)
def test_what_is_no_ratio(tops: list[float], bottoms: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ratio_interval(tops, bottoms)


def test_an_interval_as_plain_values() -> None:
    found = Interval(2.0, 1.5, 2.7)
    assert found.half == pytest.approx(0.6)
    assert json.loads(json.dumps(found.to_dict())) == {"value": 2.0, "low": 1.5, "high": 2.7, "level": 0.95}


def test_units_that_differ_by_rounding_alone_leave_no_doubt():
    """The difference of two models that is the same in every document, but for the last bits of its losses."""
    losses = np.sin(np.arange(30.0))
    found = ratio_interval((10.12 + losses) - (10 + losses), np.full(30, 8.0))
    assert found.low == found.high == found.value == pytest.approx(0.015)


def test_differences_have_neither_wilsons_interval_nor_logs() -> None:
    """Of no negative difference the lower bound may be negative, and the exchanged pair has the mirror image."""
    rng = np.random.default_rng(0)
    bottoms = lengths(rng, (1, 40), 1.0)[0]
    for tops in (np.eye(40)[0] + np.eye(40)[7], rng.exponential(1, 40) ** 4, rng.normal(0, 1, 40)):
        there, back = difference_interval(tops, bottoms), difference_interval(-tops, bottoms)
        assert (there.low, there.value, there.high) == (-back.high, -back.value, -back.low)
    assert difference_interval([1.0, 0.0, 0.0, 1.0, 0.0, 0.0], [1.0] * 6).low < 0


@pytest.mark.parametrize("interval", [ratio_interval, difference_interval])
def test_one_unit_that_differs_from_all_others_has_finite_bounds(interval) -> None:
    """In a third of the draws it is not there, and nothing has a spread."""
    found = interval([9.0] + [1.0] * 59, [1.0] * 59 + [2.0])
    assert math.isfinite(found.low)
    assert math.isfinite(found.high)
    alone = difference_interval([5.0] + [0.0] * 59, [7.0] * 60)
    assert alone.low < 0 < alone.value < alone.high < 1


@pytest.mark.parametrize(("shape", "is_difference"), [(lognormal_documents, False), (paired, True)])
def test_many_units_need_no_draws(shape, is_difference: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the draws give for so many is the closed form, give or take how well 2,000 draws know a quantile."""
    tops, bottoms, _ = shape(np.random.default_rng(0), (1, 12_000), 1.0)
    closed = studentised(tops, bottoms, is_difference=is_difference)
    monkeypatch.setattr("pellucid.evaluate.bootstrap._MOST_DRAWN", 20_000)
    drawn = studentised(tops, bottoms, is_difference=is_difference)
    width = closed[1] - closed[0]
    assert closed[0] != drawn[0]
    for one, other in zip(closed, drawn, strict=True):
        assert one == pytest.approx(other, abs=0.05 * float(width[0]))


def test_a_million_units_take_no_time() -> None:
    tops, bottoms, _ = mild_documents(np.random.default_rng(0), (1, 1_000_000), 1.0)
    began = time.process_time()
    ratio_interval(tops[0], bottoms[0])
    assert time.process_time() - began < 2
