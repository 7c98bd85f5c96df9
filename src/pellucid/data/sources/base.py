"""What every source of text provides: documents in a fixed order, in blocks that any process can read."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from pellucid.config import Config
from pellucid.errors import DataError

PairFields = tuple[str, str]
"""The fields of a record that hold the source and the target of a pair."""

Errors = Literal["strict", "replace", "skip"]
"""What happens to bytes that are not UTF-8, and to other faults of a document.

`strict`: an error that says where. `replace`: what is not UTF-8 becomes U+FFFD; any other fault is an error.
`skip`: the document is left out. What is replaced or left out is counted by reason, and reported.
"""


@dataclass(frozen=True)
class Document:
    """One text, or a source and its target, and where it stands; of one running text, a piece."""

    text: str
    """Never empty. The source of a pair."""
    where: str
    """For messages: the file, and the line or row where a file holds several documents."""
    target: str | None = None
    """What the text is to be turned into, in paired data; never empty."""
    first_character: int = 0
    """In a piece of a running text: how many characters of it come before."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The text alone, or source and target."""
        return (self.text,) if self.target is None else (self.text, self.target)


class SourceFile(Config):
    """A file's identity: equal bytes give an equal hash, wherever the file lies."""

    name: str
    """Relative to the folder that was named, with forward slashes."""
    size_bytes: int
    sha256: str


class SourceRecord(Config):
    """What a source consisted of when it was read: kept in the manifest of what was made from it."""

    name: str
    text_field: str | None = None
    """The field that was read from records; None where no file has any, and in paired data."""
    pair_fields: PairFields | None = None
    """In paired data, the fields that were read from records."""
    document_marker: str | None = None
    """What stands between two documents of a text file; None: a text file is one document."""
    errors: Errors = "strict"
    revision: str | None = None
    """Of a data set on a hub: the commit that was read."""
    files: tuple[SourceFile, ...]


@dataclass(frozen=True)
class Reading:
    """How files become documents: the same for every file of a source."""

    text_field: str = "text"
    """The field of a record (a JSON object, a CSV or Parquet row) that holds the text."""
    pair_fields: PairFields | None = None
    document_marker: str | None = None
    """What stands between two documents of a .txt or .md file, such as <|endoftext|>. None: a file is one."""
    errors: Errors = "strict"

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a record that are read."""
        return self.pair_fields or (self.text_field,)


@dataclass
class Faults:
    """What was replaced or left out, by reason, and where each reason was first met."""

    policy: Errors
    counts: Counter[str] = field(default_factory=Counter[str])
    first: dict[str, str] = field(default_factory=dict[str, str])

    def found(self, reason: str, where: str, message: str) -> None:
        """Count a document that is left out; under any policy but `skip` raise DataError with the message."""
        if self.policy != "skip":
            raise DataError(f"{message} (or leave such documents out with data.errors=skip, --errors skip)")
        self.count(reason, where)

    def count(self, reason: str, where: str) -> None:
        """Count what is no error under any policy, such as an empty document."""
        self.counts[reason] += 1
        self.first.setdefault(reason, where)

    def add(self, other: Faults) -> None:
        """Take over what was met in another part of the source, further on."""
        self.counts.update(other.counts)
        for reason, where in other.first.items():
            self.first.setdefault(reason, where)


class Place(NamedTuple):
    """Between two documents of a source."""

    file: int
    """The file's number in the source."""
    position: int
    """In the file: a byte of its decompressed contents, or the row of a Parquet file."""


START = Place(0, 0)


class Portion(NamedTuple):
    """One of the `parts` nearly equal parts of a file: known before the file is opened."""

    file: int
    part: int
    parts: int


class Block(Protocol):
    """Some consecutive documents: small enough for memory, and read wherever they are needed (picklable)."""

    @property
    def begin(self) -> Place:
        """Where its first document stands."""
        ...

    @property
    def end(self) -> Place:
        """Where the block after it begins."""
        ...

    @property
    def source_bytes(self) -> int:
        """How many of the source's bytes it takes, for progress: the sum over a source is at most its size."""
        ...

    def documents(self, faults: Faults) -> Iterator[Document]:
        """Its documents in order. Raises DataError naming file and place for bad input that no policy allows."""
        ...


class Source(Protocol):
    """Documents in an order that depends on nothing but the files' names and contents."""

    @property
    def name(self) -> str:
        """A short name for people: the last part of the path."""
        ...

    @property
    def reading(self) -> Reading:
        """How its files become documents."""
        ...

    @property
    def is_single_text(self) -> bool:
        """Whether it is one running text, which is split by its tail, and not a collection of documents."""
        ...

    @property
    def size_bytes(self) -> int:
        """The bytes of all its files as they are stored."""
        ...

    def record(self) -> SourceRecord:
        """The identity of every file. Reads all of them once to hash them, where nobody vouches for a hash."""
        ...

    def blocks(self, start: Place = START, *, whole: bool = False) -> Iterator[Block]:
        """All blocks from a place on that is the `begin` or `end` of one.

        whole: give one running text as one document, not in pieces that end with words.
        """
        ...

    def portions(self, portion_bytes: int) -> Sequence[Portion]:
        """The source in parts of about so many stored bytes, in order; known from names and sizes alone."""
        ...

    def portion_blocks(self, portion: Portion) -> Iterator[Block]:
        """The blocks of a part; those of all parts, one after the other, hold the documents of `blocks()`."""
        ...


def documents(source: Source, faults: Faults | None = None, *, whole: bool = False) -> Iterator[Document]:
    """All documents of a source, one block at a time. whole: see `Source.blocks`."""
    faults = faults or Faults(source.reading.errors)
    for block in source.blocks(whole=whole):
        yield from block.documents(faults)


def texts(source: Source) -> Iterator[str]:
    """Every text of a source, the targets of pairs too: the corpus of a tokenizer that is made from it."""
    for document in documents(source):
        yield from document.texts


def characters(source: Source) -> int:
    """How many characters one running text has. Reads it once."""
    return sum(len(document.text) for document in documents(source))


@dataclass(frozen=True)
class _Moved:
    """A block of one of several sources, its files numbered over all of them."""

    block: Block
    by: int

    @property
    def begin(self) -> Place:
        return Place(self.block.begin.file + self.by, self.block.begin.position)

    @property
    def end(self) -> Place:
        return Place(self.block.end.file + self.by, self.block.end.position)

    @property
    def source_bytes(self) -> int:
        return self.block.source_bytes

    def documents(self, faults: Faults) -> Iterator[Document]:
        return self.block.documents(faults)


class JoinedSources:
    """Several sources, one after the other, as one collection of documents."""

    is_single_text = False

    def __init__(self, sources: Sequence[Source], reading: Reading) -> None:
        self.reading = reading
        self._sources = tuple(sources)

    @property
    def name(self) -> str:
        return " + ".join(source.name for source in self._sources)

    @property
    def size_bytes(self) -> int:
        return sum(source.size_bytes for source in self._sources)

    def record(self) -> SourceRecord:
        records = [source.record() for source in self._sources]
        shared: dict[str, Any] = {}
        for name in SourceRecord.model_fields.keys() - {"name", "files"}:
            values = [value for record in records if (value := getattr(record, name)) is not None]
            shared |= {name: values[0]} if values else {}
        return SourceRecord(
            name=self.name, files=tuple(file for record in records for file in record.files), **shared
        )

    def blocks(self, start: Place = START, *, whole: bool = False) -> Iterator[Block]:
        for source, first in self._numbered():
            if start.file < first + self._file_count(source):
                inside = Place(start.file - first, start.position) if start.file >= first else START
                for block in source.blocks(inside, whole=whole):
                    yield _Moved(block, first)

    def portions(self, portion_bytes: int) -> Sequence[Portion]:
        return [
            portion._replace(file=portion.file + first)
            for source, first in self._numbered()
            for portion in source.portions(portion_bytes)
        ]

    def portion_blocks(self, portion: Portion) -> Iterator[Block]:
        for source, first in self._numbered():
            if first <= portion.file < first + self._file_count(source):
                inside = portion._replace(file=portion.file - first)
                yield from (_Moved(block, first) for block in source.portion_blocks(inside))

    def _numbered(self) -> Iterator[tuple[Source, int]]:
        """Every source and the number that its first file has."""
        first = 0
        for source in self._sources:
            yield source, first
            first += self._file_count(source)

    def _file_count(self, source: Source) -> int:
        return len(source.portions(sys.maxsize))  # a file that is smaller is one part; a record would hash it
