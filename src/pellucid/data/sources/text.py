"""Text files: one running text in pieces, a document a file, or documents between markers."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from collections.abc import Iterator
from dataclasses import dataclass

from pellucid.data.sources.base import Block, Document, Faults
from pellucid.data.sources.compression import Contents
from pellucid.data.sources.content import (
    BLOCK_BYTES,
    BOM,
    ContentBlock,
    Entry,
    Separator,
    Stretch,
    Unusable,
    block_of,
    part_blocks,
    ranges,
    streamed,
)
from pellucid.data.sources.stored import reading
from pellucid.errors import DataError

PIECE_BYTES = 1 << 21
"""About how many bytes a piece of a running text has."""

USUAL_MARKER = "<|endoftext|>"

# Where a letter or digit stands before white space, every tokenizer that splits text into words before it
# merges (GPT-2, cl100k, o200k, …) has a border, as byte and character tokenizers have everywhere.
WORD_END = re.compile(r"(?<=[^\W_])(?=\s)")


def holds_usual_marker(entry: Entry) -> bool:
    """Whether <|endoftext|> stands in the first megabyte of a text file."""
    with reading(entry.file), Contents(entry.file, entry.compression) as contents:
        return USUAL_MARKER.encode() in contents.read(1 << 20)


def _empty(where: str) -> DataError:
    return DataError(f"{where}: the file is empty but for a byte-order mark; remove it, or put text into it")


# One text --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    """The whole stretch is a piece of one running text, which no policy leaves out."""

    first_character: int = 0

    def documents(self, data: bytes, at: Stretch, faults: Faults) -> Iterator[Document]:
        skipped = len(BOM) if at.start == 0 and data.startswith(BOM) else 0
        try:
            text = at.decoded(data[skipped:], skipped, faults)
        except Unusable as fault:
            raise DataError(f"{at.where}: {fault.message}") from None
        if text:
            yield Document(text, where=at.where, first_character=self.first_character)
        elif at.is_last:
            raise _empty(at.where)


@dataclass(frozen=True)
class _Whole:
    """The whole stretch is a document of a collection."""

    def documents(self, data: bytes, at: Stretch, faults: Faults) -> Iterator[Document]:
        skipped = len(BOM) if data.startswith(BOM) else 0
        if skipped == len(data):
            faults.count("empty", at.where)
            return
        try:
            yield Document(at.decoded(data[skipped:], skipped, faults), where=at.where)
        except Unusable as fault:
            faults.found(fault.reason, at.where, f"{at.where}: {fault.message}")


def word_end(data: bytes, at_least: int) -> int | None:
    """The first place behind a byte, by a whole letter or more, where a letter or digit stands before white space."""
    text = data[at_least:].decode("utf-8", "surrogateescape")  # as many bytes back as there were
    found = WORD_END.search(text)
    return found and at_least + len(text[: found.start()].encode("utf-8", "surrogateescape"))


@dataclass(frozen=True)
class RunningText:
    """One text in pieces that end with words: the ids of the pieces, joined, are the ids of the whole."""

    parts_are_known = False

    def blocks(self, entry: Entry, start: int = 0) -> Iterator[Block]:
        count = _characters_before(entry, start)
        for stretch, data, took in streamed(entry, word_end, start, block_bytes=PIECE_BYTES):
            yield block_of(stretch, data, took, _Piece(count))
            count += len(data.decode("utf-8", "replace")) - (stretch.start == 0 and data.startswith(BOM))


def _characters_before(entry: Entry, position: int) -> int:
    if position == 0:
        return 0
    decoder = getincrementaldecoder("utf-8")("replace")
    with reading(entry.file), Contents(entry.file, entry.compression) as contents:
        first = contents.read(min(position, BLOCK_BYTES))
        count = len(decoder.decode(first)) - first.startswith(BOM)
        while data := contents.read(min(position - contents.position, BLOCK_BYTES)):
            count += len(decoder.decode(data))
    return count


@dataclass(frozen=True)
class WholeText:
    """A file is one document, and in memory as a whole."""

    is_running: bool = False
    """Whether it is all there is, so that no policy leaves it out."""

    parts_are_known = False

    def blocks(self, entry: Entry, start: int = 0) -> Iterator[Block]:
        if start > 0:
            return
        size, parser = entry.file.size_bytes, _Piece() if self.is_running else _Whole()
        if entry.compression is None:
            yield ContentBlock(Stretch(entry, 0, size, is_last=True), parser, size)
            return
        for stretch, data, took in streamed(entry, _no_border):
            yield block_of(stretch, data, took, parser)


def _no_border(data: bytes, at_least: int) -> None:
    return None


# Between markers -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Marked:
    mark: bytes

    def documents(self, data: bytes, at: Stretch, faults: Faults) -> Iterator[Document]:
        first = len(BOM) if at.start == 0 and data.startswith(BOM) else 0
        offset, is_rest = first, False
        while not is_rest:
            stop = data.find(self.mark, offset)
            is_rest = stop < 0
            raw = data[offset:] if is_rest else data[offset:stop].rstrip(b"\r\n")
            begin = offset
            if at.start + offset > first:  # behind a marker
                begin += len(raw) - len(raw.lstrip(b"\r\n"))
                raw = raw.lstrip(b"\r\n")
            offset = stop + len(self.mark)
            if not raw:
                if not is_rest:
                    faults.count("empty", at.place(begin))
                continue
            try:
                yield Document(at.decoded(raw, begin, faults), where=at.place(begin))
            except Unusable as fault:
                place = at.place(begin)
                faults.found(fault.reason, place, f"{at.where}: {fault.message}")


@dataclass(frozen=True)
class MarkedText:
    """A marker ends a document; the line breaks around it belong to neither side.

    Behind the last marker there is a document only where there is text.
    """

    marker: str

    @property
    def _separator(self) -> Separator:
        return Separator(self.marker.encode())

    @property
    def parts_are_known(self) -> bool:
        return not self._separator.overlaps_itself

    def blocks(self, entry: Entry, start: int = 0) -> Iterator[Block]:
        separator, parser = self._separator, _Marked(self.marker.encode())
        if entry.compression is None and self.parts_are_known:
            yield from ranges(entry, separator, parser, start)
            return
        for stretch, data, took in streamed(entry, separator, start):
            yield block_of(stretch, data, took, parser)

    def part_blocks(self, entry: Entry, part: int, parts: int) -> Iterator[Block]:
        return part_blocks(entry, self._separator, _Marked(self.marker.encode()), part, parts)
