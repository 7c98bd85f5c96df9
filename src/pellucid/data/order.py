"""Which window of the data comes when: a pure function of (seed, epoch, step, rank). Nothing is replayed.

With window length T, a shard of n ≥ T + 1 tokens has n // T windows of T inputs and T targets (T + 1 tokens,
read as if the shard were a ring). In every epoch the first one starts at another token, drawn from (seed,
epoch, shard), and the others follow it: window i covers (first + i·T + [0 … T]) mod n. So the borders
between windows move from epoch to epoch, every epoch has the same number of windows, and in each all tokens
but n mod T are a target exactly once. A shard of fewer than T + 1 tokens has no window.

The order is hierarchical, so that data made on demand can keep it: the shards are permuted by (seed, epoch);
`shuffle_shards` consecutive shards of that permutation form a block; the windows of a block are permuted
by (seed, epoch, block). An epoch visits each of its windows exactly once.

Windows are counted over all epochs. Step s with G windows in the global batch takes the windows
[s·G, (s + 1)·G); of these, rank r of w takes s·G + r, s·G + r + w, and so on: the global batch does not
depend on w.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import ConfigError, DataError
from pellucid.runtime.seeding import derive, permutation


class Window(NamedTuple):
    """T + 1 tokens of a shard, from `start` on, going on at token 0 where the shard ends."""

    number: int
    """Counted over all epochs from 0."""
    epoch: int
    shard: int
    start: int


@dataclass(frozen=True, eq=False)
class _Epoch:
    shards: NDArray[np.int64]
    """The shards in this epoch's order."""
    block_ends: list[int]
    """How many windows lie before the end of each block."""


@dataclass(frozen=True, eq=False)
class _Block:
    shards: list[int]
    shard_ends: list[int]
    """How many of the block's windows, before they are permuted, lie before the end of each of its shards."""
    firsts: list[int]
    """The token at which the first window of each of its shards starts."""
    order: NDArray[np.int64]


class TrainingOrder:
    """The order of a training split, given its shards' sizes in tokens.

    seq_len: T. shuffle_shards: the shards in a block, within which windows are shuffled; memory is 8 bytes
    for each of its windows, for the few blocks that were used last. tokens_per_epoch: end each epoch after
    this many targets, rounded down to whole windows; the next epoch draws its own order, so it begins with
    other shards. None, or more than there are: all.

    Raises DataError when no shard is as long as one window.
    """

    def __init__(
        self,
        shard_tokens: Sequence[int],
        seq_len: int,
        *,
        seed: int,
        shuffle_shards: int = 5,
        tokens_per_epoch: int | None = None,
    ) -> None:
        if seq_len < 1 or shuffle_shards < 1:
            raise ConfigError(
                f"wanted seq_len and shuffle_shards of at least 1, not {seq_len} and {shuffle_shards}"
            )
        self.shard_tokens = tuple(shard_tokens)
        self.seq_len = seq_len
        self._seed = seed
        self._shuffle_shards = shuffle_shards
        self._shard_windows = [n // seq_len if n > seq_len else 0 for n in self.shard_tokens]
        self.windows_per_epoch = sum(self._shard_windows)
        """The windows that one epoch visits."""
        if self.windows_per_epoch == 0:
            longest = max(self.shard_tokens, default=0)
            raise DataError(
                f"the training data is shorter than one window: its longest shard has {longest:,} tokens, "
                f"and a window of seq_len {seq_len:,} needs {seq_len + 1:,}; give more text or a smaller "
                "train.seq_len"
            )
        if tokens_per_epoch is not None:
            if tokens_per_epoch < seq_len:
                raise ConfigError(
                    f"data.tokens_per_epoch: {tokens_per_epoch:,} is less than a window of {seq_len:,} tokens"
                )
            self.windows_per_epoch = min(self.windows_per_epoch, tokens_per_epoch // seq_len)
        # Cached for this object's life only; both are cheap to make again.
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)
        self._block = lru_cache(maxsize=2)(self._draw_block)

    def locate(self, number: int) -> Window:
        """The window with this number, without looking at those before it. Cost: O(log shards), once its
        block is drawn.
        """
        epoch, position = divmod(number, self.windows_per_epoch)
        block_ends = self._epoch(epoch).block_ends
        index = bisect_right(block_ends, position)
        block = self._block(epoch, index)
        inside = int(block.order[position - (block_ends[index - 1] if index else 0)])
        place = bisect_right(block.shard_ends, inside)
        inside -= block.shard_ends[place - 1] if place else 0
        shard = block.shards[place]
        start = (block.firsts[place] + inside * self.seq_len) % self.shard_tokens[shard]
        return Window(number, epoch, shard, start)

    def step(self, step: int, batch_windows: int, *, rank: int = 0, world: int = 1) -> list[Window]:
        """The windows that a rank takes in a step whose global batch has `batch_windows` of them."""
        first = step * batch_windows
        return [self.locate(number) for number in range(first + rank, first + batch_windows, world)]

    def _draw_epoch(self, epoch: int) -> _Epoch:
        shards = permutation(len(self.shard_tokens), derive(self._seed, "shards", epoch))
        counts = np.array(self._shard_windows)[shards]
        blocks = np.add.reduceat(counts, np.arange(0, len(counts), self._shuffle_shards))
        return _Epoch(shards, list(accumulate(blocks.tolist())))

    def _draw_block(self, epoch: int, block: int) -> _Block:
        begin = block * self._shuffle_shards
        shards: list[int] = self._epoch(epoch).shards[begin : begin + self._shuffle_shards].tolist()
        shard_ends = list(accumulate(self._shard_windows[shard] for shard in shards))
        firsts = [derive(self._seed, "first window", epoch, s) % self.shard_tokens[s] for s in shards]
        return _Block(
            shards,
            shard_ends,
            firsts,
            permutation(shard_ends[-1], derive(self._seed, "windows", epoch, block)),
        )
