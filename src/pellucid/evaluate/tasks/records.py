"""The records of a task's file: JSON Lines, plain or compressed, or Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from pellucid.data.sources.compression import COMPRESSIONS, Contents
from pellucid.data.sources.formats import Kind, kind_of
from pellucid.data.sources.stored import LocalFile, reading
from pellucid.errors import DataError
from pellucid.evaluate.tasks.templates import Record
from pellucid.runtime.extras import require

_JSON_LINES = (".jsonl", ".ndjson")
_READ_BYTES = 1 << 20


def records(path: Path) -> Iterator[tuple[str, Record]]:
    """(where it stands, for messages; the record) of every record of a file. Blank lines are passed over.

    Raises DataError for a file that is missing or of another kind, and for a line that is no JSON object.
    """
    kind = kind_of_records(path)
    if kind is None:
        raise DataError(
            f"{path}: a task's file is .jsonl, which may be compressed ({', '.join(COMPRESSIONS)}), or .parquet"
        )
    kind.require_libraries()
    yield from _rows(path) if kind.suffix == ".parquet" else _lines(path, kind.compression)


def kind_of_records(path: Path) -> Kind | None:
    """What kind of file this is by its name; None for one that holds no records."""
    kind = kind_of(path.name)
    return kind if kind is not None and kind.suffix in (*_JSON_LINES, ".parquet") else None


def _lines(path: Path, compression: str | None) -> Iterator[tuple[str, Record]]:
    file = LocalFile(path, path.name, str(path), 0)
    with reading(file), Contents(file, compression) as contents:
        data = b"".join(iter(lambda: contents.read(_READ_BYTES), b""))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}, line {line:,}: not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from None
    for number, line in enumerate(text.split("\n"), start=1):
        if line and not line.isspace():
            where = f"{path}, line {number:,}"
            yield where, _record(line, where)


def _record(line: str, where: str) -> Record:
    try:
        value: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: not JSON: {error.msg} at column {error.colno}; correct or remove it"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not usable JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{where}: wanted a JSON object, not {line.strip()[:40]!r}")
    return cast(Record, value)


def _rows(path: Path) -> Iterator[tuple[str, Record]]:
    parquet = require("pyarrow.parquet", extra="data", purpose="reading a .parquet file")
    arrow = require("pyarrow", extra="data", purpose="reading a .parquet file")
    try:
        with reading(LocalFile(path, path.name, str(path), 0)):
            rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
    except (arrow.ArrowException, EOFError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"{path}: broken or truncated Parquet ({said}); fetch or write it again") from None
    for number, row in enumerate(rows, start=1):
        yield f"{path}, row {number:,}", row
