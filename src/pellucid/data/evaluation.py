"""A split in reading order, in windows that overlap nowhere: what is scored, and by which context.

Every token but the first of each shard is a target exactly once, so a mean over the weights is over the
whole split. A target at place t of its window is predicted from the t + 1 tokens before it in that window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from pellucid.data.batch import Batch, Origin
from pellucid.data.order import Window
from pellucid.data.shards import Split
from pellucid.errors import ConfigError, DataError

PADDING = Window(-1, 0, -1, -1)
"""The window of a row that fills up a batch."""


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
    require_scorable(split, seq_len, batch_windows, max_tokens)
    return _batches(split, seq_len, batch_windows, scored_tokens(split, max_tokens))


def require_scorable(split: Split, seq_len: int, batch_windows: int, max_tokens: int | None) -> None:
    """Raise ConfigError for a size below 1, and DataError when no shard has two tokens."""
    if seq_len < 1 or batch_windows < 1 or (max_tokens is not None and max_tokens < 1):
        raise ConfigError(
            "wanted seq_len, batch_windows and max_tokens of at least 1, "
            f"not {seq_len}, {batch_windows} and {max_tokens}"
        )
    if scored_tokens(split) == 0:
        raise DataError(
            f"{split.name}: {split.tokens} token(s) in this split, and scoring needs two in a row"
        )


def reading_windows(split: Split, seq_len: int) -> Iterator[Window]:
    """The windows from token 0 of each shard, in order; the last of a shard has the two tokens or more left."""
    places = (
        (shard, start)
        for shard, count in enumerate(split.shard_tokens)
        for start in range(0, count - 1, seq_len)
    )
    for number, (shard, start) in enumerate(places):
        yield Window(number, 0, shard, start)


def first_targets(batches: Iterable[Batch], max_tokens: int | None) -> Iterator[Batch]:
    """The batches up to the one with target `max_tokens`, those after it without weight. None: all of them."""
    for batch in batches:
        if max_tokens is not None:
            scored = np.flatnonzero(batch.weights)
            batch.weights.reshape(-1)[scored[max_tokens:]] = 0
            max_tokens -= len(scored)
        yield batch
        if max_tokens is not None and max_tokens <= 0:
            return


def _batches(split: Split, seq_len: int, batch_windows: int, remaining: int) -> Iterator[Batch]:
    batch, row = _padding(seq_len, batch_windows), 0
    for window in reading_windows(split, seq_len):
        tokens = split.shards[window.shard][window.start : window.start + min(seq_len, remaining) + 1]
        count = len(tokens) - 1
        batch.inputs[row, :count], batch.targets[row, :count] = tokens[:-1], tokens[1:]
        batch.weights[row, :count] = 1
        _set_origin(batch.origin, row, window)
        row, remaining = row + 1, remaining - count
        if row == batch_windows or remaining == 0:
            yield batch
            batch, row = _padding(seq_len, batch_windows), 0
        if remaining == 0:
            return


def _padding(seq_len: int, batch_windows: int) -> Batch:
    shape = (batch_windows, seq_len)
    origin = Origin.of([PADDING] * batch_windows)
    return Batch(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.float32), origin)


def _set_origin(origin: Origin, row: int, window: Window) -> None:
    for column, value in zip(
        (origin.windows, origin.epochs, origin.shards, origin.starts), window, strict=True
    ):
        column[row] = value
