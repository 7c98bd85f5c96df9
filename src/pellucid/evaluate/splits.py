"""How a model predicts prepared data: the numbers of `evaluate_split`, with the units that intervals are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from pellucid.data.evaluation import require_scorable, scored_tokens
from pellucid.data.objectives import Causal, Objective
from pellucid.data.shards import Ids, Split
from pellucid.evaluate.documents import further, opening_ids, score_sequences
from pellucid.evaluate.record import TextEvaluation, UnitScores
from pellucid.evaluate.scoring import score_windows
from pellucid.evaluate.token_record import DocumentTokens, document_tokens
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
    keep: Callable[[DocumentTokens], None] | None = None,
    progress: Callable[[int], None] = lambda tokens: None,
) -> TextEvaluation:
    """Score every token of a split, once, by a decoder, so that tokenizers compare: all bytes of the text are told.

    With stride = window, the default, the windows are those of `evaluate_split`, which a run's log has, and the sums
    are the log's and the losses of the first id of each shard: it is predicted from the id before it, in the shard
    before, or from what a text begins after (see `evaluate_documents`); only a tokenizer without that leaves it out.
    A document is what was prepared as one, the mark at its end included, which has a loss and no bytes.
    domains: a name for each of the split's parts, where it was mixed from several. keep: is given every document with
    its token losses; one that goes on in the next shard comes in pieces.
    Raises DataError where there is nothing to score, ConfigError for a stride that does not fit.
    """
    window = window or model.max_seq_len
    stride = stride or window
    require_scorable(split, window, 1, max_tokens)
    left = split.tokens if max_tokens is None else min(max_tokens, split.tokens)
    lengths, digest, done = ByteLengths(tokenizer), hashlib.sha256(), 0
    special = np.array(sorted(tokenizer.special_tokens.values()), dtype=np.int64)
    documents = _PreparedDocuments(split) if _document_count(split) >= FEWEST_DOCUMENTS else None
    blocks, pieces, before = BlockSums(), _Pieces(tokenizer, split), opening_ids(tokenizer)
    begins_part = _begins_part(split)
    for number, (shard, name) in enumerate(zip(split.shards, _domain_of_shards(split, domains), strict=True)):
        if number in begins_part:
            before = opening_ids(tokenizer)
        ids = shard[:left]
        first, further_on = score_sequences(
            model,
            [np.concatenate([before, ids[:1]]), ids],
            precision,
            unscored=1,
            window=window,
            stride=stride,
            progress=partial(further, progress, done),
        )
        losses = np.concatenate([first[-1:], further_on])
        sizes = lengths.of(ids)
        digest.update(tokenizer.decode_bytes(ids[~np.isin(ids, special)]))
        if documents is not None:
            documents.add(losses, sizes, len(shard), name)
        else:
            blocks.add(losses, _starts(sizes), name)
        if keep is not None:
            for piece in pieces.of(ids, sizes, losses, name):
                keep(piece)
        left, done = left - len(ids), done + len(losses)
        before = ids[-1:] if len(ids) else before
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
        """The next shard, of so many ids: the bytes of some first ones, and the losses of the last of these."""
        unscored = len(sizes) - len(losses)
        places = self._begin + unscored + np.arange(len(losses))
        documents = np.searchsorted(self._bounds, places, side="right") - 1
        for row, values in enumerate((losses, np.ones(len(losses)), sizes[unscored:])):
            np.add.at(self._sums[row], documents, values)
        for document in np.unique(documents).tolist():
            self._domains[document] = domain
        self._begin += tokens

    def units(self) -> UnitScores:
        losses, tokens, sizes = self._sums
        return unit_scores(losses, tokens, sizes, self._domains)


class _Pieces:
    """The documents of a split with their token losses, shard by shard."""

    def __init__(self, tokenizer: Tokenizer, split: Split) -> None:
        self._tokenizer = tokenizer
        self._bounds = split.bounds if _document_count(split) else None
        self._begin = self._shard = self._byte = 0

    def of(
        self, ids: Ids, sizes: NDArray[np.int64], losses: NDArray[np.float32], domain: str
    ) -> Iterator[DocumentTokens]:
        """Of the next shard."""
        self._shard += 1
        inside, first = np.empty(0, dtype=np.int64), 0
        if self._bounds is not None:
            first = int(np.searchsorted(self._bounds, self._begin, side="right"))
            inside = self._bounds[first:] - self._begin
        cuts = [0, *inside[inside < len(ids)].tolist(), len(ids)]
        unscored = len(ids) - len(losses)
        for number, (start, stop) in enumerate(pairwise(cuts), first):
            goes_on = (
                self._bounds is not None and 0 < number == first and self._bounds[number - 1] < self._begin
            )
            starts = _starts(sizes[start:stop]) + (self._byte if goes_on else 0)
            self._byte = int(starts[-1])
            where = f"shard {self._shard}" if self._bounds is None else f"document {number}"
            yield document_tokens(
                self._tokenizer,
                np.asarray(ids[start:stop], dtype=np.uint32),
                starts,
                losses[max(0, start - unscored) : stop - unscored],
                where=f"{where}, further on" if goes_on else where,
                domain=domain,
            )
        self._begin += len(ids)


def _starts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each id begins, and the end, by the bytes of each."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])


def _begins_part(split: Split) -> set[int]:
    """The shards that nothing of their text comes before."""
    return {0, *accumulate(len(part.shards) for part in split.parts)}


def _document_count(split: Split) -> int:
    """Of the documents whose places are known."""
    return sum(map(len, split.starts)) if len(split.starts) == len(split.shards) else 0


def _domain_of_shards(split: Split, domains: Sequence[str]) -> list[str]:
    if not domains:
        return [""] * len(split.shards)
    return [name for part, name in zip(split.parts, domains, strict=True) for _ in part.shards]
