"""Batches: what crosses from the data to the model, as numpy arrays.

Shapes: B windows · T tokens a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pellucid.data.order import Window
from pellucid.data.shards import Split


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


@dataclass(frozen=True, eq=False)
class Batch:
    """Windows of ids. targets[b, t] is the token after inputs[b, t]; its loss counts weights[b, t] times."""

    inputs: NDArray[np.int64]
    """[B, T]"""
    targets: NDArray[np.int64]
    """[B, T]"""
    weights: NDArray[np.float32]
    """[B, T]; 0 where there is nothing to predict."""
    origin: Origin


def gather(split: Split, windows: Sequence[Window], seq_len: int) -> Batch:
    """Read training windows out of a split's shards. All weights are 1."""
    inputs = np.empty((len(windows), seq_len), dtype=np.int64)
    targets = np.empty_like(inputs)
    for row, window in enumerate(windows):
        shard = split.shards[window.shard]
        tokens = shard[window.start : window.start + seq_len + 1]
        if len(tokens) <= seq_len:
            tokens = np.concatenate([tokens, shard[: seq_len + 1 - len(tokens)]])
        inputs[row], targets[row] = tokens[:-1], tokens[1:]
    return Batch(inputs, targets, np.ones(inputs.shape, dtype=np.float32), Origin.of(windows))
