"""JSON files: an array of objects or strings, one object, or objects one after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pellucid.data.sources.base import Block, Document, Faults, Reading
from pellucid.data.sources.compression import Contents
from pellucid.data.sources.content import BOM, LONGEST_BYTES, Entry, Stretch, Unusable, block_of, streamed
from pellucid.data.sources.json_lines import JsonRecords
from pellucid.data.sources.stored import reading as reading_file
from pellucid.errors import DataError

_SPACE = re.compile(rb"[ \t\r\n]*+")
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_NESTING = re.compile(_STRING + rb'|[\[\]{}"]', re.DOTALL)
_SCALAR = re.compile(_STRING + rb'|[^ \t\r\n,\[\]{}"]++', re.DOTALL)


class _BrokenError(Exception):
    """From a byte on it cannot be told where values begin and end."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset, self.message = offset, message


@dataclass(frozen=True)
class _Walk:
    """Steps from value to value in JSON text, without reading what the values say."""

    in_array: bool

    def values(self, data: bytes, *, is_first: bool, is_last: bool) -> Iterator[tuple[int, int]]:
        """(start, stop) of each value in data, which begins at one, or at the file's start where it is the first.

        Ends before a value that may go on behind data, unless data is the last. Raises _BrokenError.
        """
        position = self._opening(data) if is_first else 0
        needs_comma = False
        while True:
            position = _space_end(data, position)
            if position == len(data):
                if is_last and self.in_array:
                    raise _BrokenError(position, "the array is not closed: the file is cut off")
                return
            byte = data[position : position + 1]
            if self.in_array and byte == b"]" and (needs_comma or is_first):
                self._require_end(data, _space_end(data, position + 1))
                return
            if self.in_array and needs_comma:
                if byte != b",":
                    raise _BrokenError(position, "wanted a comma or the end of the array")
                position, needs_comma, is_first = position + 1, False, False
                continue
            stop = _value_end(data, position)
            if stop is None:
                if is_last:
                    raise _BrokenError(position, "a value is not closed: the file is cut off")
                return
            yield position, stop
            position, needs_comma, is_first = stop, True, False

    def _opening(self, data: bytes) -> int:
        position = _space_end(data, len(BOM) if data.startswith(BOM) else 0)
        return position + self.in_array

    def _require_end(self, data: bytes, position: int) -> None:
        if position < len(data):
            raise _BrokenError(position, "wanted nothing behind the array")

    def __call__(self, data: bytes, at_least: int, *, is_first: bool) -> int | None:
        """The start of the first value at or after a byte."""
        for start, _ in self.values(data, is_first=is_first, is_last=False):
            if start >= at_least:
                return start
        return None


def _space_end(data: bytes, position: int) -> int:
    space = _SPACE.match(data, position)
    assert space is not None
    return space.end()


def _value_end(data: bytes, position: int) -> int | None:
    """Where the value ends that begins here; None: not in these bytes. Raises _BrokenError where none begins."""
    if data[position] not in b"[{":
        scalar = _SCALAR.match(data, position)
        if scalar is None and data[position] != ord('"'):
            raise _BrokenError(position, "wanted a value")
        return scalar and scalar.end()
    depth = 0
    for token in _NESTING.finditer(data, position):
        first = data[token.start()]
        if first in b"[{":
            depth += 1
        elif first in b"]}":
            depth -= 1
            if depth == 0:
                return token.end()
        elif token.end() - token.start() == 1:  # a string that is not closed
            return None
    return None


@dataclass(frozen=True)
class _Values:
    """The values of a stretch; a string stands for its text where they are in an array."""

    records: JsonRecords
    walk: _Walk

    def documents(self, data: bytes, at: Stretch, faults: Faults) -> Iterator[Document]:
        for start, stop in self._spans(data, at):
            try:
                found = self.records.document(data[start:stop], start, at, faults)
            except Unusable as fault:
                at.found(fault, start, faults)
                continue
            if found is not None:
                yield found

    def _spans(self, data: bytes, at: Stretch) -> Iterator[tuple[int, int]]:
        try:
            yield from self.walk.values(data, is_first=at.start == 0, is_last=at.is_last)
        except _BrokenError as error:
            raise _broken(at, error) from None


def _broken(at: Stretch, error: _BrokenError) -> DataError:
    return DataError(
        f"{at.line(error.offset)}: not JSON: {error.message} at byte {at.start + error.offset:,}, so that the rest "
        "of the file cannot be read; repair it, or write one JSON object a line into a .jsonl file"
    )


@dataclass(frozen=True)
class JsonValues:
    """A document an object, from one field or two; in an array also a document a string.

    Only as much of a file is in memory as a block takes, or the largest value. What is wrong inside a value
    is that document's fault; where the values themselves cannot be told apart, no policy helps.
    """

    reading: Reading

    parts_are_known = False

    def blocks(self, entry: Entry, start: int = 0) -> Iterator[Block]:
        with reading_file(entry.file), Contents(entry.file, entry.compression) as contents:
            beginning = contents.read(1 << 16)
        begin = _space_end(beginning, len(BOM) if beginning.startswith(BOM) else 0)
        walk = _Walk(in_array=beginning[begin : begin + 1] == b"[")
        strings = walk.in_array and self.reading.pair_fields is None
        parser = _Values(JsonRecords(self.reading, is_line=False, allows_strings=strings), walk)
        at = start

        def cut(data: bytes, at_least: int) -> int | None:
            try:
                return walk(data, at_least, is_first=at == 0)
            except _BrokenError as error:
                raise _broken(Stretch(entry, at, at + len(data), is_last=False), error) from None

        for stretch, data, took in streamed(entry, cut, start, longest_bytes=LONGEST_BYTES):
            at = stretch.stop
            yield block_of(stretch, data, took, parser)
