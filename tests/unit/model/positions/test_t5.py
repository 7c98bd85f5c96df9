import pytest
import torch
from torch import Tensor

from pellucid.config import from_tree
from pellucid.errors import ConfigError
from pellucid.model.positions import T5Position, T5PositionConfig


def buckets(position: T5Position, distances: list[int]) -> list[int]:
    """The buckets of keys that lie so far behind a query at place 1000."""
    return position.buckets(torch.tensor([1000]), 1000 - torch.tensor(distances))[0].tolist()


def test_small_distances_have_a_bucket_each_and_larger_ones_share() -> None:
    position = T5Position(1, num_buckets=8, max_distance=64)
    assert buckets(position, [0, 1, 2, 3]) == [0, 1, 2, 3]
    assert buckets(position, [4, 7, 8, 15, 16, 31, 32, 63, 64, 900]) == [4, 4, 5, 5, 6, 6, 7, 7, 7, 7]


def test_a_causal_scheme_spends_no_bucket_on_what_lies_ahead() -> None:
    assert buckets(T5Position(1), [-1, -50]) == [0, 0]
    found = buckets(T5Position(1), list(range(200)))
    assert sorted(set(found)) == list(range(32))
    assert found == sorted(found)


def test_looking_both_ways_halves_the_buckets() -> None:
    position = T5Position(1, num_buckets=16, max_distance=64, is_causal=False)
    assert buckets(position, [0, 3, 4, 8, 64, 900]) == [0, 3, 4, 5, 7, 7]
    assert buckets(position, [-1, -3, -4, -8, -64, -900]) == [9, 11, 12, 13, 15, 15]


def test_buckets_at_their_very_edges_do_not_move_by_rounding() -> None:
    """Distance d ≥ exact is in bucket exact + k as soon as (d / exact)^m ≥ (max_distance / exact)^k: in integers."""
    for num_buckets, max_distance in [(32, 128), (16, 128), (64, 512), (8, 64), (6, 50), (10, 3000)]:
        exact = num_buckets // 2
        expected = [
            min(d, exact)
            + sum(d**exact * exact**k >= max_distance**k * exact**exact for k in range(1, exact))
            for d in range(700)
        ]
        assert buckets(T5Position(1, num_buckets, max_distance), list(range(700))) == expected


def test_the_bias_is_the_heads_entry_of_the_bucket() -> None:
    position = T5Position(3).double()
    queries, keys = torch.tensor([5, 70]), torch.arange(71)
    bias, rows = position.bias(queries, keys), position.buckets(queries, keys)
    assert (bias.shape, bias.dtype) == ((3, 2, 71), torch.float64)
    assert bias.is_contiguous()
    for head in range(3):
        assert torch.equal(bias[head], position.table[rows, head])


def test_each_bucket_collects_the_gradient_of_every_pair_in_it() -> None:
    position, places = T5Position(2, num_buckets=4, max_distance=8), torch.arange(5)
    position.bias(places, places).sum().backward()
    pairs: Tensor = position.buckets(places, places).flatten().bincount(minlength=4)
    assert torch.equal(position.table.grad, pairs[:, None].expand(4, 2).float())


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"num_buckets": 2}, "num_buckets: must be at least 4, not 2"),
        ({"num_buckets": 7}, "num_buckets must be an even number from 4 on, not 7"),
        (
            {"num_buckets": 32, "max_distance": 16},
            "max_distance (16) must be more than half of num_buckets (32), which hold one distance each; raise "
            "max_distance or lower num_buckets",
        ),
    ],
)
def test_impossible_buckets_are_refused(tree: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_tree(T5PositionConfig, tree)
    assert str(caught.value) == message


def test_the_part_alone_refuses_them_too() -> None:
    with pytest.raises(ValueError, match=r"max_distance \(4\) must be more than half of num_buckets \(8\)"):
        T5Position(2, num_buckets=8, max_distance=4)
