import pytest

from pellucid.data.order import TrainingOrder, Window
from pellucid.errors import ConfigError, DataError

PINNED_0 = [(2, 3), (2, 18), (1, 10), (2, 26), (1, 2), (0, 18), (0, 10), (0, 34), (0, 2), (0, 26)]
PINNED_1 = [(2, 14), (1, 0), (1, 15), (2, 6), (2, 29), (0, 24), (0, 0), (0, 32), (0, 8), (0, 16)]


def epoch(order: TrainingOrder, number: int) -> list[Window]:
    count = order.windows_per_epoch
    return [order.locate(number * count + index) for index in range(count)]


def places(windows: list[Window]) -> list[tuple[int, int]]:
    return [(window.shard, window.start) for window in windows]


def test_an_epoch_has_the_windows_of_every_shard_that_has_one() -> None:
    order = TrainingOrder([100, 9, 8, 16], seq_len=8, seed=0)
    windows = epoch(order, 0)
    assert order.windows_per_epoch == 12 + 1 + 0 + 2
    assert {shard: sum(w.shard == shard for w in windows) for shard in range(4)} == {0: 12, 1: 1, 2: 0, 3: 2}


def test_the_order_of_a_seed_never_changes() -> None:
    # Pinned: a change here would give resumed runs other data than they began with.
    order = TrainingOrder([40, 23, 31], seq_len=8, seed=17, shuffle_shards=2)
    assert places(epoch(order, 0)) == PINNED_0
    assert places(epoch(order, 1)) == PINNED_1


def test_epochs_and_seeds_differ_in_order_and_in_the_borders_of_windows() -> None:
    orders = [TrainingOrder([4096], seq_len=64, seed=seed) for seed in range(4)]
    starts = [[window.start for window in epoch(order, number)] for order in orders for number in range(4)]
    assert len({tuple(one) for one in starts}) == 16
    borders = [{start % 64 for start in one} for one in starts]  # 64 divides 4096: one value an epoch
    assert all(len(one) == 1 for one in borders)
    assert len(set.union(*borders)) > 8


def test_windows_are_shuffled_among_so_many_shards_at_a_time() -> None:
    order = TrainingOrder([80] * 7, seq_len=8, seed=3, shuffle_shards=3)
    windows = epoch(order, 0)
    blocks = [{window.shard for window in windows[at : at + 30]} for at in (0, 30, 60)]
    assert [len(block) for block in blocks] == [3, 3, 1]
    assert set.union(*blocks) == set(range(7))
    first = [window.shard for window in windows[:30]]
    assert first != sorted(first, key=first.index)  # not one shard after the other


def test_shards_come_in_another_order_in_each_epoch() -> None:
    order = TrainingOrder([8 * 4 + 1] * 20, seq_len=8, seed=3, shuffle_shards=1)
    firsts = [tuple(window.shard for window in epoch(order, number)[::4]) for number in range(3)]
    assert len(set(firsts)) == 3
    assert all(sorted(first) == list(range(20)) for first in firsts)


def test_a_step_takes_consecutive_windows_and_ranks_share_them() -> None:
    order = TrainingOrder([100], seq_len=8, seed=0)
    assert [window.number for window in order.step(3, 4)] == [12, 13, 14, 15]
    assert [window.number for window in order.step(3, 4, rank=1, world=2)] == [13, 15]
    assert [window.epoch for window in order.step(2, 5)] == [0, 0, 1, 1, 1]


def test_an_epoch_can_be_ended_early_and_the_next_begins_elsewhere() -> None:
    whole = TrainingOrder([33] * 6, seq_len=8, seed=5, shuffle_shards=1)
    short = TrainingOrder([33] * 6, seq_len=8, seed=5, shuffle_shards=1, tokens_per_epoch=71)
    assert short.windows_per_epoch == 8
    assert places(epoch(short, 0)) == places(epoch(whole, 0))[:8]
    assert places(epoch(short, 1)) == places(epoch(whole, 1))[:8]
    assert TrainingOrder([33], 8, seed=5, tokens_per_epoch=10**6).windows_per_epoch == 4


def test_data_shorter_than_a_window_says_how_long_both_are() -> None:
    with pytest.raises(
        DataError, match=r"longest shard has 8 tokens, and a window of seq_len 8 needs 9; give more"
    ):
        TrainingOrder([3, 8], seq_len=8, seed=0)
    with pytest.raises(DataError, match="longest shard has 0 tokens"):
        TrainingOrder([], seq_len=8, seed=0)


def test_sizes_out_of_range() -> None:
    with pytest.raises(ConfigError, match="seq_len and shuffle_shards of at least 1, not 0 and 5"):
        TrainingOrder([100], seq_len=0, seed=0)
    with pytest.raises(ConfigError, match=r"data\.tokens_per_epoch: 7 is less than a window of 8"):
        TrainingOrder([100], seq_len=8, seed=0, tokens_per_epoch=7)
