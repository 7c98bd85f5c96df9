"""A split in reading order, in windows that overlap nowhere: what is scored, and by which context.

Every token but the first of each shard is a target exactly once, so a mean over the weights is over the
whole split. A target at place t of its window is predicted from the t + 1 tokens before it in that window.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pellucid.data.batch import Batch, Origin
from pellucid.data.order import Window
from pellucid.data.shards import Split
from pellucid.errors import ConfigError, DataError


def scored_tokens(split: Split, max_tokens: int | None = None) -> int:
    """How many targets `evaluation_batches` gives a weight of 1."""
    available = sum(max(0, n - 1) for n in split.shard_tokens)
    return available if max_tokens is None else min(available, max_tokens)


def evaluation_batches(
    split: Split, seq_len: int, batch_windows: int, max_tokens: int | None = None
) -> Iterator[Batch]:
    """The windows from token 0 of each shard, in order, `batch_windows` a batch.

    max_tokens: score only the first so many targets, always the same ones. All batches have the shape
    [batch_windows, seq_len], whatever is left: the rest of a shard's last window,
    and of the last batch, is padding (id 0) of weight 0.
    Raises DataError when there is nothing to score.
    """
    if seq_len < 1 or batch_windows < 1 or (max_tokens is not None and max_tokens < 1):
        raise ConfigError(
            "wanted seq_len, batch_windows and max_tokens of at least 1, "
            f"not {seq_len}, {batch_windows} and {max_tokens}"
        )
    remaining = scored_tokens(split, max_tokens)
    if remaining == 0:
        raise DataError(
            f"{split.name}: {split.tokens} token(s) in this split, and scoring needs two in a row"
        )
    return _batches(split, seq_len, batch_windows, remaining)


def _batches(split: Split, seq_len: int, batch_windows: int, remaining: int) -> Iterator[Batch]:
    batch, row = _padding(seq_len, batch_windows), 0
    for number, (shard, start) in enumerate(_windows(split, seq_len)):
        tokens = split.shards[shard][start : start + min(seq_len, remaining) + 1]
        count = len(tokens) - 1
        batch.inputs[row, :count], batch.targets[row, :count] = tokens[:-1], tokens[1:]
        batch.weights[row, :count] = 1
        _set_origin(batch.origin, row, Window(number, 0, shard, start))
        row, remaining = row + 1, remaining - count
        if row == batch_windows or remaining == 0:
            yield batch
            batch, row = _padding(seq_len, batch_windows), 0
        if remaining == 0:
            return


def _windows(split: Split, seq_len: int) -> Iterator[tuple[int, int]]:
    for shard, count in enumerate(split.shard_tokens):
        for start in range(0, count - 1, seq_len):
            yield shard, start


def _padding(seq_len: int, batch_windows: int) -> Batch:
    shape = (batch_windows, seq_len)
    origin = Origin.of([Window(-1, 0, -1, -1)] * batch_windows)
    return Batch(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.float32), origin)


def _set_origin(origin: Origin, row: int, window: Window) -> None:
    for column, value in zip(
        (origin.windows, origin.epochs, origin.shards, origin.starts), window, strict=True
    ):
        column[row] = value
