"""The running measure of the loss."""

import numpy as np
import pytest

from pellucid.train.health import Health

LOSSES = np.random.default_rng(0).normal(3.0, 0.2, 500)


def test_the_first_losses_give_their_plain_mean_and_variance():
    health = Health()
    for loss in LOSSES[:40]:
        health.measure(loss, window=40)
    assert health.mean == pytest.approx(LOSSES[:40].mean())
    assert health.variance == pytest.approx(LOSSES[:40].var())
    assert health.losses == 40


def test_later_ones_are_weighted_by_how_long_ago_they_were():
    health = Health()
    for loss in LOSSES:
        health.measure(loss, window=10)
    share = 1 / 10
    weights = np.append((1 - share) ** 490 / 10 * np.ones(10), share * (1 - share) ** np.arange(489, -1, -1))
    assert weights.sum() == pytest.approx(1)
    mean = (weights * LOSSES).sum()
    assert health.mean == pytest.approx(mean)
    assert health.variance == pytest.approx((weights * (LOSSES - mean) ** 2).sum())


@pytest.mark.parametrize(("variance", "limit"), [(0.04, 3 + 6 * 0.2), (0.0001, 3 + 0.5)])
def test_a_spike_is_as_far_above_the_mean_in_deviations_as_in_nats(variance, limit):
    assert Health(mean=3.0, variance=variance).limit(deviations=6, nats=0.5) == pytest.approx(limit)
