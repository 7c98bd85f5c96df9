"""How a model predicts prepared data: the numbers of `evaluate_split`, with the units that intervals are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pellucid.data.evaluation import require_scorable, scored_tokens
from pellucid.data.objectives import Causal, Objective
from pellucid.data.shards import Split
from pellucid.evaluate.documents import further, score_sequences
from pellucid.evaluate.record import TextEvaluation, UnitScores
from pellucid.evaluate.scoring import score_windows
from pellucid.evaluate.units import (
    BLOCKS,
    DOCUMENTS,
    FEWEST_DOCUMENTS,
    BlockSums,
    ByteLengths,
    unit_scores,
)
from pellucid.model import LanguageModel
from pellucid.runtime.precision import Precision
from pellucid.tokenizers import Tokenizer

_BATCH_TOKENS = 8192


def evaluate_split_units(
    model: LanguageModel,
    tokenizer: Tokenizer,
    split: Split,
    precision: Precision,
    *,
    data: str,
    domains: Sequence[str] = (),
    window: int | None = None,
    stride: int | None = None,
    max_tokens: int | None = None,
    progress: Callable[[int], None] = lambda tokens: None,
) -> TextEvaluation:
    """Score every token of a split but the first of each shard, once, by a decoder.

    With stride = window, the default, the sums are those of `evaluate_split`, so that a run's log comes out again.
    A document is what was prepared as one, the mark at its end included, which has a loss and no bytes.
    domains: a name for each of the split's parts, where it was mixed from several.
    Raises DataError where there is nothing to score, ConfigError for a stride that does not fit.
    """
    window = window or model.max_seq_len
    stride = stride or window
    require_scorable(split, window, 1, max_tokens)
    left = scored_tokens(split, max_tokens)
    lengths, digest, done = ByteLengths(tokenizer), hashlib.sha256(), 0
    special = np.array(sorted(tokenizer.special_tokens.values()), dtype=np.int64)
    has_documents = _document_count(split) >= FEWEST_DOCUMENTS
    blocks, documents = BlockSums(), _PreparedDocuments(split) if has_documents else None
    for shard, name in zip(split.shards, _domain_of_shards(split, domains), strict=True):
        ids = shard[: left + 1]
        losses = np.empty(0, dtype=np.float32)
        if len(ids) > 1:
            (losses,) = score_sequences(
                model,
                [ids],
                precision,
                unscored=1,
                window=window,
                stride=stride,
                progress=partial(further, progress, done),
            )
        sizes = lengths.of(ids)
        digest.update(tokenizer.decode_bytes(ids[~np.isin(ids, special)]))
        if documents is not None:
            documents.add(losses, sizes, len(shard), name)
        else:
            blocks.add(losses, np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]), name)
        left, done = left - len(losses), done + len(losses)
        if left == 0:
            break
    units = blocks.units() if documents is None else documents.units()
    unit = BLOCKS if documents is None else DOCUMENTS
    return TextEvaluation(data, digest.hexdigest(), tokenizer.fingerprint, unit, window, stride, units)


def evaluate_objective_units(
    model: LanguageModel,
    tokenizer: Tokenizer,
    split: Split,
    precision: Precision,
    objective: Objective,
    *,
    data: str,
    max_tokens: int | None = None,
) -> TextEvaluation:
    """The same for what an objective gives weight to (packed rows, spans cut out, targets): a unit is a window.

    What is scored depends on the objective's draws, so it compares between models of one tokenizer alone. As in
    `evaluate_split`, the losses of special tokens (sentinels, ends of targets) are left out of bits per byte.
    """
    at_once = min(_BATCH_TOKENS, scored_tokens(split, max_tokens))
    batches = objective.evaluation_batches(split, max(1, at_once // objective.seq_len), max_tokens)
    special = np.array(sorted(tokenizer.special_tokens.values()), dtype=np.int64)
    lengths, digest = ByteLengths(tokenizer), hashlib.sha256()
    columns: list[NDArray[np.float64]] = []
    for batch in batches:
        ((targets, losses),) = score_windows(model, [batch], precision)
        rows = np.nonzero(batch.weights > 0)[0]
        is_text = ~np.isin(targets, special)
        digest.update(tokenizer.decode_bytes(targets[is_text]))
        values = (losses, np.ones(len(rows)), lengths.of(targets), np.where(is_text, 0, losses))
        count = len(batch.weights)
        sums = [np.bincount(rows, weights=value, minlength=count) for value in values]
        columns.append(np.stack(sums).astype(np.float64))
    losses, tokens, sizes, marks = np.concatenate(columns, axis=1)
    left_out = None if isinstance(objective, Causal) else marks
    units = unit_scores(losses, tokens, sizes, [""] * len(losses), left_out)
    unit = f"window of {objective.seq_len:,} tokens"
    return TextEvaluation(
        data, digest.hexdigest(), tokenizer.fingerprint, unit, objective.seq_len, objective.seq_len, units
    )


class _PreparedDocuments:
    """The sums of every document of a split, which may go on from one shard into the next."""

    def __init__(self, split: Split) -> None:
        self._bounds = split.bounds
        self._sums = np.zeros((3, len(self._bounds) - 1))
        self._domains = [""] * (len(self._bounds) - 1)
        self._begin = 0

    def add(self, losses: NDArray[np.float32], sizes: NDArray[np.int64], tokens: int, domain: str) -> None:
        """The next shard, of so many ids: the losses of some first ones behind its first, and the bytes of each."""
        places = self._begin + 1 + np.arange(len(losses))
        documents = np.searchsorted(self._bounds, places, side="right") - 1
        for row, values in enumerate((losses, np.ones(len(losses)), sizes[1 : len(losses) + 1])):
            np.add.at(self._sums[row], documents, values)
        for document in np.unique(documents).tolist():
            self._domains[document] = domain
        self._begin += tokens

    def units(self) -> UnitScores:
        losses, tokens, sizes = self._sums
        return unit_scores(losses, tokens, sizes, self._domains)


def _document_count(split: Split) -> int:
    """Of the documents whose places are known."""
    return sum(map(len, split.starts)) if len(split.starts) == len(split.shards) else 0


def _domain_of_shards(split: Split, domains: Sequence[str]) -> list[str]:
    if not domains:
        return [""] * len(split.shards)
    return [name for part, name in zip(split.parts, domains, strict=True) for _ in part.shards]
