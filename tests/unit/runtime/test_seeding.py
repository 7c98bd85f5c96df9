import hashlib

import numpy as np
import pytest
import torch

from pellucid.runtime.seeding import derive, permutation, seed_torch, torch_generator, uniform


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ((0,), 8493733112532773764),
        ((0, "shuffle"), 5082605218970017050),
        ((0, "shuffle", 1, 2), 1977629577350593829),
        ((7, "dropout", 1000, 0), 6541777207502993672),
    ],
)
def test_derived_seeds_never_change(words: tuple, value: int) -> None:
    """A change here would give every run that is resumed other data than it had."""
    assert derive(*words) == value


def test_uniform_numbers_never_change() -> None:
    assert uniform(0) == 8493733112532773764 // 1024 / 2**53
    assert uniform(7, "sampling", 3) == derive(7, "sampling", 3) // 1024 / 2**53


def test_uniform_numbers_fill_the_interval_evenly() -> None:
    drawn = np.array([uniform(seed, "sampling", place) for seed in range(100) for place in range(100)])
    assert 0 <= drawn.min() < 0.001
    assert 0.999 < drawn.max() < 1
    # Kolmogorov-Smirnov: a fair sample is further off with probability 2·exp(-2·n·d²) = 1e-6
    steps = np.abs(np.sort(drawn) - (np.arange(10_000) + 0.5) / 10_000).max()
    assert steps < np.sqrt(np.log(2e6) / 2 / 10_000)


def test_permutations_never_change() -> None:
    assert permutation(10, 0).tolist() == [2, 4, 6, 8, 5, 1, 7, 0, 9, 3]
    assert permutation(10, derive(0, "shuffle")).tolist() == [6, 0, 3, 4, 1, 9, 7, 2, 8, 5]
    assert permutation(8, 2**63 - 1).tolist() == [5, 3, 0, 6, 4, 7, 2, 1]
    large = hashlib.sha256(permutation(100_000, 12345).astype("<i8").tobytes()).hexdigest()
    assert large == "832c7386f9ee98e0a789895bd81616a8ae3744b2af5b945c7cdd9f51146f535f"


def test_a_derived_seed_differs_by_every_word_its_order_and_its_type() -> None:
    words = [
        (0,),
        (1,),
        (0, "a"),
        (0, "b"),
        (0, "a", 1),
        (0, "a", "1"),
        (0, 1, "a"),
        (0, "a", 1, 2),
        (0, "a", 12),
        (0, "a", 2, 1),
        (0, "a1"),
        (0, ""),
        (-1,),
    ]
    seeds = [derive(*each) for each in words]
    assert len(set(seeds)) == len(words)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000, 65_537])
@pytest.mark.parametrize("key", [0, 1, 2**63 - 1])
def test_a_permutation_has_every_index_once(count: int, key: int) -> None:
    order = permutation(count, key)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(count))


def test_permutations_of_different_keys_are_unrelated() -> None:
    """Two random permutations agree in one place on average, and an index moves by a third of the length."""
    n = 10_000
    orders = [permutation(n, derive(0, "epoch", epoch)) for epoch in range(4)]
    for i, one in enumerate(orders):
        assert abs(np.abs(one - np.arange(n)).mean() / n - 1 / 3) < 0.01
        for other in orders[i + 1 :]:
            assert (one == other).sum() < 10
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.05


def test_a_torch_generator_draws_by_seed_and_purpose_alone() -> None:
    def draw(seed: int, *purpose: str | int) -> float:
        return torch.rand((), generator=torch_generator("cpu", seed, *purpose)).item()

    torch.manual_seed(1)
    first = draw(3, "sample", 5)
    torch.manual_seed(2)
    assert draw(3, "sample", 5) == first
    assert len({first, draw(4, "sample", 5), draw(3, "sample", 6), draw(3, "other", 5)}) == 4


def test_seed_torch_seeds_what_dropout_draws_from() -> None:
    def draw(seed: int, *purpose: str | int) -> list[float]:
        seed_torch(seed, *purpose)
        return torch.nn.functional.dropout(torch.ones(64), 0.5).tolist()

    assert draw(3, "dropout", 5) == draw(3, "dropout", 5)
    assert draw(3, "dropout", 5) != draw(3, "dropout", 6)
