"""Parquet: columns in row groups, of which only the ones that are read are fetched."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np

from pellucid.data.sources.base import Block, Document, Faults, Place, Reading
from pellucid.data.sources.content import REPLACED, Entry, Unusable, not_text
from pellucid.data.sources.records import document, missing, no_text
from pellucid.data.sources.stored import LocalFile
from pellucid.data.sources.stored import reading as reading_file
from pellucid.errors import DataError
from pellucid.runtime.extras import require

BLOCK_BYTES = 1 << 23
"""The most that the read columns of a row group have uncompressed, where it is read as one block."""

_BATCH_ROWS = 1 << 12


def require_pyarrow() -> Any:
    """pyarrow, or a MissingLibraryError."""
    return require("pyarrow", extra="data", purpose="reading a .parquet file")


@contextmanager
def _opened(entry: Entry) -> Generator[Any]:
    """The file as pyarrow reads it. Raises DataError where it is no whole Parquet file."""
    require_pyarrow()
    parquet = require("pyarrow.parquet", extra="data", purpose="reading a .parquet file")
    with reading_file(entry.file):
        stream = entry.file.open()
    is_remote = not isinstance(entry.file, LocalFile)  # where reading ahead saves requests
    with (
        stream,
        _damage(entry),
        parquet.ParquetFile(stream, buffer_size=1 << 20, pre_buffer=is_remote) as file,
    ):
        yield file


@contextmanager
def _damage(entry: Entry) -> Generator[None]:
    arrow = require_pyarrow()
    try:
        yield
    except (arrow.ArrowException, OSError, EOFError) as error:
        said = " ".join(str(error).split())
        raise DataError(
            f"{entry.file.where}: broken or truncated Parquet ({said}); fetch or write it again"
        ) from None


@dataclass(frozen=True)
class _Rows:
    """Rows first to stop of a file; of one row group, or of a slice of it that has its values."""

    entry: Entry
    reading: Reading
    group: int
    first: int
    stop: int
    is_last: bool
    source_bytes: int
    values: bytes | None = None
    """A stream of Arrow record batches."""

    @property
    def begin(self) -> Place:
        return Place(self.entry.number, self.first)

    @property
    def end(self) -> Place:
        return self.entry.place_after(self.stop, is_last=self.is_last)

    def documents(self, faults: Faults) -> Iterator[Document]:
        row = self.first
        for batch in self._batches():
            columns = [_strings(batch.column(name)) for name in self.reading.fields]
            for strings in zip(*columns, strict=True):
                row += 1
                where = f"{self.entry.file.where}, row {row}"
                try:
                    found = self._document(strings, where, faults)
                except Unusable as fault:
                    faults.found(fault.reason, where, f"{where}: {fault.message}")
                    continue
                if found is None:
                    faults.count("empty", where)
                else:
                    yield found
        if row != self.stop:
            raise DataError(
                f"{self.entry.file.where}: gave {row - self.first:,} rows of the {self.stop - self.first:,} that it "
                f"says it has from row {self.first + 1:,} on; fetch or write it again"
            )

    def _batches(self) -> Iterator[Any]:
        if self.values is not None:
            yield from require_pyarrow().ipc.open_stream(self.values)
            return
        with _opened(self.entry) as file:
            yield from file.iter_batches(
                _BATCH_ROWS, row_groups=[self.group], columns=list(self.reading.fields), use_threads=False
            )

    def _document(
        self, strings: tuple[str | bytes | None, ...], where: str, faults: Faults
    ) -> Document | None:
        texts: list[str] = []
        for name, value in zip(self.reading.fields, strings, strict=True):
            if value is None:
                raise no_text(name)
            texts.append(
                value if isinstance(value, str) and "\0" not in value else _text(value, where, faults)
            )
        return document(texts, self.reading, where)


def _strings(column: Any) -> Iterator[str | bytes | None]:
    """The values of a column; as bytes where they are not UTF-8, which pyarrow does not look at."""
    arrow = require_pyarrow()
    if arrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if arrow.types.is_null(column.type):
        return iter([None] * len(column))
    if arrow.types.is_string_view(column.type) or arrow.types.is_binary_view(column.type):
        column = column.cast(arrow.large_binary())
    is_large = arrow.types.is_large_string(column.type) or arrow.types.is_large_binary(column.type)
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int64 if is_large else np.int32)
    ends = ends[column.offset : column.offset + len(column) + 1].tolist()
    values = map(_decoded, repeat(memoryview(data or b"")), ends, ends[1:])
    if column.null_count == 0:
        return values
    return (
        value if there else None for value, there in zip(values, column.is_valid().to_pylist(), strict=True)
    )


def _decoded(data: memoryview, start: int, stop: int) -> str | bytes:
    try:
        return str(data[start:stop], "utf-8")
    except UnicodeDecodeError:
        return bytes(data[start:stop])


def _text(value: str | bytes, where: str, faults: Faults) -> str:
    """A value with bytes that are no text. Raises Unusable where they are not to be replaced."""
    raw = value.encode() if isinstance(value, str) else value
    if faults.policy != "replace":
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise not_text(error.start, raw[error.start]) from None
        raise not_text(raw.index(0), 0)
    faults.count(REPLACED, where)
    return raw.decode("utf-8", "replace").replace("\0", "\ufffd")


@dataclass(frozen=True)
class Parquet:
    """A document a row, from one column of strings or, as a pair, from two. Places are rows."""

    reading: Reading

    parts_are_known = True

    def blocks(self, entry: Entry, start: int = 0) -> Iterator[Block]:
        return self._blocks(entry, start, 0, 1)

    def part_blocks(self, entry: Entry, part: int, parts: int) -> Iterator[Block]:
        return self._blocks(entry, 0, part, parts)

    def _blocks(self, entry: Entry, start: int, part: int, parts: int) -> Iterator[Block]:
        with _opened(entry) as file:
            self._require_columns(entry, file.schema_arrow)
            metadata = file.metadata
            groups = metadata.num_row_groups
            # Rounded up, so that the first part is never empty where a file has fewer row groups than parts.
            begin, stop = (-(-border * groups // parts) for border in (part, part + 1))
            row = 0
            total = metadata.num_rows
            for group in range(stop):
                first, row = row, row + metadata.row_group(group).num_rows
                if group < begin or row <= start:
                    continue
                stored, unpacked = self._sizes(metadata.row_group(group))
                whole = _Rows(entry, self.reading, group, first, row, row == total, stored)
                if unpacked <= BLOCK_BYTES:
                    yield whole
                else:
                    yield from self._slices(file, whole, start, unpacked)

    def _slices(self, file: Any, group: _Rows, start: int, unpacked: int) -> Iterator[Block]:
        """The rows of a large row group, some at a time, each with its values."""
        arrow = require_pyarrow()
        rows = group.stop - group.first
        size = max(1, rows * (BLOCK_BYTES // 4) // unpacked)
        first = group.first
        for batch in file.iter_batches(
            size, row_groups=[group.group], columns=list(self.reading.fields), use_threads=False
        ):
            stop = first + batch.num_rows
            if first >= start:
                sink = arrow.BufferOutputStream()
                with arrow.ipc.new_stream(sink, batch.schema) as writer:
                    writer.write_batch(batch)
                yield _Rows(
                    group.entry,
                    self.reading,
                    group.group,
                    first,
                    stop,
                    group.is_last and stop == group.stop,
                    group.source_bytes * batch.num_rows // rows,
                    sink.getvalue().to_pybytes(),
                )
            first = stop

    def _sizes(self, row_group: Any) -> tuple[int, int]:
        """The bytes of the columns that are read, as they are stored and uncompressed."""
        columns = [row_group.column(index) for index in range(row_group.num_columns)]
        read = [column for column in columns if column.path_in_schema in self.reading.fields]
        return sum(c.total_compressed_size for c in read), sum(c.total_uncompressed_size for c in read)

    def _require_columns(self, entry: Entry, schema: Any) -> None:
        types = require_pyarrow().types
        strings = (types.is_string, types.is_large_string, types.is_string_view)
        fits = (*strings, types.is_binary, types.is_large_binary, types.is_binary_view, types.is_null)
        for name in self.reading.fields:
            if name not in schema.names:
                raise DataError(f"{entry.file.where}: {missing(name, schema.names, self.reading)}")
            if (count := schema.names.count(name)) > 1:
                raise DataError(
                    f"{entry.file.where}: {count} columns have the name {name!r}; write the file again with one each"
                )
            kind = schema.field(name).type
            values = kind.value_type if types.is_dictionary(kind) else kind
            if not any(fit(values) for fit in fits):
                others = ", ".join(other for other in schema.names if other != name) or "none"
                raise DataError(
                    f"{entry.file.where}: field {name!r} holds {kind}, not strings; name the field that holds the text "
                    f"(other fields: {others})"
                )
