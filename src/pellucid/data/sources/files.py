"""Plain text on disk: .txt and .jsonl files, alone or in folders."""

from __future__ import annotations

import json
import mmap
import os
import re
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from pellucid.config import nearest
from pellucid.data.sources.base import Document, SourceFile, SourceRecord
from pellucid.errors import DataError
from pellucid.runtime.files import sha256_file

SUFFIXES = (".txt", ".jsonl")
_BOM = "\ufeff"
_SURROGATE = re.compile("[\ud800-\udfff]")
_READABLE = "a .txt file (one document) or a .jsonl file (one JSON object with the text a line)"


class FileSource:
    """A .txt or .jsonl file, or every such file below a folder in the order of their relative paths.

    A .txt file is one document; a source of exactly one .txt file is a single running text. A line of a
    .jsonl file is one document: the string in its field `text_field`. Blank lines, documents without a
    character, and files and folders whose name starts with a dot are passed over.

    Text is UTF-8, with or without a byte-order mark, and is kept as it is: line ends are not translated,
    Unicode is not normalised. A .txt file, or one line of a .jsonl file, is held in memory at a time.

    Raises DataError for a path that is missing, unreadable, of another kind, or empty; while reading, for
    bytes that are not text, a line that is not JSON, and a line without the field.
    """

    def __init__(self, path: str | os.PathLike[str], *, text_field: str = "text") -> None:
        root = Path(path).expanduser()
        self._text_field = text_field
        self.name = root.absolute().name
        with _reading(root):
            is_folder = root.is_dir()
            self._folder = root if is_folder else root.parent
            self._paths = _text_files_below(root) if is_folder else [_one_file(root)]
            self._sizes = [file.stat().st_size for file in self._paths]
        for file, size in zip(self._paths, self._sizes, strict=True):
            if size == 0:
                raise DataError(f"{file}: the file is empty; remove it, or put text into it")

    @property
    def is_single_text(self) -> bool:
        return [file.suffix.lower() for file in self._paths] == [".txt"]

    @property
    def size_bytes(self) -> int:
        return sum(self._sizes)

    def record(self) -> SourceRecord:
        return self._record

    @cached_property
    def _record(self) -> SourceRecord:
        files: list[SourceFile] = []
        for path, size in zip(self._paths, self._sizes, strict=True):
            with _reading(path):
                digest = sha256_file(path)
            name = path.relative_to(self._folder).as_posix()
            files.append(SourceFile(name=name, size_bytes=size, sha256=digest))
        has_fields = any(path.suffix.lower() == ".jsonl" for path in self._paths)
        return SourceRecord(
            name=self.name, text_field=self._text_field if has_fields else None, files=tuple(files)
        )

    def documents(self) -> Iterator[Document]:
        for path in self._paths:
            with _reading(path):
                if path.suffix.lower() == ".txt":
                    yield _read_text(path)
                else:
                    yield from _read_lines(path, self._text_field)


# Finding files --------------------------------------------------------------------------------------


def _one_file(path: Path) -> Path:
    if not path.exists():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{path}: no such file or folder{nearest(path.name, beside)}")
    if not path.is_file():
        raise DataError(f"{path}: neither a file nor a folder; name {_READABLE}, or a folder of them")
    if path.suffix.lower() not in SUFFIXES:
        came = f"a {path.suffix} file" if path.suffix else "a file without a suffix"
        raise DataError(f"{path}: {came} cannot be read; convert it to {_READABLE}")
    return path


def _text_files_below(folder: Path) -> list[Path]:
    def is_hidden(path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(folder).parts)

    files = [path for path in folder.rglob("*") if path.is_file() and not is_hidden(path)]
    texts = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not texts:
        kinds = Counter(path.suffix or "without a suffix" for path in files)
        found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)) or "nothing"
        raise DataError(
            f"{folder}: no .txt or .jsonl file in this folder (found: {found}); convert to {_READABLE}"
        )
    return sorted(texts, key=lambda path: path.relative_to(folder).as_posix())


# Reading them ---------------------------------------------------------------------------------------


@contextmanager
def _reading(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot be read: {error.strerror}") from error


def _read_text(path: Path) -> Document:
    # Mapped, not read: the bytes of a large file then take no memory of ours beside the decoded text.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            text = str(data, "utf-8")
        except UnicodeDecodeError as error:
            raise _not_text(str(path), error.start, data[error.start]) from None
        nul = data.find(b"\0")
        if nul >= 0:
            raise _not_text(str(path), nul, 0)
        size = len(data)
    text = text.removeprefix(_BOM)
    if not text:
        raise DataError(
            f"{path}: the file is empty but for a byte-order mark; remove it, or put text into it"
        )
    return Document(text, where=str(path), source_bytes=size)


def _read_lines(path: Path, text_field: str) -> Iterator[Document]:
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            try:
                decoded = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise _not_text(where, start + error.start, line[error.start]) from None
            if (nul := line.find(b"\0")) >= 0:
                raise _not_text(where, start + nul, 0)
            decoded = decoded.rstrip("\r\n")
            if number == 1:
                decoded = decoded.removeprefix(_BOM)
            text = _text_of(decoded, text_field, where) if decoded.strip() else ""
            if text:
                yield Document(text, where=where, source_bytes=len(line))
            start += len(line)


def _text_of(line: str, text_field: str, where: str) -> str:
    try:
        value: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not usable JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{where}: wanted a JSON object with a field {text_field!r}, not {_kind(value)}")
    fields = cast(dict[str, Any], value)
    if text_field not in fields:
        names = ", ".join(fields) or "none"
        raise DataError(
            f"{where}: there is no field {text_field!r} (fields: {names}); "
            "name the field that holds the text with data.text_field"
        )
    text = fields[text_field]
    if not isinstance(text, str):
        raise DataError(f"{where}: field {text_field!r} holds {_kind(text)}, not a string")
    if _SURROGATE.search(text):
        raise DataError(f"{where}: field {text_field!r} holds half of a surrogate pair, which is not text")
    return text


def _kind(value: object) -> str:
    names: dict[type, str] = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a truth value",
        type(None): "null",
    }
    return names.get(type(value), "a number")


def _not_text(where: str, offset: int, byte: int) -> DataError:
    fault = "a NUL" if byte == 0 else "not UTF-8"
    return DataError(
        f"{where}: not a text file: byte {offset:,} is 0x{byte:02x}, {fault}; convert it to UTF-8 text"
    )
