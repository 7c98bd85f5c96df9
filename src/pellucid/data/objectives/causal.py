"""Causal language modelling: every id is predicted from those before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Literal

import numpy as np

from pellucid.data.batch import Batch, Origin, gather
from pellucid.data.evaluation import PADDING, evaluation_batches, first_targets
from pellucid.data.objectives.base import DECODER, Objective, ObjectiveBase, RunningText
from pellucid.data.order import TrainingOrder, Window
from pellucid.data.packing import Packing, pack, read_piece
from pellucid.data.shards import Split
from pellucid.errors import ConfigError, DataError
from pellucid.tokenizers import Tokenizer


class CausalConfig(ObjectiveBase):
    """Predict every id from those before it in its window."""

    trains = (DECODER,)
    kind: Literal["causal"] = "causal"
    packing: Literal["contiguous", "best_fit"] = "contiguous"
    """How documents fill windows: `contiguous`, one after the other, cut wherever a window ends, and each sees
    those before it in its window; `best_fit`, whole unless they are longer than a window, and none sees another.
    """

    def build(
        self,
        *,
        tokenizer: Tokenizer,
        is_encoder_decoder: bool,
        seq_len: int,
        start_id: int | None = None,
        seed: int = 0,
    ) -> Objective:
        self.require_model(is_encoder_decoder=is_encoder_decoder)
        if self.packing == "best_fit":
            return PackedCausal(seq_len, end_of_text_id=tokenizer.end_of_text_id)
        return Causal(seq_len)


class Causal(RunningText):
    """p(id | those before it): inputs and targets are the same window, one id apart. Nothing is drawn.

    T = seq_len; a window has T + 1 ids.
    """

    def __init__(self, seq_len: int) -> None:
        super().__init__(seq_len)
        self.encoder_len, self.decoder_len = None, seq_len

    def batch(self, split: Split, windows: Sequence[Window]) -> Batch:
        return gather(split, windows, self.seq_len)

    def evaluation_batches(
        self, split: Split, batch_windows: int, max_tokens: int | None = None
    ) -> Iterator[Batch]:
        return evaluation_batches(split, self.seq_len, batch_windows, max_tokens)


class PackedCausal(Causal):
    """p(id | those before it in its document): rows of T targets, packed by best fit (see `data.packing`).

    A window is a row: `shard` is its section, `start` its number there. The parts of a mixture are packed each by
    itself, and their sections are numbered one part after the other. Documents are numbered from 0 in a row, and
    what is left at its end is padding: id 0, document -1, weight 0. Positions count from 0 in every piece, also in
    one that goes on with a document: the model never sees farther back than its first id, so for it the text begins
    there, as at the start of a contiguous window. A row counts as T tokens where an epoch's tokens are limited.
    Nothing is drawn.

    end_of_text_id: what the tokenizer ends documents with; None where it has no such id.
    """

    def __init__(self, seq_len: int, *, end_of_text_id: int | None) -> None:
        super().__init__(seq_len)
        self._end_of_text_id = end_of_text_id

    def packing(self, split: Split) -> Packing:
        """The rows of a split without parts.

        Raises ConfigError for a stream, of which a resumed run would have to read all again.
        """
        if not split.is_complete:
            raise ConfigError(
                f"{split.title}: data.objective.packing 'best_fit' goes by the lengths of all documents, and "
                "data.stream makes them on demand; set data.objective.packing=contiguous, or prepare the data first"
            )
        return pack(split, self.seq_len, self._end_of_text_id)

    def extents(self, split: Split) -> tuple[int, ...]:
        """The rows of each section."""
        return tuple(rows for part in split.parts or (split,) for rows in self.packing(part).row_counts)

    def _sections(self, split: Split) -> list[tuple[Split, Packing, int]]:
        """Every section: its part of the split, the part's packing, and the section's number there."""
        packed = [(part, self.packing(part)) for part in split.parts or (split,)]
        return [(*pair, section) for pair in packed for section in range(pair[1].num_sections)]

    def order(
        self, split: Split, *, seed: int, shuffle_shards: int = 5, tokens_per_epoch: int | None = None
    ) -> TrainingOrder:
        extents = self.extents(split)
        if sum(extents) < 2:
            raise DataError(
                f"{split.title}: its documents fill {sum(extents)} row(s) of train.seq_len {self.seq_len:,}, and "
                "training needs at least 2; give more text or a smaller train.seq_len"
            )
        if tokens_per_epoch is not None and tokens_per_epoch < self.seq_len:
            raise ConfigError(
                f"data.tokens_per_epoch: {tokens_per_epoch:,} is less than a row, which counts as train.seq_len "
                f"({self.seq_len:,}) tokens"
            )
        limit = None if tokens_per_epoch is None else tokens_per_epoch // self.seq_len
        return TrainingOrder(extents, 1, seed=seed, shuffle_shards=shuffle_shards, tokens_per_epoch=limit)

    def batch(self, split: Split, windows: Sequence[Window]) -> Batch:
        sections = self._sections(split)
        shape = len(windows), self.seq_len
        inputs, targets, positions = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        documents, weights = np.full(shape, -1, dtype=np.int64), np.zeros(shape, dtype=np.float32)
        for row, window in enumerate(windows):
            if window == PADDING:
                continue
            part, packing, section = sections[window.shard]
            at = 0
            for document, (start, stop) in enumerate(packing.rows(section).pieces(window.start)):
                inside = slice(at, at := at + stop - start)
                inputs[row, inside], targets[row, inside] = read_piece(part, start, stop, packing.opening_id)
                positions[row, inside] = np.arange(stop - start)
                documents[row, inside] = document
            weights[row, :at] = 1
        return Batch(inputs, targets, weights, Origin.of(windows), positions=positions, documents=documents)

    def evaluation_batches(
        self, split: Split, batch_windows: int, max_tokens: int | None = None
    ) -> Iterator[Batch]:
        if batch_windows < 1 or (max_tokens is not None and max_tokens < 1):
            raise ConfigError(
                f"{split.title}: wanted batch_windows and max_tokens of at least 1, "
                f"not {batch_windows} and {max_tokens}"
            )
        if not any(len(packing.rows(section)) for _, packing, section in self._sections(split)):
            raise DataError(
                f"{split.title}: {split.tokens} token(s), none of which has one before it in its document, so there "
                "is nothing to score; give longer documents, or a tokenizer with an end of text"
            )
        return first_targets(self._in_order(split, batch_windows), max_tokens)

    def _in_order(self, split: Split, batch_windows: int) -> Iterator[Batch]:
        places = (
            (number, row)
            for number, (_, packing, section) in enumerate(self._sections(split))
            for row in range(len(packing.rows(section)))
        )
        windows = (Window(number, 0, *place) for number, place in enumerate(places))
        while group := list(islice(windows, batch_windows)):
            yield self.batch(split, [*group, *[PADDING] * (batch_windows - len(group))])
