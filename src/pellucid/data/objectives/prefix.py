"""Prefix language modelling: how a text goes on, given a beginning that is seen in both directions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from pellucid.data.batch import Batch, gather
from pellucid.data.evaluation import evaluation_batches, first_targets, require_scorable
from pellucid.data.objectives.base import (
    DECODER,
    ENCODER_DECODER,
    Objective,
    ObjectiveBase,
    RunningText,
    required_start_id,
)
from pellucid.data.objectives.text_to_text import AnyIds, Row, RowShape, TextToText, evaluation_key
from pellucid.data.order import Window
from pellucid.data.shards import Split
from pellucid.runtime.seeding import derive
from pellucid.tokenizers import Tokenizer

PURPOSE = "prefix"


class PrefixConfig(ObjectiveBase):
    """Cut every window at a random place: the part before is given, the part after is learned."""

    trains = (DECODER, ENCODER_DECODER)
    kind: Literal["prefix"] = "prefix"
    min_fraction: float = Field(default=0.25, ge=0, le=1)
    """The shortest prefix, as a part of the window; at least one id."""
    max_fraction: float = Field(default=0.75, ge=0, le=1)
    """The longest prefix; at least one id is left to learn."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_fraction > self.max_fraction:
            raise ValueError(
                f"min_fraction ({self.min_fraction}) is more than max_fraction ({self.max_fraction})"
            )
        return self

    def obstacle(self, *, seq_len: int, special_tokens: Collection[str]) -> str | None:
        if seq_len >= 2:
            return None
        return (
            f"train.seq_len (left out: model.max_seq_len): data.objective.kind 'prefix' cuts windows in two, and "
            f"{seq_len} cannot be cut; wanted at least 2"
        )

    def build(
        self,
        *,
        tokenizer: Tokenizer,
        is_encoder_decoder: bool,
        seq_len: int,
        start_id: int | None = None,
        seed: int = 0,
    ) -> Objective:
        """Raises ConfigError for windows of fewer than 2 ids, and for an encoder-decoder without `start_id`."""
        self.require_model(is_encoder_decoder=is_encoder_decoder)
        self.require_possible(seq_len=seq_len, special_tokens=tokenizer.special_tokens)
        cut = Cut(self.min_fraction, self.max_fraction)
        if is_encoder_decoder:
            return PrefixToContinuation(seq_len, cut, start_id=required_start_id(start_id), seed=seed)
        return PrefixLM(seq_len, cut, seed=seed)


@dataclass(frozen=True)
class Cut:
    """A place in a window, uniform among those in [min_fraction, max_fraction] of it."""

    min_fraction: float
    max_fraction: float

    def between(self, length: int) -> tuple[int, int]:
        """The shortest and the longest prefix of a window: at least 1 id, and 1 less than it has (if it has 2)."""
        shortest = max(1, min(length - 1, int(self.min_fraction * length)))
        return shortest, max(shortest, min(length - 1, int(self.max_fraction * length)))

    def place(self, length: int, key: int) -> int:
        """How many first ids are the prefix."""
        shortest, longest = self.between(length)
        return shortest + key % (longest - shortest + 1)


class PrefixLM(RunningText):
    """A decoder's: the first p inputs see each other, and targets have weight from the first id after them on.

    T = seq_len; a window has T + 1 ids, of which ids[p:] are learned.
    Source: Liu et al. 2018, arXiv:1801.10198; Raffel et al. 2020, arXiv:1910.10683, sec. 3.2.1.
    """

    def __init__(self, seq_len: int, cut: Cut, *, seed: int) -> None:
        super().__init__(seq_len)
        self.encoder_len, self.decoder_len = None, seq_len
        self._cut, self._seed = cut, seed

    def batch(self, split: Split, windows: Sequence[Window]) -> Batch:
        keys = [derive(self._seed, PURPOSE, window.number) for window in windows]
        return self._with_prefixes(gather(split, windows, self.seq_len), keys)

    def evaluation_batches(
        self, split: Split, batch_windows: int, max_tokens: int | None = None
    ) -> Iterator[Batch]:
        require_scorable(split, self.seq_len, batch_windows, max_tokens)

        def prefixed() -> Iterator[Batch]:
            for batch in evaluation_batches(split, self.seq_len, batch_windows):
                keys = [evaluation_key(PURPOSE, number) for number in batch.origin.windows.tolist()]
                yield self._with_prefixes(batch, keys)

        return first_targets(prefixed(), max_tokens)

    def _with_prefixes(self, batch: Batch, keys: Sequence[int]) -> Batch:
        counts = np.count_nonzero(batch.weights, axis=1).tolist()
        lengths = [
            self._cut.place(count, key) if count else 0 for count, key in zip(counts, keys, strict=True)
        ]
        for row, length in enumerate(lengths):
            batch.weights[row, : max(0, length - 1)] = (
                0  # the last id of the prefix predicts the first after it
            )
        return replace(batch, prefix_lengths=np.array(lengths, dtype=np.int64))


class PrefixToContinuation(TextToText):
    """An encoder-decoder's: the encoder reads ids[:p] of a window, the decoder learns ids[p:].

    S is the longest prefix of a window of seq_len ids, T what the shortest leaves of it.
    Source: Raffel et al. 2020, arXiv:1910.10683, sec. 3.3.1 (prefix language modelling).
    """

    purpose = PURPOSE
    fills_source = False

    def __init__(self, seq_len: int, cut: Cut, *, start_id: int, seed: int) -> None:
        shortest, longest = cut.between(seq_len)
        super().__init__(seq_len, RowShape(longest, seq_len - shortest, start_id), seed=seed)
        self._cut = cut

    def row(self, ids: AnyIds, key: int) -> Row:
        place = self._cut.place(len(ids), key)
        return ids[:place], ids[place:]
