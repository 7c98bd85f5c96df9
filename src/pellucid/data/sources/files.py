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
from pellucid.data.sources.base import Document, PairFields, SourceFile, SourceRecord
from pellucid.errors import DataError
from pellucid.runtime.files import sha256_file

SUFFIXES = (".txt", ".jsonl")
_BOM = "\ufeff"
_SURROGATE = re.compile("[\ud800-\udfff]")
_READABLE = "a .txt file (one document) or a .jsonl file (one JSON object with the text a line)"
PAIRS_WANTED = (
    "data.objective.kind 'paired' reads .jsonl files, with a source and a target a line; name such a file, or a "
    "folder of them, in data.path"
)


class FileSource:
    """A .txt or .jsonl file, or every such file below a folder in the order of their relative paths.

    A .txt file is one document; a source of exactly one .txt file is a single running text. A line of a
    .jsonl file is one document: the string in its field `text_field`. Blank lines, documents without a
    character, and files and folders whose name starts with a dot are passed over.

    With `pair_fields`, a line of a .jsonl file is a source and its target, and no .txt file is read.

    Text is UTF-8, with or without a byte-order mark, and is kept as it is: line ends are not translated,
    Unicode is not normalised. A .txt file, or one line of a .jsonl file, is held in memory at a time.

    Raises DataError for a path that is missing, unreadable, of another kind, or empty; while reading, for
    bytes that are not text, a line that is not JSON, a line without the field, and half a pair.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        text_field: str = "text",
        pair_fields: PairFields | None = None,
    ) -> None:
        root = Path(path).expanduser()
        self._text_field, self._pair_fields = text_field, pair_fields
        self.name = root.absolute().name
        with _reading(root):
            is_folder = root.is_dir()
            self._folder = root if is_folder else root.parent
            self._paths = _text_files_below(root) if is_folder else [_one_file(root)]
            if pair_fields is not None:
                self._paths = _with_pairs(root, self._paths)
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
            name=self.name,
            text_field=self._text_field if has_fields and self._pair_fields is None else None,
            pair_fields=self._pair_fields,
            files=tuple(files),
        )

    def documents(self) -> Iterator[Document]:
        for path in self._paths:
            with _reading(path):
                if path.suffix.lower() == ".txt":
                    yield _read_text(path)
                else:
                    yield from _read_lines(path, self._pair_fields or (self._text_field,))


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


def _with_pairs(root: Path, paths: list[Path]) -> list[Path]:
    lines = [path for path in paths if path.suffix.lower() == ".jsonl"]
    if not lines:
        raise DataError(f"{root}: holds .txt text and no pairs; {PAIRS_WANTED}")
    return lines


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


def _read_lines(path: Path, names: tuple[str, ...]) -> Iterator[Document]:
    """A document a line, from the field of that name; a pair, from two."""
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
            found = _strings_of(decoded, names, where) if decoded.strip() else ("",)
            if any(found):
                text, target = found if len(found) == 2 else (found[0], None)
                yield Document(text, where=where, source_bytes=len(line), target=target)
            start += len(line)


def _strings_of(line: str, names: tuple[str, ...], where: str) -> tuple[str, ...]:
    try:
        value: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not usable JSON: {error}") from None
    if not isinstance(value, dict):
        wanted = " and ".join(f"a field {name!r}" for name in names)
        raise DataError(f"{where}: wanted a JSON object with {wanted}, not {_kind(value)}")
    found = tuple(_string_of(cast(dict[str, Any], value), name, names, where) for name in names)
    if any(found) and not all(found):
        raise DataError(
            f"{where}: field {names[found.index('')]!r} is empty; a pair needs a source and a target: "
            "remove the line, or complete it"
        )
    return found


def _string_of(fields: dict[str, Any], name: str, names: tuple[str, ...], where: str) -> str:
    if name not in fields:
        known = ", ".join(fields) or "none"
        fix = (
            "name the field that holds the text with data.text_field"
            if len(names) == 1
            else "name the fields of a pair with data.objective.source_field and data.objective.target_field"
        )
        raise DataError(f"{where}: there is no field {name!r} (fields: {known}); {fix}")
    text = fields[name]
    if not isinstance(text, str):
        raise DataError(f"{where}: field {name!r} holds {_kind(text)}, not a string")
    if _SURROGATE.search(text):
        raise DataError(f"{where}: field {name!r} holds half of a surrogate pair, which is not text")
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
