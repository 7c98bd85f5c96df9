"""Paired data: a target text learned from a source text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from pellucid.data.batch import Batch
from pellucid.data.evaluation import first_targets
from pellucid.data.objectives.base import ENCODER_DECODER, Objective, ObjectiveBase, required_start_id
from pellucid.data.objectives.text_to_text import Row, RowShape
from pellucid.data.order import TrainingOrder, Window
from pellucid.data.shards import Split, require_pairs
from pellucid.data.sources import PairFields
from pellucid.errors import ConfigError, DataError
from pellucid.tokenizers import Tokenizer


class PairedConfig(ObjectiveBase):
    """Write the target of a pair from its source. The data is .jsonl, a pair a line."""

    trains = (ENCODER_DECODER,)
    kind: Literal["paired"] = "paired"
    source_field: str = "source"
    """The field of a line that holds the source."""
    target_field: str = "target"
    """The field of a line that holds the target."""

    @property
    def fields(self) -> PairFields:
        return self.source_field, self.target_field

    def build(
        self,
        *,
        tokenizer: Tokenizer,
        is_encoder_decoder: bool,
        seq_len: int,
        start_id: int | None = None,
        seed: int = 0,
    ) -> Objective:
        """Raises ConfigError for a tokenizer without an end of text, by which targets say that they are over."""
        self.require_model(is_encoder_decoder=is_encoder_decoder)
        if tokenizer.end_of_text_id is None:
            raise ConfigError(
                f"data.tokenizer.kind {tokenizer.kind!r} has no end-of-text token, and the targets of "
                "data.objective.kind 'paired' end with one; choose another tokenizer"
            )
        return Paired(seq_len, start_id=required_start_id(start_id))


class Paired:
    """The encoder reads a source, the decoder learns its target and the end-of-text id after it.

    S = T = seq_len: a source has up to seq_len ids, a target one less. Sources have no end-of-text id, so that a
    prompt at generation is a source as it stands; special tokens in a text, such as sentinels, are parsed here and
    there (see `data.encoding.encode_with_special`). A window is a pair, `start` its number; shards do not matter to
    the order. A pair counts as seq_len tokens where an epoch's tokens are limited. Nothing is drawn.
    """

    def __init__(self, seq_len: int, *, start_id: int) -> None:
        self.seq_len = self.encoder_len = self.decoder_len = seq_len
        self._shape = RowShape(seq_len, seq_len, start_id)

    def extents(self, split: Split) -> tuple[int, ...]:
        """The number of pairs. Raises DataError for a split of single texts, and for pairs that are too long."""
        require_pairs(split, split.title)
        lengths = np.diff(split.bounds).reshape(-1, 2)  # with an end-of-text id each
        sources, targets = lengths[:, 0] - 1, lengths[:, 1]
        too_long = int(np.count_nonzero((sources > self.seq_len) | (targets > self.seq_len)))
        if too_long:
            needed = int(max(sources.max(), targets.max()))
            raise DataError(
                f"{split.title}: {too_long:,} of {len(lengths):,} pairs do not fit train.seq_len {self.seq_len:,}: the "
                f"longest source has {sources.max():,} ids, the longest target {targets.max():,} with its end; raise "
                f"train.seq_len (and model.max_seq_len) to {needed:,}, or remove the long pairs"
            )
        return (len(lengths),)

    def order(
        self, split: Split, *, seed: int, shuffle_shards: int = 5, tokens_per_epoch: int | None = None
    ) -> TrainingOrder:
        (pairs,) = extents = self.extents(split)
        if pairs < 2:
            raise DataError(f"{split.title}: {pairs} pair(s), and training needs at least 2; give more")
        if tokens_per_epoch is not None and tokens_per_epoch < self.seq_len:
            raise ConfigError(
                f"data.tokens_per_epoch: {tokens_per_epoch:,} is less than a pair, which counts as train.seq_len "
                f"({self.seq_len:,}) tokens"
            )
        limit = None if tokens_per_epoch is None else tokens_per_epoch // self.seq_len
        return TrainingOrder(extents, 1, seed=seed, shuffle_shards=shuffle_shards, tokens_per_epoch=limit)

    def batch(self, split: Split, windows: Sequence[Window]) -> Batch:
        return self._shape.batch([_pair(split, window) for window in windows], windows)

    def evaluation_batches(
        self, split: Split, batch_windows: int, max_tokens: int | None = None
    ) -> Iterator[Batch]:
        (pairs,) = self.extents(split)
        if pairs == 0 or batch_windows < 1 or (max_tokens is not None and max_tokens < 1):
            raise ConfigError(
                f"{split.title}: wanted at least 1 pair, batch_windows and max_tokens of at least 1, "
                f"not {pairs}, {batch_windows} and {max_tokens}"
            )
        windows = (Window(number, 0, 0, number) for number in range(pairs))
        batches = self._shape.in_order(windows, lambda window: _pair(split, window), batch_windows)
        return first_targets(batches, max_tokens)


def _pair(split: Split, window: Window) -> Row:
    begin, middle, end = split.bounds[2 * window.start : 2 * window.start + 3].tolist()
    return split.read(begin, middle - 1), split.read(middle, end)
