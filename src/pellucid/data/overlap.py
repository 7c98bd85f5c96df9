"""How much of a text a model has been trained on: spans of it that stand word for word in the training split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.data.shards import Ids, Split

SPAN_BYTES = 100
"""About two lines of prose: longer than phrases that texts share by chance."""
SAMPLES = 500
MAX_TOKENS = 500_000_000
"""Tokens of training text that are looked through: some seconds."""
_CHUNK = 1 << 22
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2⁶⁴
_UPPER = np.uint64(48)


@dataclass(frozen=True)
class Overlap:
    """What was looked for and found."""

    spans: int
    """How many were drawn; the same words may be drawn twice."""
    found: int
    is_whole: bool
    """Whether all of the training split was looked through."""

    @property
    def share(self) -> float | None:
        """Of the spans drawn, at least so much was trained on; None where nothing can be said.

        Of a training split that is too large to be looked through, spans that were found are still found, but
        none is no answer.
        """
        if not self.spans or not (self.is_whole or self.found):
            return None
        return self.found / self.spans


def find_overlap(
    documents: Sequence[Ids], training: Split, *, bytes_per_token: float, seed: int = 0
) -> Overlap:
    """Draw spans of about 100 bytes from the documents and look for each in the training split.

    documents: the ids of each by the training split's own tokenizer, without a mark at its end; bytes_per_token: of
    them. No span goes over a document's border, where training text has a mark or another document. A document
    shorter than a span is one, less up to an eighth of a span at its end, so that there are few lengths; one below a
    quarter of a span is left out, since short phrases stand everywhere.
    A span is found where the same ids stand in a row in one shard; other cuts into tokens at a span's ends hide it,
    which BPE makes rare.
    """
    drawn = _draw(documents, max(1, round(SPAN_BYTES / bytes_per_token)), np.random.default_rng(seed))
    if not drawn:
        return Overlap(0, 0, is_whole=True)
    wanted = [_Wanted(length, spans) for length, spans in drawn.items()]
    longest, left = max(drawn), MAX_TOKENS
    sums = _Sums(min(_CHUNK, training.tokens) + longest - 1)
    for shard in training.shards:
        for first in range(0, min(len(shard), left), _CHUNK):
            last = min(first + _CHUNK, left)
            chunk = sums.of(np.asarray(shard[first : last + longest - 1]))
            for each in wanted:
                each.look(sums.hashes(chunk, each.length))
        left -= len(shard)
        if left <= 0:
            break
    return Overlap(sum(each.spans for each in wanted), sum(each.found for each in wanted), is_whole=left >= 0)


def _draw(documents: Sequence[Ids], length: int, rng: np.random.Generator) -> dict[int, list[NDArray[Any]]]:
    """Up to `SAMPLES` spans by their lengths, each place at which one can begin as likely as any other."""
    shorter = np.array([max(1, length * eighths // 8) for eighths in range(2, 9)])
    sizes = np.array([len(ids) for ids in documents], dtype=np.int64)
    lengths = np.concatenate([[0], shorter])[np.searchsorted(shorter, sizes, side="right")]
    places = np.where(lengths == length, sizes - length + 1, lengths > 0)
    ends = np.cumsum(places)
    total = int(ends[-1]) if len(ends) else 0
    found: dict[int, list[NDArray[Any]]] = {}
    for place in rng.choice(total, size=min(SAMPLES, total), replace=False).tolist():
        document = int(np.searchsorted(ends, place, side="right"))
        start, size = place - int(ends[document] - places[document]), int(lengths[document])
        found.setdefault(size, []).append(np.asarray(documents[document][start : start + size]))
    return found


class _Sums:
    """Running sums of ids · base^k modulo 2⁶⁴, from which the hash of any stretch of ids is a difference."""

    def __init__(self, most_ids: int) -> None:
        self._powers = _powers(_BASE, most_ids)
        self._inverse = _powers(pow(_BASE, -1, 1 << 64), most_ids)

    def of(self, ids: NDArray[Any]) -> NDArray[np.uint64]:
        """[ids + 1]"""
        sums = np.zeros(len(ids) + 1, dtype=np.uint64)
        np.cumsum((ids.astype(np.uint64) + np.uint64(1)) * self._powers[: len(ids)], out=sums[1:])
        return sums

    def hashes(self, sums: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
        """Of every `length` ids in a row: Σ (id + 1) · base^k."""
        count = max(0, len(sums) - length)
        return (sums[length:] - sums[:count]) * self._inverse[:count]


class _Wanted:
    """Spans of one length that are looked for, and which have been found."""

    def __init__(self, length: int, spans: Sequence[NDArray[Any]]) -> None:
        self.length, sums = length, _Sums(length)
        hashes = np.concatenate([sums.hashes(sums.of(ids), length) for ids in spans])
        self._hashes, self._counts = np.unique(hashes, return_counts=True)
        self._is_found = np.zeros(len(self._hashes), dtype=np.bool_)
        # Nearly all others differ in their upper 16 bits already.
        self._upper = np.zeros(1 << 16, dtype=np.bool_)
        self._upper[self._hashes >> _UPPER] = True

    @property
    def spans(self) -> int:
        return int(self._counts.sum())

    @property
    def found(self) -> int:
        return int(self._counts[self._is_found].sum())

    def look(self, hashes: NDArray[np.uint64]) -> None:
        self._is_found |= np.isin(self._hashes, hashes[self._upper[hashes >> _UPPER]])


def _powers(base: int, count: int) -> NDArray[np.uint64]:
    powers = np.full(count, base, dtype=np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, dtype=np.uint64)
