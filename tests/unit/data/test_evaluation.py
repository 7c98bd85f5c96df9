import numpy as np
import pytest

from pellucid.data.batch import Batch
from pellucid.data.evaluation import evaluation_batches, scored_tokens
from pellucid.data.shards import Split
from pellucid.errors import ConfigError, DataError


def split(*lengths: int) -> Split:
    """Shards of ids that count up from 100, 200, …"""
    shards = (np.arange(100 * (i + 1), 100 * (i + 1) + n, dtype=np.uint16) for i, n in enumerate(lengths))
    return Split("val", tuple(shards))


def rows(batches: list[Batch]) -> list[tuple[list[int], list[int]]]:
    """Inputs and targets of weight 1, row by row."""
    return [
        (inputs[weights == 1].tolist(), targets[weights == 1].tolist())
        for batch in batches
        for inputs, targets, weights in zip(batch.inputs, batch.targets, batch.weights, strict=True)
    ]


def test_windows_follow_each_other_and_the_last_is_padded() -> None:
    (batch,) = evaluation_batches(split(9), seq_len=5, batch_windows=2)
    assert batch.inputs.tolist() == [[100, 101, 102, 103, 104], [105, 106, 107, 0, 0]]
    assert batch.targets.tolist() == [[101, 102, 103, 104, 105], [106, 107, 108, 0, 0]]
    assert batch.weights.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch.inputs.dtype == batch.targets.dtype == np.int64
    assert batch.weights.dtype == np.float32


def test_no_window_goes_over_the_end_of_a_shard() -> None:
    batches = list(evaluation_batches(split(4, 1, 3), seq_len=2, batch_windows=2))
    assert rows(batches) == [
        ([100, 101], [101, 102]),
        ([102], [103]),
        ([300, 301], [301, 302]),
        ([], []),
    ]
    assert [batch.origin.shards.tolist() for batch in batches] == [[0, 0], [2, -1]]
    assert [batch.origin.starts.tolist() for batch in batches] == [[0, 2], [0, -1]]
    assert [batch.origin.windows.tolist() for batch in batches] == [[0, 1], [2, -1]]


def test_a_prefix_of_exactly_max_tokens_is_scored() -> None:
    assert rows(list(evaluation_batches(split(9), 4, 1, max_tokens=6))) == [
        ([100, 101, 102, 103], [101, 102, 103, 104]),
        ([104, 105], [105, 106]),
    ]
    assert scored_tokens(split(9), 6) == 6
    assert scored_tokens(split(9, 1, 4), 100) == scored_tokens(split(9, 1, 4)) == 8 + 0 + 3


def test_nothing_to_score() -> None:
    for nothing in (split(), split(1), split(1, 1)):
        with pytest.raises(
            DataError, match=r"val: \d token\(s\) in this split, and scoring needs two in a row"
        ):
            evaluation_batches(nothing, 4, 1)


def test_sizes_out_of_range() -> None:
    for sizes in ((0, 1, 1), (1, 0, 1), (1, 1, 0)):
        with pytest.raises(ConfigError, match="of at least 1, not"):
            evaluation_batches(split(9), *sizes)
