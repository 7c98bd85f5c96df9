"""Filters at their edges; equality with transformers is in tests/parity, what always holds in tests/property."""

import math

import numpy as np
import pytest
import torch

from pellucid.generate.sampling import filters
from pellucid.generate.sampling.filters import (
    keep_above_epsilon,
    keep_above_eta,
    keep_min_p,
    keep_top_n_sigma,
    keep_top_p,
    keep_typical,
)

HALF_QUARTER = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()


def kept(logits):
    return logits.isfinite().tolist()


def test_top_p_keeps_the_likeliest_id_however_small_p_is():
    assert kept(keep_top_p(torch.tensor([[0.1, 0.3, 0.2]]), 1e-9)) == [[False, True, False]]


@pytest.mark.parametrize(("top_p", "count"), [(0.4, 1), (0.6, 2), (0.74, 2), (0.8, 4), (1.0, 4)])
def test_top_p_keeps_ties_of_the_last(top_p, count):
    assert sum(kept(keep_top_p(HALF_QUARTER, top_p))[0]) == count


def test_min_p_is_relative_to_the_likeliest():
    assert kept(keep_min_p(HALF_QUARTER, 0.4)) == [[True, True, False, False]]
    assert kept(keep_min_p(HALF_QUARTER, 1.0)) == [[True, False, False, False]]


def test_typical_may_drop_the_likeliest():
    """The first: H = 1.31 nats, surprises 1.20 and 2.30. The second: H = 3.13, surprises 0.92 and 4.61."""
    logits = torch.tensor([[0.3, 0.3, 0.3, 0.1]]).log()
    assert kept(keep_typical(logits, 0.5)) == [[True, True, True, False]]
    lone = torch.tensor([0.4] + [0.6 / 60] * 60).log()[None]
    assert kept(keep_typical(lone, 0.5)) == [[False] + [True] * 60]


def test_top_n_sigma_equals_numpy_and_ignores_what_is_gone():
    x = np.random.default_rng(0).normal(size=(6, 200)).astype(np.float32)
    gone = x < -1
    logits = torch.from_numpy(np.where(gone, -np.inf, x).astype(np.float32))
    for n in (0.5, 1.0, 2.0):
        after = keep_top_n_sigma(logits, n)
        for row, mask, got in zip(x, gone, after, strict=True):
            left = row[~mask].astype(np.float64)
            assert got.isfinite().tolist() == (~mask & (row >= left.max() - n * left.std())).tolist()
        assert torch.equal(keep_top_n_sigma(logits / 3, n).isfinite(), after.isfinite())


def test_epsilon_and_eta_keep_the_likeliest():
    flat = torch.zeros(1, 100)
    flat[0, 3] = 1e-3
    assert kept(keep_above_epsilon(flat, 0.5))[0].index(True) == 3
    assert sum(kept(keep_above_epsilon(flat, 0.5))[0]) == 1
    assert sum(kept(keep_above_eta(flat, 0.9))[0]) == 100, "where the choice is open, eta lets all through"


ALL = [
    pytest.param(lambda x: keep_top_n_sigma(x, 1.5), id="top_n_sigma"),
    pytest.param(lambda x: keep_top_p(x, 0.8), id="top_p"),
    pytest.param(lambda x: keep_min_p(x, 0.1), id="min_p"),
    pytest.param(lambda x: keep_typical(x, 0.8), id="typical"),
    pytest.param(lambda x: keep_above_epsilon(x, 1e-3), id="epsilon"),
    pytest.param(lambda x: keep_above_eta(x, 1e-3), id="eta"),
]


@pytest.mark.parametrize("keep", ALL)
def test_what_is_gone_already_changes_nothing(keep):
    """The same ids with and without others that are -inf: so filters may see the ids of top-k alone."""
    few = 2 * torch.randn(4, 40, generator=torch.Generator().manual_seed(3))
    wide = torch.full((4, 500), -math.inf)
    places = torch.randperm(500, generator=torch.Generator().manual_seed(4))[:40]
    wide[:, places] = few
    assert torch.equal(keep(wide)[:, places], keep(few))


@pytest.mark.parametrize("keep", ALL)
def test_a_row_is_filtered_alike_alone_and_in_a_batch(keep):
    """To the bit, for a vocabulary of which torch would sum a single row in parts."""
    logits = 3 * torch.randn(5, 50_304, generator=torch.Generator().manual_seed(5))
    together = keep(logits)
    for row in range(5):
        assert torch.equal(keep(logits[row : row + 1])[0], together[row])


@pytest.mark.parametrize("keep", ALL)
def test_one_id_that_is_left_stays(keep):
    logits = torch.tensor([[-math.inf, 5.0, -math.inf], [0.0, 0.0, 0.0]])
    assert torch.equal(keep(logits), logits)


def test_sorting_is_that_of_torch():
    x = torch.randn(3, 1000, generator=torch.Generator().manual_seed(6))
    assert torch.equal(filters._sorted(x), x.sort(dim=-1).values)
    assert torch.equal(filters._order(x), x.argsort(dim=-1))
