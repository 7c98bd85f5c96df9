"""JSON Lines: a JSON object a line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pellucid.data.sources.base import Block, Document, Faults, Reading
from pellucid.data.sources.content import (
    BOM,
    Entry,
    Separator,
    Stretch,
    Unusable,
    block_of,
    part_blocks,
    ranges,
    streamed,
)
from pellucid.data.sources.records import document, require_text, strings_of

_LINE_BREAK = Separator(b"\n")


@dataclass(frozen=True)
class JsonRecords:
    """What one piece of JSON says, as a document."""

    reading: Reading
    is_line: bool = True
    allows_strings: bool = False
    """Whether a string can stand for an object that has it as its text."""

    def document(self, raw: bytes, offset: int, at: Stretch, faults: Faults) -> Document | None:
        """The document of the bytes at `offset` of a stretch; None for an empty one, which is counted.

        Raises Unusable for what is no record with text.
        """
        try:
            value: Any = json.loads(at.decoded(raw, offset, faults))
        except json.JSONDecodeError as error:
            byte = at.start + offset + len(error.doc[: error.pos].encode())
            place = f"column {error.colno}" if self.is_line else f"byte {byte:,}"
            raise Unusable("not JSON", f"not JSON: {error.msg} at {place}; correct or remove it") from None
        except ValueError:
            most = sys.get_int_max_str_digits()
            raise Unusable(
                "not JSON", f"not usable JSON: a number of more than {most:,} digits; shorten or remove it"
            ) from None
        except RecursionError as error:
            raise Unusable("not JSON", f"not usable JSON: {error}") from None
        strings = (
            [value] if self.allows_strings and isinstance(value, str) else strings_of(value, self.reading)
        )
        if b"\\u" in raw and (b"\\ud" in raw or b"\\uD" in raw):
            require_text(strings, self.reading)
        found = document(strings, self.reading, at.place(offset))
        if found is None:
            faults.count("empty", at.place(offset))
        return found


@dataclass(frozen=True)
class _Lines:
    records: JsonRecords

    def documents(self, data: bytes, at: Stretch, faults: Faults) -> Iterator[Document]:
        offset = len(BOM) if at.start == 0 and data.startswith(BOM) else 0
        for line in data[offset:].split(b"\n") if offset else data.split(b"\n"):
            if line and not line.isspace():
                try:
                    found = self.records.document(line, offset, at, faults)
                except Unusable as fault:
                    at.found(fault, offset, faults)
                    found = None
                if found is not None:
                    yield found
            offset += len(line) + 1


@dataclass(frozen=True)
class JsonLines:
    """A document a line, from one field or, as a pair, from two. Blank lines are passed over."""

    reading: Reading

    parts_are_known = True

    def blocks(self, entry: Entry, start: int = 0) -> Iterator[Block]:
        parser = _Lines(JsonRecords(self.reading))
        if entry.compression is None:
            yield from ranges(entry, _LINE_BREAK, parser, start)
            return
        for stretch, data, took in streamed(entry, _LINE_BREAK, start):
            yield block_of(stretch, data, took, parser)

    def part_blocks(self, entry: Entry, part: int, parts: int) -> Iterator[Block]:
        return part_blocks(entry, _LINE_BREAK, _Lines(JsonRecords(self.reading)), part, parts)
