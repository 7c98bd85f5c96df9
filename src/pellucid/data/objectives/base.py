"""What every objective is (`Objective`), and what those that read windows of a running text share."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import ClassVar, Protocol

from pellucid.config import Config
from pellucid.data.batch import Batch
from pellucid.data.order import TrainingOrder, Window
from pellucid.data.shards import Split
from pellucid.errors import ConfigError

DECODER, ENCODER_DECODER = "decoder", "encoder_decoder"
"""The families of models, as `model.kind` names them."""


class Objective(Protocol):
    """Windows → batches. What it draws is a pure function of (seed, window number): nothing is replayed.

    A batch depends on its windows alone, so neither micro-batches nor workers nor a resume change a row.
    """

    @property
    def seq_len(self) -> int:
        """Ids of a window; for pairs, the most that a source or a target may have."""
        ...

    @property
    def encoder_len(self) -> int | None:
        """S, the same in every batch; None without an encoder."""
        ...

    @property
    def decoder_len(self) -> int:
        """T, the same in every batch."""
        ...

    def extents(self, split: Split) -> Sequence[int]:
        """What the split's order is made from: the tokens of its shards, or its number of pairs.

        Raises DataError when the split does not hold what the objective needs.
        """
        ...

    def order(
        self, split: Split, *, seed: int, shuffle_shards: int = 5, tokens_per_epoch: int | None = None
    ) -> TrainingOrder:
        """The order of training. Raises DataError when there is too little data, or none of this kind."""
        ...

    def batch(self, split: Split, windows: Sequence[Window]) -> Batch:
        """The batch of these windows, a row each."""
        ...

    def evaluation_batches(
        self, split: Split, batch_windows: int, max_tokens: int | None = None
    ) -> Iterator[Batch]:
        """The split in reading order, `batch_windows` rows a batch, the last ones filled up with padding.

        What is drawn is the same for every run and seed. max_tokens: only so many first targets have weight.
        Raises DataError when there is nothing to score.
        """
        ...


class RunningText:
    """What the objectives share that cut windows of `seq_len` ids out of a running text."""

    def __init__(self, seq_len: int) -> None:
        self.seq_len = seq_len

    def extents(self, split: Split) -> Sequence[int]:
        return split.shard_tokens

    def order(
        self, split: Split, *, seed: int, shuffle_shards: int = 5, tokens_per_epoch: int | None = None
    ) -> TrainingOrder:
        return TrainingOrder(
            split.shard_tokens,
            self.seq_len,
            seed=seed,
            shuffle_shards=shuffle_shards,
            tokens_per_epoch=tokens_per_epoch,
            is_known=split.is_complete,
        )


class ObjectiveBase(Config):
    """The base of every objective's config."""

    trains: ClassVar[tuple[str, ...]]
    """The kinds of model that can learn it."""

    def misfit(self, model_kind: str) -> str | None:
        """Why a model of this kind cannot learn the objective; None where it can."""
        if model_kind in self.trains:
            return None
        kind, able = type(self).model_fields["kind"].default, " or ".join(self.trains)
        return (
            f"data.objective.kind {kind!r} trains a model.kind of {able}, and model.kind is {model_kind!r}; "
            "change one of the two"
        )

    def obstacle(self, *, seq_len: int, special_tokens: Collection[str]) -> str | None:
        """Why windows of so many ids, or a tokenizer with these special tokens, do not allow it; None where they do.

        A run's config asks with `data.tokenizer.special_tokens` alone, so that what is wrong is said before any
        data is opened; `build` asks again with all that the tokenizer has.
        """
        return None

    def require_possible(self, *, seq_len: int, special_tokens: Collection[str]) -> None:
        """Raise ConfigError where `obstacle` has a reason to."""
        if fault := self.obstacle(seq_len=seq_len, special_tokens=special_tokens):
            raise ConfigError(fault)

    def require_model(self, *, is_encoder_decoder: bool) -> None:
        """Raise ConfigError where `misfit` has a reason to."""
        if fault := self.misfit(ENCODER_DECODER if is_encoder_decoder else DECODER):
            raise ConfigError(fault)


def required_start_id(start_id: int | None) -> int:
    """The id that an encoder-decoder's targets begin after. Raises ConfigError for None."""
    if start_id is None:
        raise ConfigError(
            "start_id: the targets of an encoder-decoder begin after an id; give model.start_id"
        )
    return start_id
