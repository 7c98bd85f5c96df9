"""A source and a target a row → the arrays of one shape that an encoder-decoder takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pellucid.data.batch import Batch, Origin, window_ids
from pellucid.data.evaluation import PADDING, first_targets, reading_windows, require_scorable
from pellucid.data.objectives.base import RunningText
from pellucid.data.order import Window
from pellucid.data.shards import Split
from pellucid.runtime.seeding import derive

AnyIds = NDArray[np.integer[Any]]
Row = tuple[AnyIds, AnyIds]
"""A source's ids and a target's."""

_EMPTY: Row = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class RowShape:
    """S source ids and T target ids a row; decoder inputs are the targets shifted right, behind `start_id`."""

    encoder_len: int
    decoder_len: int
    start_id: int

    def batch(self, rows: Sequence[Row], windows: Sequence[Window], *, has_padding: bool = True) -> Batch:
        """[B, S] and [B, T]. What a source leaves free is padding (id 0, document -1), which nothing sees.

        Behind a target there is id 0 with weight 0, which no target sees: decoders are causal. has_padding:
        whether sources may be shorter than S; False leaves `encoder_documents` out, and attention unmasked.
        """
        sources = np.zeros((len(rows), self.encoder_len), dtype=np.int64)
        documents = np.full_like(sources, -1)
        targets = np.zeros((len(rows), self.decoder_len), dtype=np.int64)
        inputs, weights = np.zeros_like(targets), np.zeros(targets.shape, dtype=np.float32)
        inputs[:, 0] = self.start_id
        for row, (source, target) in enumerate(rows):
            sources[row, : len(source)], documents[row, : len(source)] = source, 0
            targets[row, : len(target)], weights[row, : len(target)] = target, 1
            inputs[row, 1 : len(target)] = target[:-1]
        return Batch(
            inputs,
            targets,
            weights,
            Origin.of(windows),
            encoder_inputs=sources,
            encoder_documents=documents if has_padding else None,
        )

    def in_order(
        self, windows: Iterable[Window], read: Callable[[Window], Row], batch_windows: int
    ) -> Iterator[Batch]:
        """The rows of the windows, `batch_windows` a batch; empty rows fill up the last."""
        remaining = iter(windows)
        while group := list(islice(remaining, batch_windows)):
            missing = batch_windows - len(group)
            rows = [*map(read, group), *[_EMPTY] * missing]
            yield self.batch(rows, [*group, *[PADDING] * missing])


class TextToText(RunningText, ABC):
    """An objective that turns a window of a running text into a source and a target, by a draw.

    A training window is seq_len ids. In evaluation the last window of a shard is what is left, from 2 ids on.
    """

    purpose: ClassVar[str]
    """The word that its random draws are derived from."""
    fills_source: ClassVar[bool]
    """Whether every training window gives a source of S ids."""

    def __init__(self, seq_len: int, shape: RowShape, *, seed: int) -> None:
        super().__init__(seq_len)
        self.encoder_len, self.decoder_len = shape.encoder_len, shape.decoder_len
        self._shape, self._seed = shape, seed

    @abstractmethod
    def row(self, ids: AnyIds, key: int) -> Row:
        """Source and target of a window of 2 to seq_len ids; `key` decides what is drawn."""

    def batch(self, split: Split, windows: Sequence[Window]) -> Batch:
        rows = [
            self.row(window_ids(split, window, self.seq_len), derive(self._seed, self.purpose, window.number))
            for window in windows
        ]
        return self._shape.batch(rows, windows, has_padding=not self.fills_source)

    def evaluation_batches(
        self, split: Split, batch_windows: int, max_tokens: int | None = None
    ) -> Iterator[Batch]:
        require_scorable(split, self.seq_len, batch_windows, max_tokens)

        def read(window: Window) -> Row:
            ids = split.shards[window.shard][window.start : window.start + self.seq_len]
            return self.row(ids, evaluation_key(self.purpose, window.number))

        windows = reading_windows(split, self.seq_len)
        return first_targets(self._shape.in_order(windows, read, batch_windows), max_tokens)


def evaluation_key(purpose: str, number: int) -> int:
    """What decides an evaluation's draw for a window: the same in every run, whatever its seed."""
    return derive(0, f"{purpose} evaluation", number)
