"""A file's name → its format, and how that format gives the file's documents in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from pellucid.config import nearest
from pellucid.data.sources.base import Block, Reading
from pellucid.data.sources.compression import COMPRESSIONS, require_codec
from pellucid.data.sources.content import Entry
from pellucid.data.sources.json_lines import JsonLines
from pellucid.data.sources.json_values import JsonValues
from pellucid.data.sources.parquet import Parquet, require_pyarrow
from pellucid.data.sources.tables import Table
from pellucid.data.sources.text import MarkedText, RunningText, WholeText
from pellucid.errors import ConfigError


class Format(Protocol):
    """A kind of file."""

    @property
    def parts_are_known(self) -> bool:
        """Whether a plain file's parts can be read apart from what stands before them."""
        ...

    def blocks(self, entry: Entry, start: int = 0) -> Iterator[Block]:
        """The blocks of a file, from the position on at which one begins."""
        ...


class CutFormat(Format, Protocol):
    """A kind of file whose parts are known."""

    def part_blocks(self, entry: Entry, part: int, parts: int) -> Iterator[Block]:
        """The blocks of a part of a plain file."""
        ...


TEXT_SUFFIXES = (".txt", ".md")

RECORDS: dict[str, Callable[[Reading], Format]] = {
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".json": JsonValues,
    ".csv": lambda reading: Table(reading, ","),
    ".tsv": lambda reading: Table(reading, "\t"),
    ".parquet": Parquet,
}

SUFFIXES = (*TEXT_SUFFIXES, *RECORDS)


@dataclass(frozen=True)
class Kind:
    """What a file's name says of what is in it."""

    suffix: str
    """Of the contents: one of SUFFIXES."""
    compression: str | None = None

    @property
    def is_text(self) -> bool:
        """Whether it is plain text, without records."""
        return self.suffix in TEXT_SUFFIXES

    @property
    def may_be_empty(self) -> bool:
        """Whether contents without a byte are whole, as those of other kinds are not."""
        return self.is_text or self.suffix in (".jsonl", ".ndjson")

    def require_libraries(self) -> None:
        """Raise MissingLibraryError unless files of this kind can be read here."""
        require_codec(self.compression)
        if self.suffix == ".parquet":
            require_pyarrow()

    def format(self, reading: Reading, *, is_single_text: bool = False, whole: bool = False) -> Format:
        """How such files are read. whole: a running text as one document."""
        if not self.is_text:
            return RECORDS[self.suffix](reading)
        if reading.document_marker is not None:
            return MarkedText(reading.document_marker)
        return RunningText() if is_single_text and not whole else WholeText(is_running=is_single_text)


def kind_of(name: str, file_format: str | None = None) -> Kind | None:
    """What kind of file has this name, such as `a.jsonl.gz`; None for one that cannot be read.

    file_format: the format of files whose suffix names none, such as jsonl or jsonl.gz.
    Raises ConfigError for a format that there is not.
    """
    stem, compression = name.lower(), None
    for known in COMPRESSIONS:
        if stem.endswith(known):
            stem, compression = stem.removesuffix(known), known
            break
    suffix = PurePosixPath(stem).suffix
    if suffix not in SUFFIXES:
        if file_format is None:
            return None
        named = _named(file_format)
        suffix, compression = named.suffix, compression or named.compression
    if suffix == ".parquet" and compression is not None:
        return None
    return Kind(suffix, compression)


def _named(file_format: str) -> Kind:
    kind = kind_of(f"-.{file_format.lower().removeprefix('.')}")
    if kind is None:
        known = [suffix.removeprefix(".") for suffix in SUFFIXES]
        raise ConfigError(
            f"--format: there is no format {file_format!r}{nearest(file_format, known)} (formats: "
            f"{', '.join(known)}; all but parquet also with {', '.join(COMPRESSIONS)} behind)"
        )
    return kind
