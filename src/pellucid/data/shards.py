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
import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pellucid.config import Config
from pellucid.data.manifest import (
    JOURNAL,
    TOKENIZER,
    Manifest,
    ShardRecord,
    SplitRecord,
    TokenizerRecord,
    read_manifest,
)
from pellucid.errors import DataError
from pellucid.runtime.files import fsync_directory, sha256_file

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
    shards: Sequence[Ids]
    starts: tuple[NDArray[np.uint64], ...] = ()
    """For every shard, where documents begin in it."""
    text_bytes: int = 0
    """The UTF-8 bytes of the text that the ids stand for; 0 where it is not known."""
    is_paired: bool = False
    """Whether documents 2i and 2i + 1 are the source and the target of pair i."""
    parts: tuple[Split, ...] = ()
    """The splits whose shards these are, one after the other, where there are several."""

    @property
    def title(self) -> str:
        """Its name in messages, where `train: …` would read like a table of the config."""
        return {"train": "training split", "val": "validation split"}.get(self.name, self.name)

    @property
    def is_complete(self) -> bool:
        """Whether all shards are here; of a stream, even their sizes are not known before they were made."""
        return True

    @cached_property
    def shard_tokens(self) -> Sequence[int]:
        return tuple(len(shard) for shard in self.shards)

    @cached_property
    def tokens(self) -> int:
        return sum(self.shard_tokens)

    def expect(self, in_use: Sequence[int], following: Sequence[int]) -> None:
        """Told which shards are read now and which are next; where all are here, there is nothing to do."""

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


class TokenData(Protocol):
    """What a run is trained and validated on: a prepared directory, several mixed, or a stream."""

    @property
    def name(self) -> str:
        """Of the source, for people."""
        ...

    @property
    def directory(self) -> Path: ...

    @property
    def train(self) -> Split: ...

    @property
    def val(self) -> Split: ...

    @property
    def tokenizer(self) -> TokenizerRecord:
        """Which tokenizer made the ids."""
        ...

    @property
    def tokenizer_directory(self) -> Path:
        """Where `pellucid.tokenizers.load` finds it."""
        ...

    @property
    def fingerprint(self) -> str:
        """What determines the ids and their order: a run resumes on equal data alone."""
        ...

    @property
    def passport(self) -> dict[str, Any]:
        """What the data was made from and how, as a tree: a run keeps it, to show what has changed since."""
        ...

    def verify(self) -> None:
        """Compare every file that is here with its recorded hash. Raises DataError naming the file."""
        ...

    def close(self) -> None:
        """End what is going on in the background."""
        ...


@dataclass(frozen=True, eq=False)
class ShardSet:
    """A prepared directory, its files mapped into memory once."""

    directory: Path
    manifest: Manifest
    train: Split
    val: Split

    @property
    def name(self) -> str:
        return self.manifest.source.name

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    @property
    def tokenizer(self) -> TokenizerRecord:
        return self.manifest.tokenizer

    @property
    def passport(self) -> dict[str, Any]:
        manifest = self.manifest
        return manifest.passport | {
            "train": {"tokens": manifest.train.tokens, "documents": manifest.train.documents},
            "val": {"tokens": manifest.val.tokens, "documents": manifest.val.documents},
        }

    @property
    def tokenizer_directory(self) -> Path:
        return self.directory / TOKENIZER

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read every file and compare its SHA-256 with the manifest's. Raises DataError naming the file.

        progress: called after every file with the tokens checked so far, and all of them.
        """
        done, total = 0, self.manifest.train.tokens + self.manifest.val.tokens
        for record in (*self.manifest.train.shards, *self.manifest.val.shards):
            verify_shard(self.directory, record)
            done += record.tokens
            if progress is not None:
                progress(done, total)

    def close(self) -> None:
        """Nothing goes on in the background."""


def verify_shard(directory: Path, record: ShardRecord) -> None:
    """Read a shard's files and compare their SHA-256 with the record's. Raises DataError naming the file."""
    for suffix, wanted in ((".bin", record.sha256), (".starts", record.starts_sha256)):
        path = directory / f"{record.name}{suffix}"
        found = sha256_file(path)
        if found != wanted:
            raise DataError(
                f"{path}: the file was altered: the manifest has SHA-256 {wanted[:16]}…, "
                f"the file {found[:16]}…; prepare the data again"
            )


def open_shards(directory: Path) -> ShardSet:
    """Open a prepared directory: check the manifest and every file's size, map the files.

    The contents are not hashed here, which would read them all: `ShardSet.verify` does that.
    Raises DataError when the manifest is missing or unreadable, and naming a file that is missing or whose
    size is not the manifest's.
    """
    manifest = read_manifest(directory)

    def split(name: str, record: SplitRecord) -> Split:
        return Split(
            name,
            shards=tuple(map_shard(directory, shard, manifest.dtype) for shard in record.shards),
            starts=tuple(
                _map(directory / f"{s.name}.starts", _STARTS_DTYPE, s.documents) for s in record.shards
            ),
            text_bytes=record.bytes,
            is_paired=manifest.source.pair_fields is not None,
        )

    return ShardSet(directory, manifest, split("train", manifest.train), split("val", manifest.val))


def map_shard(directory: Path, record: ShardRecord, dtype: str) -> Ids:
    """The ids of a shard, mapped into memory. Raises DataError when the file is not there or has another size."""
    return _map(directory / f"{record.name}.bin", ids_dtype(dtype), record.tokens)


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

PARTIAL = ".partial"
"""What is behind the names of a shard's files while they are written."""


class OpenShard(Config):
    """How far a split is written: its finished shards, and how much of the next one is on the disk."""

    finished: tuple[ShardRecord, ...] = ()
    tokens: int = 0
    documents: int = 0


class ShardWriter:
    """Writes one split's shards into a directory, hashing as it goes; each appears whole, under its own name.

    state: go on where an earlier writer's `sync` was. What lies behind that place in the open shard is cut off.
    """

    def __init__(
        self,
        directory: Path,
        split: str,
        *,
        dtype: str,
        shard_tokens: int | None = None,
        first_number: int = 0,
        state: OpenShard | None = None,
    ) -> None:
        state = state or OpenShard()
        self.finished: list[ShardRecord] = list(state.finished)
        self._directory, self._split, self._dtype = directory, split, ids_dtype(dtype)
        self._shard_tokens, self._first_number = shard_tokens, first_number
        self._shard = self._open(state.tokens, state.documents) if state.tokens else None

    @property
    def tokens(self) -> int:
        """Everything that was written."""
        return sum(record.tokens for record in self.finished) + (self._shard.tokens if self._shard else 0)

    def write(self, ids: Ids, starts: NDArray[np.integer[Any]]) -> None:
        """Append ids. starts: the positions in `ids`, ascending, at which documents begin."""
        while len(ids):
            if self._shard is None:
                self._shard = self._open(0, 0)
            room = len(ids) if self._shard_tokens is None else self._shard_tokens - self._shard.tokens
            count = min(len(ids), room)
            inside = int(np.searchsorted(starts, count))
            self._shard.write(ids[:count], starts[:inside])
            ids, starts = ids[count:], starts[inside:] - count
            if self._shard.tokens == self._shard_tokens:
                self._finish_shard()

    def sync(self) -> OpenShard:
        """Bring all that was written to the disk. Returns the state from which another writer can go on."""
        if self._shard is None:
            return OpenShard(finished=tuple(self.finished))
        self._shard.sync()
        return OpenShard(
            finished=tuple(self.finished), tokens=self._shard.tokens, documents=self._shard.documents
        )

    def finish(self, *, allow_empty: bool = False) -> list[ShardRecord]:
        """Finish the last shard; the records of all. allow_empty: a shard even where nothing was written."""
        if allow_empty and not self.finished and self._shard is None:
            self._shard = self._open(0, 0)
        self._finish_shard()
        return self.finished

    def close(self) -> None:
        """Let go of an unfinished shard's files, which stay."""
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def _open(self, tokens: int, documents: int) -> _ShardFiles:
        name = f"{self._split}-{self._first_number + len(self.finished):05d}"
        return _ShardFiles(self._directory, name, self._dtype, tokens, documents)

    def _finish_shard(self) -> None:
        if self._shard is not None:
            self.finished.append(self._shard.finish())
            self._shard = None


class _ShardFiles:
    """The two files of a shard that is being written, of which the first tokens and documents are good."""

    def __init__(
        self,
        directory: Path,
        name: str,
        dtype: np.dtype[np.unsignedinteger[Any]],
        tokens: int,
        documents: int,
    ) -> None:
        self.tokens, self.documents = tokens, documents
        self._directory, self._name, self._dtype = directory, name, dtype
        self._ids = _HashedFile(directory / f"{name}.bin", tokens * dtype.itemsize)
        try:
            self._starts = _HashedFile(directory / f"{name}.starts", documents * _STARTS_DTYPE.itemsize)
        except BaseException:
            self._ids.close()
            raise

    def write(self, ids: Ids, starts: NDArray[np.integer[Any]]) -> None:
        self._ids.write(ids.astype(self._dtype, copy=False))
        self._starts.write((starts + self.tokens).astype(_STARTS_DTYPE))
        self.tokens += len(ids)
        self.documents += len(starts)

    def sync(self) -> None:
        self._ids.sync()
        self._starts.sync()

    def close(self) -> None:
        self._ids.close()
        self._starts.close()

    def finish(self) -> ShardRecord:
        starts_sha256, sha256 = self._starts.finish(), self._ids.finish()
        fsync_directory(self._directory)
        return ShardRecord(
            name=self._name,
            tokens=self.tokens,
            documents=self.documents,
            sha256=sha256,
            starts_sha256=starts_sha256,
        )


class _HashedFile:
    """A file that is written under another name until it is whole, and its SHA-256."""

    def __init__(self, path: Path, good_bytes: int) -> None:
        self._path, self._partial = path, path.with_name(path.name + PARTIAL)
        self._hash = hashlib.sha256()
        if good_bytes and not self._partial.exists() and path.exists():
            path.replace(self._partial)  # finished, and killed before anybody had written down that it was
        self._file = self._partial.open("r+b" if good_bytes else "wb")
        while good_bytes:
            data = self._file.read(min(good_bytes, 1 << 20))
            if not data:
                self._file.close()
                raise DataError(
                    f"{self._partial}: shorter than {JOURNAL} beside it says; remove the directory and prepare again"
                )
            self._hash.update(data)
            good_bytes -= len(data)
        self._file.truncate(self._file.tell())
        self._file.seek(0, os.SEEK_CUR)  # between reading and writing

    def write(self, array: NDArray[Any]) -> None:
        self._hash.update(array.data)
        self._file.write(array.data)

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        with suppress(OSError):  # a full disk: what is lost was not synced, so nobody counts on it
            self._file.close()

    def finish(self) -> str:
        self.sync()
        self._file.close()
        self._partial.replace(self._path)
        return self._hash.hexdigest()
