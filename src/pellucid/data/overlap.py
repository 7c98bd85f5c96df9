"""How much of a text a model has been trained on: spans of it that stand word for word in the training split."""

from __future__ import annotations

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
    found: int
    is_whole: bool
    """Whether all of the training split was looked through."""

    @property
    def share(self) -> float:
        return self.found / self.spans if self.spans else 0.0


def find_overlap(ids: Ids, training: Split, *, bytes_per_token: float, seed: int = 0) -> Overlap:
    """Draw spans of about 100 bytes from `ids` and look for each in the training split.

    ids: a text by the training split's own tokenizer; bytes_per_token: of that text. A span is found where the same
    ids stand in a row in one shard; other cuts into tokens at a span's ends hide it, which BPE makes rare. A text
    shorter than a span is one span.
    """
    length = min(len(ids), max(1, round(SPAN_BYTES / bytes_per_token)))
    if length == 0:
        return Overlap(0, 0, is_whole=True)
    places = len(ids) - length + 1
    rng = np.random.default_rng(seed)
    starts = rng.choice(places, size=min(SAMPLES, places), replace=False)
    wanted = _Wanted(np.unique(_Hashes(len(ids), length)(np.asarray(ids))[starts]))
    hashes, left = _Hashes(min(_CHUNK, training.tokens) + length - 1, length), MAX_TOKENS
    for shard in training.shards:
        for first in range(0, min(len(shard), left), _CHUNK):
            last = min(first + _CHUNK, left)
            wanted.look(hashes(np.asarray(shard[first : last + length - 1])))
        left -= len(shard)
        if left <= 0:
            break
    return Overlap(len(wanted.hashes), int(wanted.is_found.sum()), is_whole=left >= 0)


class _Hashes:
    """Of every `length` ids in a row: Σ (id + 1) · base^k modulo 2⁶⁴, from running sums."""

    def __init__(self, most_ids: int, length: int) -> None:
        self.length = length
        self._powers = _powers(_BASE, most_ids)
        self._inverse = _powers(pow(_BASE, -1, 1 << 64), most_ids)

    def __call__(self, ids: NDArray[Any]) -> NDArray[np.uint64]:
        count = len(ids) - self.length + 1
        if count < 1:
            return np.empty(0, dtype=np.uint64)
        sums = np.zeros(len(ids) + 1, dtype=np.uint64)
        np.cumsum((ids.astype(np.uint64) + np.uint64(1)) * self._powers[: len(ids)], out=sums[1:])
        return (sums[self.length :] - sums[: -self.length]) * self._inverse[:count]


class _Wanted:
    """Hashes that are looked for, and which have been found."""

    def __init__(self, hashes: NDArray[np.uint64]) -> None:
        self.hashes, self.is_found = hashes, np.zeros(len(hashes), dtype=np.bool_)
        # Nearly all others differ in their upper 16 bits already.
        self._upper = np.zeros(1 << 16, dtype=np.bool_)
        self._upper[hashes >> _UPPER] = True

    def look(self, hashes: NDArray[np.uint64]) -> None:
        self.is_found |= np.isin(self.hashes, hashes[self._upper[hashes >> _UPPER]])


def _powers(base: int, count: int) -> NDArray[np.uint64]:
    powers = np.full(count, base, dtype=np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, dtype=np.uint64)
