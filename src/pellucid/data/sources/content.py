"""Stretches of a file's contents that begin and end between documents: how files of bytes become blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from pellucid.data.sources.base import Block, Document, Faults, Place
from pellucid.data.sources.compression import Contents
from pellucid.data.sources.stored import StoredFile, read_all, reading
from pellucid.errors import DataError

BLOCK_BYTES = 1 << 22
"""About how many bytes of contents a block has; a longer document makes it longer."""

LONGEST_BYTES = 1 << 30
"""The most that a record may have where one that is not closed would go on to the end of the file."""

BOM = b"\xef\xbb\xbf"

REPLACED = "not UTF-8 (replaced)"
"""Why a document is counted in which bytes that are not UTF-8, or NUL, became U+FFFD."""


class Unusable(Exception):  # noqa: N818  (no error until the policy says so)
    """A document has a fault; the policy of the source decides what that means."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


@dataclass(frozen=True)
class Entry:
    """One of a source's files."""

    file: StoredFile
    number: int
    """In the source."""
    compression: str | None = None
    may_be_empty: bool = False
    """Whether contents without a byte are an empty document, and no error."""

    def place_after(self, position: int, *, is_last: bool) -> Place:
        """Where the block begins that follows one which ends there."""
        return Place(self.number + 1, 0) if is_last else Place(self.number, position)


@dataclass(frozen=True)
class Stretch:
    """Bytes start to stop of a file's contents, with whole documents in them."""

    entry: Entry
    start: int
    stop: int
    is_last: bool
    """Of the file."""

    @property
    def where(self) -> str:
        return self.entry.file.where

    def place(self, offset: int) -> str:
        """The byte `offset` of the stretch, for messages."""
        return f"{self.where}, byte {self.start + offset:,}"

    def line(self, offset: int) -> str:
        """The line of that byte, for messages. Reads the file up to there."""
        with reading(self.entry.file), Contents(self.entry.file, self.entry.compression) as contents:
            number, left = 1, self.start + offset
            while left > 0 and (data := contents.read(min(left, BLOCK_BYTES))):
                number += data.count(b"\n")
                left -= len(data)
        return f"{self.where}, line {number}"

    def found(self, fault: Unusable, offset: int, faults: Faults) -> None:
        """Count or raise what is wrong with the document at a byte of the stretch."""
        place = self.place(offset)
        where = place if faults.policy == "skip" else self.line(offset)
        faults.found(fault.reason, place, f"{where}: {fault.message}")

    def decoded(self, raw: bytes, offset: int, faults: Faults) -> str:
        """The text of the bytes at `offset` of the stretch. Raises Unusable for what is not UTF-8, and for a NUL."""
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            if faults.policy != "replace":
                raise not_text(self.start + offset + error.start, raw[error.start]) from None
            text = raw.decode("utf-8", "replace").replace("\0", "\ufffd")
            faults.count(REPLACED, self.place(offset))
            return text
        if (nul := raw.find(b"\0")) >= 0:
            if faults.policy != "replace":
                raise not_text(self.start + offset + nul, 0)
            text = text.replace("\0", "\ufffd")
            faults.count(REPLACED, self.place(offset))
        return text


def not_text(position: int, byte: int) -> Unusable:
    fault = "a NUL" if byte == 0 else "not UTF-8"
    return Unusable(
        "NUL byte" if byte == 0 else "not UTF-8",
        f"not a text file: byte {position:,} is 0x{byte:02x}, {fault}; convert it to UTF-8 text, or have such bytes "
        "replaced with data.errors=replace, --errors replace",
    )


class Parser(Protocol):
    """A format's way from a stretch to documents: a small value that can be pickled."""

    def documents(self, data: bytes, at: Stretch, faults: Faults) -> Iterator[Document]:
        """The documents of the stretch, whose bytes are `data`."""
        ...


@dataclass(frozen=True)
class ContentBlock:
    """A stretch of a file. Of a plain file it is read where it is needed; of a compressed one it has its bytes."""

    at: Stretch
    parser: Parser
    source_bytes: int
    data: bytes | None = None

    @property
    def begin(self) -> Place:
        return Place(self.at.entry.number, self.at.start)

    @property
    def end(self) -> Place:
        return self.at.entry.place_after(self.at.stop, is_last=self.at.is_last)

    def documents(self, faults: Faults) -> Iterator[Document]:
        return self.parser.documents(self._read() if self.data is None else self.data, self.at, faults)

    def _read(self) -> bytes:
        file = self.at.entry.file
        with reading(file), file.open() as stream:
            stream.seek(self.at.start)
            return read_all(stream, self.at.stop - self.at.start)


class Cut(Protocol):
    """Where contents can be cut: the first border between documents at or after a byte, above 0."""

    def __call__(self, data: bytes, at_least: int) -> int | None:
        """The border as an offset in data, which begins at one; None: there is none in these bytes."""
        ...


@dataclass(frozen=True)
class Separator:
    """Cuts behind each separator; separators are found one after the other, without overlap."""

    mark: bytes

    @property
    def overlaps_itself(self) -> bool:
        """Whether what is a separator depends on where one begins to look, as for `--` in `---`."""
        return any(self.mark.startswith(self.mark[shift:]) for shift in range(1, len(self.mark)))

    def __call__(self, data: bytes, at_least: int) -> int | None:
        size = len(self.mark)
        border = 0 if self.overlaps_itself else max(0, at_least - size)
        while (found := data.find(self.mark, border)) >= 0:
            border = found + size
            if border >= at_least:
                return border
        return None

    def find_in(self, file: StoredFile, position: int) -> int:
        """The first border of a plain file at or after a byte of it; the file's size where there is none.

        Only for separators that do not overlap themselves.
        """
        if position <= 0:
            return 0
        size = len(self.mark)
        with reading(file), file.open() as stream:
            begin = max(0, position - size)
            stream.seek(begin)
            data = b""
            while more := read_all(stream, 1 << 16):
                data += more
                if (found := data.find(self.mark)) >= 0:
                    return begin + found + size
                kept = max(0, len(data) - size + 1)
                begin, data = begin + kept, data[kept:]
        return file.size_bytes


def ranges(
    entry: Entry, separator: Separator, parser: Parser, start: int = 0, stop: int | None = None
) -> Iterator[Block]:
    """The blocks between two borders of a plain file, which is looked at only near the borders."""
    size = entry.file.size_bytes
    stop = size if stop is None else stop
    while start < stop:
        border = min(stop, separator.find_in(entry.file, start + BLOCK_BYTES))
        yield ContentBlock(Stretch(entry, start, border, border == size), parser, border - start)
        start = border


def part_blocks(entry: Entry, separator: Separator, parser: Parser, part: int, parts: int) -> Iterator[Block]:
    """The blocks of a plain file's part: of the documents whose first byte lies in it."""
    size = entry.file.size_bytes
    start, stop = (separator.find_in(entry.file, size * border // parts) for border in (part, part + 1))
    return ranges(entry, separator, parser, start, stop)


def streamed(
    entry: Entry,
    cut: Cut,
    start: int = 0,
    *,
    block_bytes: int | None = None,
    longest_bytes: int | None = None,
) -> Iterator[tuple[Stretch, bytes, int]]:
    """(stretch, its bytes, how many stored bytes it took), of contents that are read from `start` to the end.

    Raises DataError for contents without a byte that may not be empty, and where no border comes within the longest
    that may be.
    """
    wanted = BLOCK_BYTES if block_bytes is None else block_bytes
    with reading(entry.file), Contents(entry.file, entry.compression) as contents:
        contents.skip_to(start)
        taken = contents.stored_position
        data, ended = b"", False
        while True:
            border, size = None, wanted + wanted // 8 + 16
            while border is None and not ended:
                more = contents.read(size - len(data)) if size > len(data) else b""
                data, ended = data + more, len(data) + len(more) < size
                border, size = cut(data, wanted), size * 2
                if border is None and longest_bytes is not None and len(data) > longest_bytes:
                    raise DataError(
                        f"{entry.file.where}, byte {start:,}: no record ends in {len(data):,} bytes from here on: is a "
                        "quotation mark or a bracket not closed? Repair the file"
                    )
            if ended and border is None:
                border = cut(data, wanted) or len(data)
            assert border is not None
            if border == len(data) and not ended:
                data += contents.read(wanted)
                ended = border == len(data)
            if not data and start > 0:
                return
            if not data and not entry.may_be_empty:
                raise empty(entry.file)
            is_last = ended and border == len(data)
            position = start + border
            now = position if entry.compression is None else contents.stored_position
            took, taken = now - (start if entry.compression is None else taken), now
            yield Stretch(entry, start, position, is_last), data[:border], took
            if is_last:
                return
            start, data = position, data[border:]


def block_of(stretch: Stretch, data: bytes, took: int, parser: Parser) -> ContentBlock:
    """The block of a stretch that was read: it keeps the bytes only where reading them again is dear."""
    kept = None if stretch.entry.compression is None else data
    return ContentBlock(stretch, parser if data else Nothing(), took, kept)


# Files without a byte --------------------------------------------------------------------------------


def empty(file: StoredFile) -> DataError:
    return DataError(f"{file.where}: the file is empty; remove it, or put text into it")


@dataclass(frozen=True)
class Nothing:
    """A whole file without a byte: an empty document."""

    parts_are_known = False

    def documents(self, data: bytes, at: Stretch, faults: Faults) -> Iterator[Document]:
        faults.count("empty", at.where)
        return iter(())

    def blocks(self, entry: Entry, start: int = 0) -> Iterator[Block]:
        yield ContentBlock(Stretch(entry, 0, 0, is_last=True), self, 0)
