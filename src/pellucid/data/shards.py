"""Token shards on disk: flat little-endian ids that `numpy.memmap` reads with no library of ours.

    train-00000.bin      ids, uint16 or uint32, one after the other, no header
    train-00000.starts   uint64: the positions in the .bin file at which documents begin
    val-00000.bin …      the same for validation
    manifest.json        counts, hashes, and what everything was made from
    tokenizer/           what turns ids into text again

A split is cut every `shard_tokens` ids, so a document may go on from one shard into the next.
In paired data the documents 2i and 2i + 1 are the source and the target of pair i.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.data.manifest import TOKENIZER, Manifest, ShardRecord, SplitRecord, read_manifest
from pellucid.errors import DataError, TokenizerError
from pellucid.runtime.files import sha256_file

Ids = NDArray[np.unsignedinteger[Any]]

_STARTS_DTYPE = np.dtype("<u8")


def ids_dtype(name: str) -> np.dtype[np.unsignedinteger[Any]]:
    """`uint16` or `uint32` as the little-endian type of the files."""
    return np.dtype(name).newbyteorder("<")


# Reading --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Split:
    """One side of prepared data: its shards as flat arrays of ids. Also made from ids in memory."""

    name: str
    shards: tuple[Ids, ...]
    starts: tuple[NDArray[np.uint64], ...] = ()
    """For every shard, where documents begin in it."""
    text_bytes: int = 0
    """The UTF-8 bytes of the text that the ids stand for; 0 where it is not known."""
    is_paired: bool = False
    """Whether documents 2i and 2i + 1 are the source and the target of pair i."""

    @property
    def title(self) -> str:
        """Its name in messages, where `train: …` would read like a table of the config."""
        return {"train": "training split", "val": "validation split"}.get(self.name, self.name)

    @cached_property
    def shard_tokens(self) -> tuple[int, ...]:
        return tuple(len(shard) for shard in self.shards)

    @cached_property
    def tokens(self) -> int:
        return sum(self.shard_tokens)

    @cached_property
    def bounds(self) -> NDArray[np.int64]:
        """[documents + 1]: where each document begins, counted over all shards, and where the last ends."""
        begins = self._shard_begins[:-1]
        starts = [inside.astype(np.int64) + begin for inside, begin in zip(self.starts, begins, strict=True)]
        return np.concatenate([*starts, np.array([self.tokens], dtype=np.int64)])

    def read(self, start: int, stop: int) -> Ids:
        """The ids [start, stop), counted over all shards, also where borders of shards lie among them."""
        parts: list[Ids] = []
        shard = bisect_right(self._shard_begins, start) - 1
        while start < stop:
            inside = start - self._shard_begins[shard]
            parts.append(self.shards[shard][inside : inside + stop - start])
            start, shard = start + len(parts[-1]), shard + 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty(0, dtype=np.uint16)])

    @cached_property
    def _shard_begins(self) -> list[int]:
        return [0, *accumulate(self.shard_tokens)]


def require_pairs(split: Split, where: str) -> None:
    """Raise DataError unless the split holds pairs."""
    if not split.is_paired:
        raise DataError(
            f"{where}: was prepared as single texts, and data.objective.kind 'paired' wants pairs; prepare them from "
            ".jsonl files with a source and a target a line"
        )


@dataclass(frozen=True, eq=False)
class ShardSet:
    """A prepared directory, its files mapped into memory once."""

    directory: Path
    manifest: Manifest
    train: Split
    val: Split

    @property
    def tokenizer_directory(self) -> Path:
        """Where `pellucid.tokenizers.load` finds the tokenizer that made the ids."""
        return self.directory / TOKENIZER

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read every file and compare its SHA-256 with the manifest's. Raises DataError naming the file.

        progress: called after every file with the tokens checked so far, and all of them.
        """
        done, total = 0, self.train.tokens + self.val.tokens
        for record in (*self.manifest.train.shards, *self.manifest.val.shards):
            for suffix, wanted in ((".bin", record.sha256), (".starts", record.starts_sha256)):
                path = self.directory / f"{record.name}{suffix}"
                found = sha256_file(path)
                if found != wanted:
                    raise DataError(
                        f"{path}: the file was altered: the manifest has SHA-256 {wanted[:16]}…, "
                        f"the file {found[:16]}…; prepare the data again"
                    )
            done += record.tokens
            if progress is not None:
                progress(done, total)


def open_shards(directory: Path) -> ShardSet:
    """Open a prepared directory: check the manifest and every file's size, map the files.

    The contents are not hashed here, which would read them all: `ShardSet.verify` does that.
    Raises DataError when the manifest is missing or unreadable, and naming a file that is missing or whose
    size is not the manifest's.
    """
    manifest = read_manifest(directory)
    dtype = ids_dtype(manifest.dtype)

    def split(name: str, record: SplitRecord) -> Split:
        return Split(
            name,
            shards=tuple(_map(directory / f"{s.name}.bin", dtype, s.tokens) for s in record.shards),
            starts=tuple(
                _map(directory / f"{s.name}.starts", _STARTS_DTYPE, s.documents) for s in record.shards
            ),
            text_bytes=record.bytes,
            is_paired=manifest.source.pair_fields is not None,
        )

    return ShardSet(directory, manifest, split("train", manifest.train), split("val", manifest.val))


def _map(path: Path, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    wanted = count * dtype.itemsize
    try:
        found = path.stat().st_size
        if found == wanted:
            # numpy cannot map an empty file: a shard in which no document begins.
            return np.memmap(path, dtype=dtype, mode="r", shape=(count,)) if count else np.empty(0, dtype)
    except FileNotFoundError:
        raise DataError(
            f"{path}: the file is missing; the manifest lists it; prepare the data again"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    state = "truncated" if found < wanted else "longer than it should be"
    raise DataError(
        f"{path}: the file is {state}: expected {wanted:,} bytes, found {found:,}; prepare the data again"
    )


# Writing --------------------------------------------------------------------------------------------


class ShardWriter(AbstractContextManager["ShardWriter"]):
    """Writes one split's shards into a directory, hashing as it goes; the end of its `with` closes them."""

    def __init__(
        self, directory: Path, split: str, *, dtype: str, vocab_size: int, shard_tokens: int
    ) -> None:
        self.records: list[ShardRecord] = []
        self._directory, self._split = directory, split
        self._dtype, self._vocab_size = ids_dtype(dtype), vocab_size
        self._shard_tokens = shard_tokens
        self._shard: _OpenShard | None = None

    def write(self, ids: Ids, starts: NDArray[np.integer[Any]]) -> None:
        """Append ids. starts: the positions in `ids`, ascending, at which documents begin."""
        if len(ids) and int(ids.max()) >= self._vocab_size:
            raise TokenizerError(
                f"the tokenizer gave id {int(ids.max()):,}, its vocabulary has {self._vocab_size:,} entries"
            )
        while len(ids):
            if self._shard is None:
                self._shard = _OpenShard(
                    self._directory, f"{self._split}-{len(self.records):05d}", self._dtype
                )
            count = min(len(ids), self._shard_tokens - self._shard.tokens)
            inside = int(np.searchsorted(starts, count))
            self._shard.write(ids[:count], starts[:inside])
            ids, starts = ids[count:], starts[inside:] - count
            if self._shard.tokens == self._shard_tokens:
                self._finish_shard()

    def _finish_shard(self) -> None:
        if self._shard is not None:
            self.records.append(self._shard.close())
            self._shard = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish_shard()


class _OpenShard:
    def __init__(self, directory: Path, name: str, dtype: np.dtype[np.unsignedinteger[Any]]) -> None:
        self.tokens = 0
        self._name, self._dtype, self._documents = name, dtype, 0
        self._ids_file = (directory / f"{name}.bin").open("wb")
        self._starts_file = (directory / f"{name}.starts").open("wb")
        self._ids_hash, self._starts_hash = hashlib.sha256(), hashlib.sha256()

    def write(self, ids: Ids, starts: NDArray[np.integer[Any]]) -> None:
        for array, file, digest in (
            (ids.astype(self._dtype), self._ids_file, self._ids_hash),
            ((starts + self.tokens).astype(_STARTS_DTYPE), self._starts_file, self._starts_hash),
        ):
            digest.update(array.data)
            file.write(array.data)
        self.tokens += len(ids)
        self._documents += len(starts)

    def close(self) -> ShardRecord:
        self._ids_file.close()
        self._starts_file.close()
        return ShardRecord(
            name=self._name,
            tokens=self.tokens,
            documents=self._documents,
            sha256=self._ids_hash.hexdigest(),
            starts_sha256=self._starts_hash.hexdigest(),
        )
