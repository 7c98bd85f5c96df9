"""Causal language modelling: every id is predicted from those before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pellucid.data.batch import Batch, gather
from pellucid.data.evaluation import evaluation_batches
from pellucid.data.objectives.base import DECODER, Objective, ObjectiveBase, RunningText
from pellucid.data.order import Window
from pellucid.data.shards import Split
from pellucid.tokenizers import Tokenizer


class CausalConfig(ObjectiveBase):
    """Predict every id from those before it in its window."""

    trains = (DECODER,)
    kind: Literal["causal"] = "causal"

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
