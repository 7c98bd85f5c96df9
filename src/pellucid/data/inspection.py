"""What prepared data consists of, and documents out of it: the values behind reports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pellucid.data.manifest import SplitRecord
from pellucid.data.shards import ShardSet, Split
from pellucid.runtime.seeding import derive
from pellucid.tokenizers import Tokenizer

WINDOW_LENGTHS = (256, 1024, 4096)
"""For which windows are counted."""


@dataclass(frozen=True)
class SplitStatistics:
    """One side of prepared data in numbers."""

    documents: int
    """Of pairs, sources and targets."""
    tokens: int
    bytes: int
    shards: int
    bytes_per_token: float
    median_tokens: int
    """Of a document."""
    longest_tokens: int
    duplicates: int
    """Dropped, where equal documents were."""
    windows: dict[int, int]
    """Length in tokens → how many training windows of that length there are."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def statistics(split: Split, record: SplitRecord) -> SplitStatistics:
    """The numbers of a split. Reads where its documents begin, and no ids."""
    lengths = np.diff(split.bounds)
    return SplitStatistics(
        documents=record.documents,
        tokens=record.tokens,
        bytes=record.bytes,
        shards=len(record.shards),
        bytes_per_token=record.bytes / max(record.tokens, 1),
        median_tokens=int(np.median(lengths)) if len(lengths) else 0,
        longest_tokens=int(lengths.max(initial=0)),
        duplicates=record.duplicates,
        windows={
            length: sum(tokens // length for tokens in split.shard_tokens if tokens > length)
            for length in WINDOW_LENGTHS
        },
    )


def report(shards: ShardSet) -> dict[str, Any]:
    """Both sides' numbers, and what was left out, as JSON values."""
    manifest = shards.manifest
    return {
        "train": statistics(shards.train, manifest.train).to_dict(),
        "val": statistics(shards.val, manifest.val).to_dict(),
        "left_out": {
            reason: {"documents": count, "first": manifest.first_left_out.get(reason)}
            for reason, count in manifest.left_out.items()
        },
    }


@dataclass(frozen=True)
class DocumentSample:
    """A document out of prepared data."""

    number: int
    """Counted over the split."""
    tokens: int
    text: str
    """Its beginning, decoded."""
    is_cut: bool


def sample_documents(
    split: Split, tokenizer: Tokenizer, count: int, *, seed: int = 0, max_tokens: int = 200
) -> Iterator[DocumentSample]:
    """Documents drawn with a seed, each number at most once, in reading order. Their first ids are decoded."""
    bounds = split.bounds
    available = len(bounds) - 1
    drawn = np.random.default_rng(derive(seed, "document sample")).permutation(available)[:count]
    for number in sorted(drawn.tolist()):
        begin, end = int(bounds[number]), int(bounds[number + 1])
        shown = min(end, begin + max_tokens)
        text = tokenizer.decode(split.read(begin, shown))
        yield DocumentSample(number, end - begin, text, is_cut=shown < end)
