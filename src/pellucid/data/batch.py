"""Batches: what crosses from the data to the model, as numpy arrays.

Shapes: B windows · T ids of the (target) sequence · S ids of an encoder's source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pellucid.data.order import Window
from pellucid.data.shards import Ids, Split


@dataclass(frozen=True, eq=False)
class Origin:
    """Where each row of a batch comes from: `shard` and `start` say which tokens, all [B] int64."""

    windows: NDArray[np.int64]
    """The window's number, counted over all epochs in training; -1 for a row of padding."""
    epochs: NDArray[np.int64]
    shards: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, windows: Sequence[Window]) -> Origin:
        table = np.array(windows, dtype=np.int64).reshape(len(windows), 4)
        return cls(*np.ascontiguousarray(table.T))

    def rows(self, part: slice) -> Origin:
        """Of some rows alone."""
        return Origin(self.windows[part], self.epochs[part], self.shards[part], self.starts[part])


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows of ids. targets[b, t] follows inputs[b, t]; its loss counts weights[b, t] times.

    For an encoder-decoder, inputs and targets are the decoder's, and encoder_inputs is what it may look at.
    What an objective has no use for is None.
    """

    inputs: NDArray[np.int64]
    """[B, T]"""
    targets: NDArray[np.int64]
    """[B, T]"""
    weights: NDArray[np.float32]
    """[B, T]; 0 where there is nothing to predict."""
    origin: Origin
    positions: NDArray[np.int64] | None = None
    """[B, T]: the place of each input in its own sequence; None: 0, 1, 2, …"""
    documents: NDArray[np.int64] | None = None
    """[B, T]: the document of each input, -1 for padding; None: all of document 0."""
    prefix_lengths: NDArray[np.int64] | None = None
    """[B]: how many first inputs see each other in both directions."""
    encoder_inputs: NDArray[np.int64] | None = None
    """[B, S]: the source's ids."""
    encoder_documents: NDArray[np.int64] | None = None
    """[B, S]: as `documents`, for the source; None: no padding."""


def window_ids(split: Split, window: Window, count: int) -> Ids:
    """The `count` ids of a shard from the window's start on, read as if the shard were a ring."""
    shard = split.shards[window.shard]
    ids = shard[window.start : window.start + count]
    return ids if len(ids) == count else np.concatenate([ids, shard[: count - len(ids)]])


def gather(split: Split, windows: Sequence[Window], seq_len: int) -> Batch:
    """Read training windows out of a split's shards. All weights are 1."""
    inputs = np.empty((len(windows), seq_len), dtype=np.int64)
    targets = np.empty_like(inputs)
    for row, window in enumerate(windows):
        ids = window_ids(split, window, seq_len + 1)
        inputs[row], targets[row] = ids[:-1], ids[1:]
    return Batch(inputs, targets, np.ones(inputs.shape, dtype=np.float32), Origin.of(windows))
