"""Token shards made on demand from a source too large to prepare, and kept within a budget of bytes.

Shard i is made from portion i of the source, so how many shards there are is known from the files' sizes alone,
and what is in one depends on no other. `stream.json` keeps the size and the hashes of every shard ever made: the
order of training asks for sizes, so a resumed run finds its place without making anything again, and a shard
that was evicted and is made once more must have the same hashes.

For validation there are the first documents of one portion: made once, never evicted, left out of training.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, overload

from filelock import FileLock
from pydantic import Field

from pellucid.config import Config, from_tree
from pellucid.data.encoding import BlockEncoder, Division, Encoding
from pellucid.data.manifest import (
    FORMAT_VERSION,
    TOKENIZER,
    Manifest,
    ShardRecord,
    SplitRecord,
    SplitRule,
    TokenizerRecord,
    dtype_for,
    passport,
    sha256_json,
    write_manifest,
)
from pellucid.data.shards import PARTIAL, Ids, ShardWriter, Split, ids_dtype, map_shard, verify_shard
from pellucid.data.sources.base import Block, Document, Faults, Place, Source, SourceRecord
from pellucid.errors import ConfigError, DataError
from pellucid.runtime.files import storage_errors, write_atomic
from pellucid.tokenizers import Tokenizer
from pellucid.tokenizers.accelerate import SAMPLE_CHARACTERS, EncodeBatch, fastest_encoder

STREAM = "stream.json"
_ID_BYTES_PER_STORED_BYTE = 3
"""What a stored byte of Parquet becomes as ids, at most, about: for shards whose size is not known yet."""
_START_BYTES = 8
"""What a .starts file has for each document."""
_FILE = re.compile(r"train-(\d+)\.(?:bin|starts)")

_log = logging.getLogger(__name__)


class StreamConfig(Config):
    """Training straight from a source, which is fetched and encoded while the run goes on."""

    enabled: bool = False
    """Make shards on demand instead of preparing the whole source first."""
    shard_bytes: Annotated[int, Field(ge=1)] = 64 << 20
    """Stored bytes of the source that a shard is made from: 64 MiB of Parquet are about 20 million tokens."""
    cache_bytes: Annotated[int, Field(ge=1)] = 2_000_000_000
    """How much disk the shards may take, those of other runs on the same stream too; the one unused for longest is
    removed first.
    """
    val_shard: Annotated[int, Field(ge=0)] = 0
    """The shard whose first documents are for validation."""
    val_documents: Annotated[int, Field(ge=1)] = 1000
    """How many they are; training leaves them out."""


class StreamRecipe(Config):
    """Everything that determines the contents and the order of a stream's shards."""

    format_version: int = FORMAT_VERSION
    dtype: Literal["uint16", "uint32"]
    vocab_size: int
    tokenizer: TokenizerRecord
    source: SourceRecord
    shard_bytes: int
    val_shard: int
    val_documents: int

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) without the source's name: two streams with equal ones give equal batches."""
        return sha256_json(self.model_dump(mode="json", exclude={"source": {"name"}}))


class MadeShard(Config):
    """A shard that was made at some time."""

    record: ShardRecord
    text_bytes: int


class Ledger(Config):
    """stream.json: what a stream is, and every shard that was ever made of it."""

    recipe: StreamRecipe
    accelerated: bool = False
    """Whether a faster encoder has proved equal to the tokenizer's own on the first texts."""
    val: SplitRecord | None = None
    made: tuple[MadeShard, ...] = ()
    left_out: dict[str, int] = Field(default_factory=dict[str, int])
    """Documents replaced or left out in the shards made so far, by reason."""


@dataclass(frozen=True)
class _Chosen:
    """Documents of a block that were read already, and what else the block is."""

    block: Block
    chosen: Sequence[Document]

    @property
    def begin(self) -> Place:
        return self.block.begin

    @property
    def end(self) -> Place:
        return self.block.end

    @property
    def source_bytes(self) -> int:
        return self.block.source_bytes

    def documents(self, faults: Faults) -> Iterator[Document]:
        return iter(self.chosen)


class Stream:
    """A source as training and validation data.

    directory: where shards and their ledger are; shared by all runs on the same stream. A shard is made when its
    ids or its size are asked for, in a background thread that also makes those that are used next.
    Raises ConfigError for settings that cannot work; DataError when the source is not what the ledger says.
    """

    def __init__(self, source: Source, tokenizer: Tokenizer, directory: Path, settings: StreamConfig) -> None:
        self.directory = directory
        self._source, self._built, self._settings = source, tokenizer, settings
        self._portions = source.portions(settings.shard_bytes)
        self.recipe = stream_recipe(source, tokenizer, settings)
        if settings.val_shard >= len(self._portions):
            raise ConfigError(
                f"data.stream.val_shard: {source.name} makes {len(self._portions):,} shard(s), counted from 0, and "
                f"{settings.val_shard} is not one of them; name another, or lower data.stream.shard_bytes"
            )
        self._encode: EncodeBatch = tokenizer.encode_batch
        self._lock = threading.RLock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pellucid-stream")
        self._coming: dict[int, Future[None]] = {}
        self._mapped: OrderedDict[int, Ids] = OrderedDict()
        """The shards that are here, the one unused for longest first."""
        self._in_use: list[int] = []
        """The shards that windows are taken from, as many as `expect` said: never removed by this run."""
        with storage_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            with self._alone():
                self._open()
                self.val = self._validation()
        self.train: Split = StreamedSplit("train", shards=_Shards(self), stream=self)
        """Its shards come when they are asked for."""

    # What a run sees

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def fingerprint(self) -> str:
        return self.recipe.fingerprint

    @property
    def tokenizer(self) -> TokenizerRecord:
        return self.recipe.tokenizer

    @property
    def passport(self) -> dict[str, Any]:
        return passport(self.recipe.model_dump(mode="json", exclude_none=True))

    @property
    def tokenizer_directory(self) -> Path:
        return self.directory / TOKENIZER

    @property
    def num_shards(self) -> int:
        return len(self._portions)

    @property
    def bytes_here(self) -> int:
        """What the ids of the training shards that this run can read take on the disk."""
        with self._lock:
            return sum(ids.nbytes for ids in self._mapped.values())

    def verify(self) -> None:
        """Compare the hashes of everything that is here with the ledger; what is damaged is made again.

        Logs a warning for each such shard. Raises DataError when it cannot be made as it was.
        """
        with storage_errors(self.directory), self._alone():
            self._read_ledger()
            assert self._ledger.val is not None
            damaged = [shard for shard in self._ledger.val.shards if not self._is_sound(shard)]
            if damaged:
                self.val = Split("val", shards=())  # lets go of the files
                for shard in damaged:
                    self._remove_damaged(shard)
                self.val = self._validation()
            for number in [*self._mapped]:
                record = self._made[number].record
                is_gone = not any(path.exists() for path in self._files(record.name))  # another run's doing
                if is_gone or not self._is_sound(record):
                    with self._lock:
                        del self._mapped[number]
                    self._remove_damaged(record)

    def tokens_of(self, number: int) -> int:
        """How many ids a shard has. Makes it, where it never was."""
        while number not in self._made:
            self._require(number)
        return self._made[number].record.tokens

    def shard(self, number: int) -> Ids:
        """The ids of a shard, which is made where it is not here."""
        while True:
            with self._lock:
                if self._in_use and number not in self._in_use:  # the windows go on to the shards that follow
                    self._in_use = [*self._in_use[1:], number]
                if number in self._mapped:
                    self._mapped.move_to_end(number)
                    return self._mapped[number]
            self._require(number)

    def expect(self, in_use: Sequence[int], following: Sequence[int]) -> None:
        """Make what is used next ahead of time, where there is room beside what is in use."""
        with self._lock:
            self._in_use = list(in_use)
            for number in (*following, *in_use):
                if number in self._mapped:
                    self._mapped.move_to_end(number)
            room = self._settings.cache_bytes - sum(map(self._expected_bytes, in_use))
            if room < 0:
                needed = self._settings.cache_bytes - room
                raise ConfigError(
                    f"data.stream.cache_bytes: {self._settings.cache_bytes:,} bytes do not hold the {len(in_use)} "
                    f"shards that windows are shuffled among, which take {needed:,}; raise it, or lower "
                    "data.shuffle_shards or data.stream.shard_bytes"
                )
            for number in following:
                room -= 0 if number in in_use else self._expected_bytes(number)
                if room < 0:
                    return
                if number not in self._mapped:
                    self._start(number, is_ahead=True)

    def complete(self) -> Manifest:
        """Make every shard, budget or not, and write a manifest: a prepared directory with the stream's shards."""
        self._settings = self._settings.model_copy(update={"cache_bytes": sys.maxsize})
        for number in range(self.num_shards):
            self.tokens_of(number)
            self.shard(number)
        made, val = [self._made[number] for number in range(self.num_shards)], self._ledger.val
        assert val is not None
        manifest = Manifest(
            dtype=self.recipe.dtype,
            vocab_size=self.recipe.vocab_size,
            shard_tokens=max(shard.record.tokens for shard in made),
            tokenizer=self.recipe.tokenizer,
            source=self.recipe.source,
            split=SplitRule(rule="first-documents", val_fraction=0),
            train=SplitRecord(
                documents=sum(shard.record.documents for shard in made),
                tokens=sum(shard.record.tokens for shard in made),
                bytes=sum(shard.text_bytes for shard in made),
                shards=tuple(shard.record for shard in made),
            ),
            val=val,
            left_out=self._ledger.left_out,
        )
        write_manifest(self.directory, manifest)
        return manifest

    def close(self) -> None:
        """End the background thread, once the shard that it is making is made."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    # Making shards

    def _require(self, number: int) -> None:
        """Wait until a shard is here. An error of the thread is raised here."""
        with self._lock:
            future = self._start(number)
        future.result()

    def _start(self, number: int, *, is_ahead: bool = False) -> Future[None]:
        future = self._coming.get(number)
        if future is None or future.done():
            future = self._coming[number] = self._thread.submit(self._make, number, is_ahead)
        return future

    def _make(self, number: int, is_ahead: bool) -> None:
        """Bring a shard here, if need be within the budget; what nobody waits for, only where there is room."""
        with storage_errors(self.directory), self._alone():
            self._read_ledger()  # another process may have made it meanwhile
            made = self._made.get(number)
            if made is None or not self._is_here(made.record):
                has_room = self._evict(self._expected_bytes(number))
                if is_ahead and not has_room:
                    return
                began = time.monotonic()
                fresh, faults = self._write(number)
                tokens, seconds = f"{fresh.record.tokens:,}", time.monotonic() - began
                _log.info(
                    "stream: shard %d of %d, %s tokens in %.1f s", number, self.num_shards, tokens, seconds
                )
                if made is not None:
                    self._require_same(f"shard {number}", fresh.record, made.record)
                else:
                    self._note(fresh, faults)
                made = fresh
            with self._lock:
                self._mapped[number] = map_shard(self.directory, made.record, self.recipe.dtype)
                self._evict(0, besides=number)

    def _write(self, number: int) -> tuple[MadeShard, Faults]:
        skip = self._settings.val_documents if number == self._settings.val_shard else 0
        met = self._faults()  # among the documents that validation has: nobody else notes those
        blocks = _without_first(self._source.portion_blocks(self._portions[number]), skip, met)
        made, faults = self._encode_into(blocks, "train", number)
        met.add(faults)
        return made, met

    def _encode_into(self, blocks: Iterator[Block], split: str, number: int) -> tuple[MadeShard, Faults]:
        writer = ShardWriter(self.directory, split, dtype=self.recipe.dtype, first_number=number)
        encoder, faults, text_bytes = (
            BlockEncoder(self._built, self._encoding(), self._encode),
            self._faults(),
            0,
        )
        try:
            for block in blocks:
                encoded = encoder(block)
                writer.write(encoded.train.ids, encoded.train.starts)
                text_bytes += encoded.train.text_bytes
                faults.add(encoded.faults)
            (record,) = writer.finish(allow_empty=True)
        finally:
            writer.close()
        return MadeShard(record=record, text_bytes=text_bytes), faults

    def _encoding(self) -> Encoding:
        return Encoding(
            dtype=self.recipe.dtype,
            vocab_size=self.recipe.vocab_size,
            end_of_text_id=self.recipe.tokenizer.end_of_text_id,
            division=Division("content-hash", 0),  # every document to one side, which the caller names
            parses_special=False,
            errors=self.recipe.source.errors,
        )

    def _faults(self) -> Faults:
        return Faults(self.recipe.source.errors)

    # The directory

    def _open(self) -> None:
        """Bring the directory into order, and find or make its ledger."""
        for leftover in self.directory.glob(f"*{PARTIAL}"):
            leftover.unlink()
        if (self.directory / STREAM).is_file():
            self._read_ledger()
            if self._ledger.recipe != self.recipe:
                raise DataError(f"{self.directory}: holds another stream; name another data.cache_dir")
            if self._ledger.accelerated:
                self._encode = fastest_encoder(self._built).encode_batch
        else:
            self._begin()
        for number in self._lying():
            if self._is_here(record := self._made[number].record):
                self._mapped[number] = map_shard(self.directory, record, self.recipe.dtype)
            else:
                _log.warning("%s: shard %s is not whole; it is made again", self.directory, record.name)
                self._remove(record.name)

    def _begin(self) -> None:
        """Write a new stream's tokenizer, validation and ledger. The texts also prove the faster encoder."""
        self._built.save(self.directory / TOKENIZER)
        blocks = self._val_blocks()
        read = _first_characters(blocks, SAMPLE_CHARACTERS, self._faults())
        sample = [text for block in read for document in block.chosen for text in document.texts]
        encoder = fastest_encoder(self._built, sample)
        _log.info("%s", encoder.note)
        self._encode = encoder.encode_batch
        val = self._make_validation(chain(read, blocks))
        self._write_ledger(Ledger(recipe=self.recipe, accelerated=encoder.is_accelerated, val=val))

    def _validation(self) -> Split:
        """The validation split, made again where it is not whole."""
        record = self._ledger.val
        assert record is not None
        if not all(map(self._is_here, record.shards)):
            _log.warning("%s: the validation shard is not whole; it is made again", self.directory)
            made = self._make_validation(self._val_blocks())
            self._require_same("the validation shard", made.shards[0], record.shards[0])
        return Split(
            "val",
            shards=tuple(map_shard(self.directory, shard, self.recipe.dtype) for shard in record.shards),
            text_bytes=record.bytes,
        )

    def _val_blocks(self) -> Iterator[Block]:
        return iter(self._source.portion_blocks(self._portions[self._settings.val_shard]))

    def _make_validation(self, blocks: Iterator[Block]) -> SplitRecord:
        chosen = _first(blocks, self._settings.val_documents, self._faults())
        made, _ = self._encode_into(chosen, "val", 0)
        if made.record.documents == 0:
            raise DataError(
                f"{self._source.name}: shard {self._settings.val_shard} has no document that could be held out for "
                "validation; name another data.stream.val_shard, or raise data.stream.shard_bytes"
            )
        return SplitRecord(
            documents=made.record.documents,
            tokens=made.record.tokens,
            bytes=made.text_bytes,
            shards=(made.record,),
        )

    def _require_same(self, what: str, fresh: ShardRecord, before: ShardRecord) -> None:
        """Raise DataError when a shard that was made again has other hashes. What was made is removed."""
        if fresh != before:
            self._remove(fresh.name)
            raise DataError(
                f"{self._source.name}: {what} was made again and is not what it was (SHA-256 "
                f"{fresh.sha256[:16]}…, before {before.sha256[:16]}…): the source has changed; "
                f"give it as it was, or remove {self.directory} and start a new run"
            )

    def _note(self, made: MadeShard, faults: Faults) -> None:
        left_out = dict(self._ledger.left_out)
        for reason, count in faults.counts.items():
            left_out[reason] = left_out.get(reason, 0) + count
        everything = (*self._ledger.made, made)
        self._write_ledger(self._ledger.model_copy(update={"made": everything, "left_out": left_out}))

    def _write_ledger(self, ledger: Ledger) -> None:
        write_atomic(self.directory / STREAM, ledger.model_dump_json(exclude_none=True, indent=1))
        self._set_ledger(ledger)

    def _read_ledger(self) -> None:
        path = self.directory / STREAM
        try:
            self._set_ledger(from_tree(Ledger, json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, ConfigError) as error:
            raise DataError(
                f"{path}: cannot be read: {error}; remove {self.directory}, and its shards are made again"
            ) from None

    def _set_ledger(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._made = {_number(made.record): made for made in ledger.made}

    def _files(self, name: str) -> tuple[Path, Path]:
        return self.directory / f"{name}.bin", self.directory / f"{name}.starts"

    def _sizes(self, record: ShardRecord) -> tuple[int, int]:
        """The bytes of a shard's two files."""
        return record.tokens * ids_dtype(self.recipe.dtype).itemsize, record.documents * _START_BYTES

    def _is_here(self, record: ShardRecord) -> bool:
        files = zip(self._files(record.name), self._sizes(record), strict=True)
        return all(path.is_file() and path.stat().st_size == size for path, size in files)

    def _is_sound(self, record: ShardRecord) -> bool:
        """Whether a shard's files have their hashes; a warning where they do not."""
        try:
            verify_shard(self.directory, record)
        except (DataError, FileNotFoundError):
            _log.warning("%s: shard %s is damaged; it is made again", self.directory, record.name)
            return False
        return True

    def _expected_bytes(self, number: int) -> int:
        made = self._made.get(number)
        return (
            _ID_BYTES_PER_STORED_BYTE * self._settings.shard_bytes
            if made is None
            else sum(self._sizes(made.record))
        )

    def _evict(self, coming_bytes: int, *, besides: int | None = None) -> bool:
        """Remove shards until so many bytes more fit the budget, for whoever is alone. Returns whether they do.

        First this run's, the one unused for longest first, then those that only other runs have read; never those
        that this run takes windows from or, as long as there are none, `besides`. What another run has mapped stays
        readable there; where the system does not allow to remove it, it stays, and is tried again the next time.
        """
        with self._lock:
            lying = self._lying()
            sizes = {number: ids.nbytes for number, ids in self._mapped.items()} | lying
            taken = sum(sizes.values()) + coming_bytes
            others = sorted(lying.keys() - self._mapped.keys(), key=self._last_use)
            kept = self._in_use or [besides]
            for number in (number for number in (*self._mapped, *others) if number not in kept):
                if taken <= self._settings.cache_bytes:
                    break
                self._mapped.pop(number, None)
                if self._remove(self._made[number].record.name):
                    taken -= sizes[number]
            return taken <= self._settings.cache_bytes

    def _lying(self) -> dict[int, int]:
        """The training shards in the directory, with the bytes of their files.

        Files that the ledger does not know are removed: their run was killed before it had noted them.
        """
        found: dict[int, int] = {}
        for path in self.directory.glob("train-*"):
            if (match := _FILE.fullmatch(path.name)) is None:
                continue
            if (number := int(match[1])) in self._made:
                found[number] = found.get(number, 0) + path.stat().st_size
            else:
                self._remove(path.stem)
        return {number: found[number] for number in self._made if number in found}

    def _last_use(self, number: int) -> float:
        """When a shard's file was read or written last, as far as the file system keeps it."""
        states = [path.stat() for path in self._files(self._made[number].record.name) if path.exists()]
        return max(max(state.st_atime, state.st_mtime) for state in states)

    def _remove_damaged(self, record: ShardRecord) -> None:
        if not self._remove(record.name):
            raise DataError(
                f"{self._files(record.name)[0]}: is damaged, and another process has it open; end that one first"
            )

    def _remove(self, name: str) -> bool:
        """Remove a shard's files. Returns whether the system allowed it: Windows does not while they are mapped."""
        try:
            for path in self._files(name):
                path.unlink(missing_ok=True)
        except PermissionError:
            return False
        return True

    def _alone(self) -> FileLock:
        """Held by the one process that changes the directory."""
        return FileLock(self.directory / ".lock")


def stream_recipe(source: Source, tokenizer: Tokenizer, settings: StreamConfig) -> StreamRecipe:
    """What decides a stream's shards."""
    return StreamRecipe(
        dtype=dtype_for(tokenizer.vocab_size),
        vocab_size=tokenizer.vocab_size,
        tokenizer=TokenizerRecord.of(tokenizer),
        source=source.record(),
        shard_bytes=settings.shard_bytes,
        val_shard=settings.val_shard,
        val_documents=settings.val_documents,
    )


def _number(record: ShardRecord) -> int:
    return int(record.name.partition("-")[2])


def _first(blocks: Iterator[Block], count: int, faults: Faults) -> Iterator[Block]:
    """The first `count` documents of some blocks."""
    for block in blocks:
        chosen = list(block.documents(faults))[:count]
        yield _Chosen(block, chosen)
        count -= len(chosen)
        if count == 0:
            return


def _first_characters(blocks: Iterator[Block], count: int, faults: Faults) -> list[_Chosen]:
    """Read blocks until they have so many characters; all of their documents."""
    read: list[_Chosen] = []
    while count > 0 and (block := next(blocks, None)) is not None:
        read.append(_Chosen(block, list(block.documents(faults))))
        count -= sum(len(text) for document in read[-1].chosen for text in document.texts)
    return read


def _without_first(blocks: Iterator[Block], count: int, faults: Faults) -> Iterator[Block]:
    """All documents but the first `count`."""
    for block in blocks:
        if count == 0:
            yield block
            continue
        everything = list(block.documents(faults))
        yield _Chosen(block, everything[count:])
        count -= min(count, len(everything))


# As a split of a run's data -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shards(Sequence[Ids]):
    stream: Stream

    def __len__(self) -> int:
        return self.stream.num_shards

    @overload
    def __getitem__(self, index: int) -> Ids: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Ids]: ...
    def __getitem__(self, index: int | slice) -> Ids | Sequence[Ids]:
        if isinstance(index, slice):
            return [self.stream.shard(number) for number in range(len(self))[index]]
        return self.stream.shard(index)


@dataclass(frozen=True)
class _Sizes(Sequence[int]):
    stream: Stream

    def __len__(self) -> int:
        return self.stream.num_shards

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            return [self.stream.tokens_of(number) for number in range(len(self))[index]]
        return self.stream.tokens_of(index)


@dataclass(frozen=True, eq=False)
class StreamedSplit(Split):
    """A training split whose shards are made when they are asked for, and whose size nobody knows."""

    stream: Stream = field(kw_only=True)

    @property
    def is_complete(self) -> bool:
        return False

    @cached_property
    def shard_tokens(self) -> Sequence[int]:
        return _Sizes(self.stream)

    @cached_property
    def tokens(self) -> int:
        raise AssertionError("nobody knows how many tokens a stream has")

    def expect(self, in_use: Sequence[int], following: Sequence[int]) -> None:
        self.stream.expect(in_use, following)
