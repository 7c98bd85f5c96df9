"""CSV and TSV: rows of fields, the first of which names them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pellucid.data.sources.base import Block, Document, Faults, Reading
from pellucid.data.sources.compression import Contents
from pellucid.data.sources.content import (
    BOM,
    LONGEST_BYTES,
    REPLACED,
    Entry,
    Stretch,
    Unusable,
    block_of,
    empty,
    not_text,
    streamed,
)
from pellucid.data.sources.records import document, missing
from pellucid.data.sources.stored import reading as reading_file
from pellucid.errors import DataError

_LONGEST_FIELD = (1 << 31) - 1
_NOT_CLOSED = (
    "a quotation mark that opens a field is not closed, so that the rest of the file cannot be read: complete the "
    "file, or double the marks inside of quoted fields"
)
_QUOTED = re.compile(rb'[^"]*+(?:""[^"]*+)*+"')
_ESCAPED = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True)
class _Rows:
    """Finds the ends of rows, as the csv module reads them: a mark of quotation counts where a field begins."""

    delimiter: str

    @property
    def _opening(self) -> re.Pattern[bytes]:
        return re.compile(rb'(?:\A(?:\xef\xbb\xbf)?|[%s\r\n])"' % self.delimiter.encode())

    def __call__(self, data: bytes, at_least: int) -> int | None:
        """The first end of a row at or after a byte, in bytes that begin with a row."""
        opening, position = self._opening, 0
        while True:
            quoted = opening.search(data, position)
            span_end = quoted.end() if quoted else len(data)
            border = data.find(b"\n", max(position, at_least - 1), span_end) + 1
            if border > 0 or quoted is None:
                return border or None
            closed = _QUOTED.match(data, span_end)
            if closed is None:
                return None
            position = closed.end()

    def unclosed(self, data: bytes) -> int | None:
        """Where a quoted field begins that goes on behind the data."""
        opening, position = self._opening, 0
        while quoted := opening.search(data, position):
            closed = _QUOTED.match(data, quoted.end())
            if closed is None:
                return quoted.end() - 1
            position = closed.end()
        return None


def _line_breaks(data: bytes) -> int:
    """How many lines the csv module counts: \\n, \\r and \\r\\n end one."""
    returns = data.count(b"\r")
    return data.count(b"\n") + (returns and returns - data.count(b"\r\n"))


@dataclass(frozen=True)
class _Table:
    reading: Reading
    rows: _Rows
    num_fields: int
    columns: tuple[int, ...]
    """The numbers of the fields that are read."""
    first_line: int

    def documents(self, data: bytes, at: Stretch, faults: Faults) -> Iterator[Document]:
        if at.is_last and (unclosed := self.rows.unclosed(data)) is not None:
            raise DataError(f"{at.line(unclosed)}: {_NOT_CLOSED}")
        begin = len(BOM) if at.start == 0 and data.startswith(BOM) else 0
        try:
            text, is_clean = data[begin:].decode("utf-8"), b"\0" not in data
        except UnicodeDecodeError:  # faults are of rows
            text, is_clean = data[begin:].decode("utf-8", "surrogateescape"), False
        csv.field_size_limit(_LONGEST_FIELD)
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=self.rows.delimiter)
        if at.start == 0:
            next(rows, None)
        line = rows.line_num
        for row in rows:
            where = f"{at.where}, line {self.first_line + line}"
            line = rows.line_num
            if not row:
                continue
            try:
                strings = self._strings(row)
                if not is_clean and any(map(_is_faulty, row)):
                    if faults.policy != "replace":
                        raise _first_fault(data, at) if faults.policy == "strict" else _fault_of(row)
                    faults.count(REPLACED, where)
                    strings = [_replaced(string) for string in strings]
                found = document(strings, self.reading, where)
            except Unusable as fault:
                faults.found(fault.reason, where, f"{where}: {fault.message}")
                continue
            if found is None:
                faults.count("empty", where)
            else:
                yield found

    def _strings(self, row: Sequence[str]) -> list[str]:
        if len(row) > self.num_fields:
            raise Unusable(
                "too many fields",
                f"{len(row)} fields where the header names {self.num_fields}; quote fields that hold the "
                f"delimiter {self.rows.delimiter!r}, or remove the line",
            )
        if len(row) <= max(self.columns):
            raise Unusable(
                "no such field",
                f"{len(row)} of the {self.num_fields} fields that the header names; complete the line, or remove it",
            )
        return [row[column] for column in self.columns]


def _is_faulty(text: str) -> bool:
    """Whether bytes of a text were no UTF-8, or NUL."""
    return "\0" in text or _ESCAPED.search(text) is not None


def _first_fault(data: bytes, at: Stretch) -> Unusable:
    """The first byte of a stretch that is no text."""
    nul = data.find(b"\0")
    try:
        data[: nul if nul >= 0 else None].decode("utf-8")
    except UnicodeDecodeError as error:
        return not_text(at.start + error.start, data[error.start])
    return not_text(at.start + nul, 0)


def _fault_of(row: Sequence[str]) -> Unusable:
    """The kind of fault of a row that has one."""
    is_utf8 = not any(_ESCAPED.search(field) for field in row)
    return not_text(0, 0 if is_utf8 else 0xFF)


def _replaced(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").replace("\0", "\ufffd")


@dataclass(frozen=True)
class Table:
    """A document a row, from one field or, as a pair, from two. The first row names the fields.

    Quotation as in RFC 4180: a field in quotation marks can hold the delimiter, line breaks, and marks that are
    doubled. Blank lines are passed over.
    """

    reading: Reading
    delimiter: str

    parts_are_known = False

    def blocks(self, entry: Entry, start: int = 0) -> Iterator[Block]:
        rows, names = _Rows(self.delimiter), self._header(entry)
        for name in self.reading.fields:
            if name not in names:
                raise DataError(
                    f"{entry.file.where}, line 1, which names the fields: {missing(name, names, self.reading)}"
                    f"{self._other_delimiter(names)}"
                )
        columns = tuple(names.index(name) for name in self.reading.fields)
        line = 1 + _lines_before(entry, start)
        for stretch, data, took in streamed(entry, rows, start, longest_bytes=LONGEST_BYTES):
            yield block_of(stretch, data, took, _Table(self.reading, rows, len(names), columns, line))
            line += _line_breaks(data)

    def _other_delimiter(self, names: Sequence[str]) -> str:
        """What to say where the header is one name that seems to be several."""
        if len(names) != 1 or not any(mark in names[0] for mark in ",;\t"):
            return ""
        wanted, other = (
            ("a comma", " (of a .tsv file it is a tab)") if self.delimiter == "," else ("a tab", "")
        )
        return f"; the delimiter of this file must be {wanted}{other}: write it again, or rename it"

    def _header(self, entry: Entry) -> list[str]:
        """The names of the fields."""
        rows, data, size = _Rows(self.delimiter), b"", 1 << 12
        with reading_file(entry.file), Contents(entry.file, entry.compression) as contents:
            while (end := rows(data, 1)) is None and (more := contents.read(size)):
                data, size = data + more, size * 2
        if not data:
            raise empty(entry.file)
        header = Stretch(entry, 0, len(data) if end is None else end, is_last=end is None)
        try:
            text = header.decoded(data[:end].removeprefix(BOM), 0, Faults("strict"))
        except Unusable as fault:
            raise DataError(f"{entry.file.where}, line 1: {fault.message}") from None
        csv.field_size_limit(_LONGEST_FIELD)
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=self.delimiter), [])


def _lines_before(entry: Entry, position: int) -> int:
    """How many lines end before a byte that a line begins with."""
    if position == 0:
        return 0
    breaks, count = io.IncrementalNewlineDecoder(None, translate=True), 0
    with reading_file(entry.file), Contents(entry.file, entry.compression) as contents:
        while data := contents.read(min(position - contents.position, 1 << 22)):
            count += breaks.decode(data.decode("latin-1")).count("\n")
    return count
