"""Encoded blocks, in the order of their source → shards; interrupted at any moment, it goes on where it was.

What is written lies in the directory itself: finished shards under their own names, the two that are being
written as `NAME.bin.partial`, and `unfinished.json`, which says up to which place of the source they are good.
The journal is written after the bytes that it vouches for have reached the disk, so a kill costs the work since.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pellucid.config import Config, from_tree
from pellucid.data.encoding import DIGEST_BYTES, Division, EncodedBlock, EncodedSide
from pellucid.data.manifest import JOURNAL, TOKENIZER, Manifest, Recipe, SplitRecord
from pellucid.data.shards import OpenShard, ShardWriter
from pellucid.data.sources.base import START, Errors, Faults, Place
from pellucid.errors import ConfigError
from pellucid.runtime.files import ASIDE_SUFFIX, write_atomic

_SEEN = "seen.sqlite"
SPLITS = ("train", "val")


class SideState(Config):
    """What one side of the split has so far."""

    documents: int = 0
    text_bytes: int = 0
    longest: int = 0
    """Tokens of the longest document."""
    duplicates: int = 0
    writer: OpenShard = OpenShard()


class Journal(Config):
    """How far a preparation has come: all that it needs to go on."""

    recipe: Recipe
    """Of what is being prepared."""
    division: tuple[str, int]
    next: tuple[int, int] = (START.file, START.position)
    """The place in the source that comes next: file, and position in it."""
    source_bytes: int = 0
    """Of the source, done."""
    train: SideState = SideState()
    val: SideState = SideState()
    left_out: dict[str, int] = Field(default_factory=dict[str, int])
    """Documents that were replaced or left out, by reason."""
    first_left_out: dict[str, str] = Field(default_factory=dict[str, str])

    @property
    def finished_shards(self) -> int:
        return len(self.train.writer.finished) + len(self.val.writer.finished)


def read_journal(directory: Path) -> Journal | None:
    """The journal of an unfinished preparation; None where there is none that can be used."""
    try:
        return from_tree(Journal, json.loads((directory / JOURNAL).read_text(encoding="utf-8")))
    except (OSError, ValueError, ConfigError):
        return None


class Assembler:
    """Writes the shards of both sides. Blocks come in the order of the source, whoever encoded them."""

    def __init__(self, directory: Path, journal: Journal) -> None:
        _write_journal(directory, journal)  # first: what is beside a journal is known to be ours
        self._directory, self._recipe, self._division = directory, journal.recipe, journal.division
        self.next = Place(*journal.next)
        """The place in the source after the last block."""
        self.source_bytes = journal.source_bytes
        self._seen: _Seen | None = None
        self.sides: dict[str, _Side] = {}
        try:
            for name in SPLITS:
                self.sides[name] = _Side(directory, name, journal.recipe, getattr(journal, name))
            if journal.recipe.deduplicated:
                self._seen = _Seen(directory / _SEEN)
        except BaseException:
            self.close()
            raise
        errors: Errors = journal.recipe.source.errors
        self._faults = Faults(errors)
        self._faults.counts.update(journal.left_out)
        self._faults.first |= journal.first_left_out
        self._saved_shards = journal.finished_shards

    @property
    def division(self) -> Division:
        rule, limit = self._division
        return Division("tail" if rule == "tail" else "content-hash", limit)

    @property
    def documents(self) -> int:
        return sum(side.documents for side in self.sides.values())

    @property
    def tokens(self) -> int:
        return sum(side.writer.tokens for side in self.sides.values())

    @property
    def text_bytes(self) -> int:
        return sum(side.text_bytes for side in self.sides.values())

    @property
    def has_new_shard(self) -> bool:
        """Whether a shard was finished that no journal knows of yet."""
        return sum(len(side.writer.finished) for side in self.sides.values()) > self._saved_shards

    @property
    def has_shards(self) -> bool:
        """Whether any shard is finished."""
        return any(side.writer.finished for side in self.sides.values())

    def add(self, block: EncodedBlock) -> None:
        """Append a block's ids."""
        self.is_between_blocks = False
        for number, (side, encoded) in enumerate(
            zip(self.sides.values(), (block.train, block.val), strict=True)
        ):
            side.add(encoded, self._seen, number)
        self._faults.add(block.faults)
        self.next = block.end
        self.source_bytes += block.source_bytes
        self.is_between_blocks = True

    def save(self) -> None:
        """Make everything up to `next` survive a kill or a power cut."""
        train, val = (side.sync() for side in self.sides.values())
        if self._seen is not None:
            self._seen.commit()
        journal = Journal(
            recipe=self._recipe,
            division=self._division,
            next=(self.next.file, self.next.position),
            source_bytes=self.source_bytes,
            train=train,
            val=val,
            left_out=dict(self._faults.counts),
            first_left_out=dict(self._faults.first),
        )
        _write_journal(self._directory, journal)
        self._saved_shards = journal.finished_shards

    def finish(self) -> Manifest:
        """Close the last shards. The manifest is returned, and not written yet."""
        train, val = (side.finish() for side in self.sides.values())
        self.close()
        return Manifest(
            **dict(self._recipe),
            train=train,
            val=val,
            left_out=dict(sorted(self._faults.counts.items())),
            first_left_out=dict(sorted(self._faults.first.items())),
        )

    def close(self) -> None:
        """Let go of the files, wherever it stands."""
        for side in self.sides.values():
            side.writer.close()
        if self._seen is not None:
            self._seen.close()


def remove_unfinished(directory: Path) -> None:
    """Remove what an unfinished preparation has left, and the directory where nothing else is in it."""
    if not directory.is_dir():
        return
    for split in SPLITS:
        for file in directory.glob(f"{split}-*"):
            file.unlink()
    shutil.rmtree(directory / TOKENIZER, ignore_errors=True)
    remove_journal(directory)
    with suppress(OSError):
        directory.rmdir()


def remove_journal(directory: Path) -> None:
    """Remove what a preparation needs only until its manifest is there; the journal itself last."""
    for pattern in (f"{_SEEN}*", f".*{ASIDE_SUFFIX}", f"{TOKENIZER}/.*{ASIDE_SUFFIX}", JOURNAL):
        for file in directory.glob(pattern):
            file.unlink(missing_ok=True)


def _write_journal(directory: Path, journal: Journal) -> None:
    write_atomic(directory / JOURNAL, journal.model_dump_json(exclude_defaults=True))


class _Side:
    def __init__(self, directory: Path, name: str, recipe: Recipe, state: SideState) -> None:
        self.documents, self.text_bytes = state.documents, state.text_bytes
        self._longest, self._duplicates = state.longest, state.duplicates
        self.writer = ShardWriter(
            directory, name, dtype=recipe.dtype, shard_tokens=recipe.shard_tokens, state=state.writer
        )

    def add(self, encoded: EncodedSide, seen: _Seen | None, side_number: int) -> None:
        ids, starts, text_bytes = encoded.ids, encoded.starts, encoded.text_bytes
        documents = len(encoded.digests)
        if seen is not None and documents:
            is_new = seen.add(encoded.digests, first_number=2 * self._met + side_number)
            if not is_new.all():
                ids, starts = _kept(ids, starts, is_new)
                text_bytes = int(encoded.document_bytes[is_new].sum())
                self._duplicates += documents - int(is_new.sum())
        if documents and len(starts):
            self._longest = max(self._longest, int(np.diff(starts, append=len(ids)).max()))
        self.writer.write(ids, starts)
        self.documents += len(starts)
        self.text_bytes += text_bytes

    @property
    def _met(self) -> int:
        """Documents so far, with those that were dropped."""
        return self.documents + self._duplicates

    def sync(self) -> SideState:
        return SideState(
            documents=self.documents,
            text_bytes=self.text_bytes,
            longest=self._longest,
            duplicates=self._duplicates,
            writer=self.writer.sync(),
        )

    def finish(self) -> SplitRecord:
        shards = tuple(self.writer.finish())
        tokens = sum(shard.tokens for shard in shards)
        return SplitRecord(
            documents=self.documents,
            tokens=tokens,
            bytes=self.text_bytes,
            shards=shards,
            longest=self._longest or tokens,
            duplicates=self._duplicates,
        )


def _kept(
    ids: NDArray[Any], starts: NDArray[np.int64], is_kept: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The ids and starts of the kept documents; a document may have several texts, a start each."""
    of_texts = np.repeat(is_kept, len(starts) // len(is_kept))
    lengths = np.diff(starts, append=len(ids))
    kept_lengths = lengths[of_texts]
    return ids[np.repeat(of_texts, lengths)], np.cumsum(kept_lengths) - kept_lengths


class _Seen:
    """Which documents were met before: on disk, so that memory does not grow with their number.

    A document is new when it is the one that its digest was stored for. So documents that are met again after
    a restart are still new, however many of them had been stored before the kill.
    """

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        with _full_disk_said():
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS seen (digest BLOB PRIMARY KEY, number INTEGER) WITHOUT ROWID"
            )
            self._database.execute("BEGIN")

    def add(self, digests: NDArray[np.void], *, first_number: int) -> NDArray[np.bool_]:
        """For each document, numbered in steps of two, whether it is new."""
        data, execute = digests.tobytes(), self._database.execute
        is_new = np.ones(len(digests), dtype=np.bool_)
        with _full_disk_said():
            for index in range(len(digests)):
                key, number = (
                    data[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES],
                    first_number + 2 * index,
                )
                if execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (key, number)).rowcount == 0:
                    (stored,) = execute("SELECT number FROM seen WHERE digest = ?", (key,)).fetchone()
                    is_new[index] = stored == number
        return is_new

    def commit(self) -> None:
        with _full_disk_said():
            self._database.execute("COMMIT")
            self._database.execute("BEGIN")

    def close(self) -> None:
        self._database.close()


@contextmanager
def _full_disk_said() -> Generator[None]:
    """Turn SQLite's words for a full disk into the operating system's."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname != "SQLITE_FULL":
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
