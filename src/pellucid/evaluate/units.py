"""Token losses → sums of units: documents, or blocks of bytes where there are few documents. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pellucid.evaluate.record import UnitScores
from pellucid.tokenizers import Ids, Tokenizer

FEWEST_DOCUMENTS = 20
"""Of fewer, blocks are taken as units."""
BLOCK_BYTES = 2048
DOCUMENTS, BLOCKS = "document", f"block of {BLOCK_BYTES:,} bytes"


class ByteLengths:
    """How many bytes of text each id stands for; special ids stand for none."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known = np.full(tokenizer.vocab_size, -1, dtype=np.int64)
        self._known[list(tokenizer.special_tokens.values())] = 0

    def of(self, ids: Ids) -> NDArray[np.int64]:
        """[len(ids)]"""
        wanted = np.asarray(ids, dtype=np.int64)
        for new in np.unique(wanted[self._known[wanted] < 0]).tolist():
            self._known[new] = len(self._tokenizer.decode_bytes([new]))
        return self._known[wanted]

    def starts(self, ids: Ids, text_bytes: int) -> NDArray[np.int64]:
        """[len(ids) + 1]: at which byte of a text of so many bytes each of its ids begins, and the end.

        Where a tokenizer changes the text, so that its ids have more or fewer bytes, they are stretched to fit.
        """
        ends = np.cumsum(self.of(ids))
        found = int(ends[-1]) if len(ends) else 0
        if found not in (0, text_bytes):
            ends = ends * text_bytes // found
        return np.concatenate([np.zeros(1, dtype=np.int64), ends])


@dataclass
class DocumentSums:
    """One unit a document."""

    losses: list[float] = field(default_factory=list[float])
    tokens: list[int] = field(default_factory=list[int])
    bytes: list[int] = field(default_factory=list[int])
    domains: list[str] = field(default_factory=list[str])

    def add(self, losses: NDArray[np.float32], starts: NDArray[np.int64], domain: str) -> None:
        """A document: the losses of its last ids, and `ByteLengths.starts` of all of them."""
        self.losses.append(float(losses.sum(dtype=np.float64)))
        self.tokens.append(len(losses))
        self.bytes.append(int(starts[-1] - starts[len(starts) - 1 - len(losses)]))
        self.domains.append(domain)

    def units(self) -> UnitScores:
        return unit_scores(self.losses, self.tokens, self.bytes, self.domains)


@dataclass
class BlockSums:
    """One unit for every `BLOCK_BYTES` of a domain's running text.

    A token belongs to the block in which its first byte lies, and a block's bytes are those between its borders, so
    that they are the same for every tokenizer. Bytes of ids that are not scored are not counted.
    """

    _running: dict[str, int] = field(default_factory=dict[str, int])
    """How many bytes of each domain were added."""
    _sums: dict[str, NDArray[np.float64]] = field(default_factory=dict[str, NDArray[np.float64]])
    """Of each domain, [3, blocks]: losses, tokens and bytes."""

    def add(self, losses: NDArray[np.float32], starts: NDArray[np.int64], domain: str) -> None:
        """The next piece of a domain's text: the losses of its last ids, and `ByteLengths.starts` of all of them."""
        offset, size = self._running.get(domain, 0), int(starts[-1])
        scored = starts[len(starts) - 1 - len(losses) : -1] + offset
        self._running[domain] = end = offset + size
        count = -(-end // BLOCK_BYTES)
        sums = np.zeros((3, max(count, 1)))
        before = self._sums.get(domain, sums[:, :0])
        sums[:, : before.shape[1]] = before
        places = np.minimum(scored // BLOCK_BYTES, sums.shape[1] - 1)
        sums[0] += np.bincount(places, weights=losses.astype(np.float64), minlength=sums.shape[1])
        sums[1] += np.bincount(places, minlength=sums.shape[1])
        borders = np.arange(sums.shape[1] + 1) * BLOCK_BYTES
        first = int(scored[0]) if len(scored) else end
        sums[2] += np.diff(np.clip(borders, first, end))
        self._sums[domain] = sums

    def units(self) -> UnitScores:
        sums = np.concatenate([*self._sums.values()], axis=1) if self._sums else np.zeros((3, 0))
        domains = [name for name, found in self._sums.items() for _ in range(found.shape[1])]
        return unit_scores(sums[0], sums[1], sums[2], domains)


def unit_scores(
    losses: list[float] | NDArray[np.float64],
    tokens: list[int] | NDArray[np.float64],
    size: list[int] | NDArray[np.float64],
    domains: list[str],
    marks: NDArray[np.float64] | None = None,
) -> UnitScores:
    """The units in which something was scored; their domains where there are several."""
    counts = np.asarray(tokens, dtype=np.int64)
    kept = counts > 0
    names = tuple(name for name, is_kept in zip(domains, kept, strict=True) if is_kept)
    return UnitScores(
        np.asarray(losses, dtype=np.float64)[kept],
        counts[kept],
        np.asarray(size, dtype=np.int64)[kept],
        names if len(set(names)) > 1 else (),
        None if marks is None else marks[kept],
    )
