"""Which window of the data comes when: a pure function of (seed, epoch, step, rank). Nothing is replayed.

With window length T, a shard of n ≥ T + 1 tokens has n // T windows of T inputs and T targets (T + 1 tokens,
read as if the shard were a ring). In every epoch the first one starts at another token, drawn from (seed,
epoch, shard), and the others follow it: window i covers (first + i·T + [0 … T]) mod n. So the borders
between windows move from epoch to epoch, every epoch has the same number of windows, and in each all tokens
but n mod T are a target exactly once. A shard of fewer than T + 1 tokens has no window.

The order is hierarchical, so that data made on demand can keep it: the shards are permuted by (seed, epoch);
`shuffle_shards` consecutive shards of that permutation form a block; the windows of a block are permuted
by (seed, epoch, block). An epoch visits each of its windows exactly once.

Shards need not be known before they are used: a block of the order asks for the sizes of its own shards alone.

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
from typing import NamedTuple, Protocol

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


class Order(Protocol):
    """Which windows a training step takes: what a loader asks."""

    @property
    def shard_tokens(self) -> Sequence[int]:
        """The sizes of the shards that it was made for."""
        ...

    @property
    def seq_len(self) -> int:
        """Tokens of a window."""
        ...

    @property
    def windows_per_epoch(self) -> int:
        """The windows that one epoch visits."""
        ...

    def locate(self, number: int) -> Window:
        """The window with this number, without looking at those before it."""
        ...

    def step(self, step: int, batch_windows: int, *, rank: int = 0, world: int = 1) -> list[Window]:
        """The windows that a rank takes in a step whose global batch has `batch_windows` of them."""
        ...

    def upcoming(self, number: int) -> tuple[list[int], list[int]]:
        """The shards that windows from this number on are taken from: those in use, and those used next."""
        ...


@dataclass(frozen=True, eq=False)
class _Epoch:
    shards: NDArray[np.int64]
    """The shards in this epoch's order."""
    block_ends: list[int]
    """How many windows lie before the end of each block that was looked at so far; they are looked at in order."""


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
    other shards. None, or more than there are: all. is_known: whether all sizes are there to be looked at; where
    they are not, `shard_tokens` makes a shard when it is asked for its size.

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
        is_known: bool = True,
    ) -> None:
        if seq_len < 1 or shuffle_shards < 1:
            raise ConfigError(
                f"wanted seq_len and shuffle_shards of at least 1, not {seq_len} and {shuffle_shards}"
            )
        if tokens_per_epoch is not None and tokens_per_epoch < seq_len:
            raise ConfigError(
                f"data.tokens_per_epoch: {tokens_per_epoch:,} is less than a window of {seq_len:,} tokens"
            )
        self.shard_tokens: Sequence[int] = tuple(shard_tokens) if is_known else shard_tokens
        self.seq_len = seq_len
        self._seed = seed
        self._shuffle_shards = shuffle_shards
        self._limit = None if tokens_per_epoch is None else tokens_per_epoch // seq_len
        # Cached for this object's life only; both are cheap to make again.
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)
        self._block = lru_cache(maxsize=2)(self._draw_block)
        self._windows_per_epoch: int | None = None
        if is_known:
            self._windows_per_epoch = self._count(sum(self._windows(tokens) for tokens in self.shard_tokens))

    @property
    def windows_per_epoch(self) -> int:
        """The windows that one epoch visits; where shards are not known yet, the limit that was set to them."""
        if self._windows_per_epoch is not None:
            return self._windows_per_epoch
        return self._limit if self._limit is not None else self._measure_epoch()

    def locate(self, number: int) -> Window:
        """The window with this number, without looking at those before it. Cost: O(log shards), once its
        block is drawn.
        """
        epoch, position = self._place(number)
        index = self._block_of(epoch, position)
        assert index is not None
        block_ends = self._epoch(epoch).block_ends
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

    def upcoming(self, number: int) -> tuple[list[int], list[int]]:
        """The shards of the block that has this window, and of the block after it. Sizes are not asked for."""
        epoch, position = self._place(number)
        index = self._block_of(epoch, position)
        assert index is not None
        is_last = (index + 1) * self._shuffle_shards >= len(self.shard_tokens)
        ends = self._epoch(epoch).block_ends[index]
        if is_last or (self._limit is not None and ends >= self.windows_per_epoch):
            following = self._shards_of(epoch + 1, 0)
        else:
            following = self._shards_of(epoch, index + 1)
        return self._shards_of(epoch, index), following

    def _windows(self, tokens: int) -> int:
        return tokens // self.seq_len if tokens > self.seq_len else 0

    def _place(self, number: int) -> tuple[int, int]:
        """The epoch of a window, and which window of that epoch it is."""
        if self._windows_per_epoch is None:
            # The first epoch tells how long every epoch is, once its last window is asked for.
            if (self._limit is None or number < self._limit) and self._block_of(0, number) is not None:
                return 0, number
            self._windows_per_epoch = self._measure_epoch()
        return divmod(number, self._windows_per_epoch)

    def _measure_epoch(self) -> int:
        """The windows of an epoch, by looking at its shards: at all of them, or until there are enough."""
        at_most = None if self._limit is None else self._limit - 1
        self._block_of(0, at_most)
        return self._count(self._epoch(0).block_ends[-1])

    def _count(self, windows: int) -> int:
        if windows == 0:
            longest = max(self.shard_tokens, default=0)
            raise DataError(
                f"the training data is shorter than one window: its longest shard has {longest:,} tokens, "
                f"and a window of seq_len {self.seq_len:,} needs {self.seq_len + 1:,}; give more text or a smaller "
                "train.seq_len"
            )
        return windows if self._limit is None else min(windows, self._limit)

    def _block_of(self, epoch: int, position: int | None) -> int | None:
        """The block of the epoch's window at `position`; None when it has no such window (None: none is meant)."""
        block_ends = self._epoch(epoch).block_ends
        blocks = -(-len(self.shard_tokens) // self._shuffle_shards)
        while len(block_ends) < blocks and (position is None or not block_ends or block_ends[-1] <= position):
            shards = self._shards_of(epoch, len(block_ends))
            windows = sum(self._windows(self.shard_tokens[shard]) for shard in shards)
            block_ends.append(windows + (block_ends[-1] if block_ends else 0))
        if position is None or block_ends[-1] <= position:
            return None
        return bisect_right(block_ends, position)

    def _shards_of(self, epoch: int, block: int) -> list[int]:
        begin = block * self._shuffle_shards
        return self._epoch(epoch).shards[begin : begin + self._shuffle_shards].tolist()

    def _draw_epoch(self, epoch: int) -> _Epoch:
        return _Epoch(permutation(len(self.shard_tokens), derive(self._seed, "shards", epoch)), [])

    def _draw_block(self, epoch: int, block: int) -> _Block:
        shards = self._shards_of(epoch, block)
        shard_ends = list(accumulate(self._windows(self.shard_tokens[shard]) for shard in shards))
        firsts = [derive(self._seed, "first window", epoch, s) % max(1, self.shard_tokens[s]) for s in shards]
        return _Block(
            shards,
            shard_ends,
            firsts,
            permutation(shard_ends[-1], derive(self._seed, "windows", epoch, block)),
        )
