"""What every source of text provides: documents in a fixed order, and a record of the bytes behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pellucid.config import Config


@dataclass(frozen=True)
class Document:
    """One text, or a source and its target, and where it stands."""

    text: str
    """Never empty. The source of a pair."""
    where: str
    """For messages: the file, and the line where a file holds several documents."""
    source_bytes: int
    """How many of the source's bytes it took, for progress: the sum over a source is at most its size."""
    target: str | None = None
    """What the text is to be turned into, in paired data; never empty."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The text alone, or source and target."""
        return (self.text,) if self.target is None else (self.text, self.target)


PairFields = tuple[str, str]
"""The fields of a .jsonl line that hold the source and the target of a pair."""


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
    """The field that was read from .jsonl lines; None where no file is .jsonl, and in paired data."""
    pair_fields: PairFields | None = None
    """In paired data, the fields that were read from .jsonl lines."""
    files: tuple[SourceFile, ...]


class Source(Protocol):
    """Documents in an order that depends on nothing but the files' names and contents."""

    @property
    def name(self) -> str:
        """A short name for people: the last part of the path."""
        ...

    @property
    def is_single_text(self) -> bool:
        """Whether it is one running text, which is split by its tail, and not a collection of documents."""
        ...

    @property
    def size_bytes(self) -> int:
        """The bytes of all its files, an upper bound on the UTF-8 bytes of all its documents."""
        ...

    def record(self) -> SourceRecord:
        """The identity of every file. Reads all of them once to hash them."""
        ...

    def documents(self) -> Iterator[Document]:
        """All documents, one in memory at a time. Raises DataError naming file and place for bad input."""
        ...


def texts(source: Source) -> Iterator[str]:
    """Every text of a source, the targets of pairs too: the corpus of a tokenizer that is made from it."""
    for document in source.documents():
        yield from document.texts


class JoinedSources:
    """Several sources, one after the other, as one collection of documents."""

    is_single_text = False

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = tuple(sources)

    @property
    def name(self) -> str:
        return " + ".join(source.name for source in self._sources)

    @property
    def size_bytes(self) -> int:
        return sum(source.size_bytes for source in self._sources)

    def record(self) -> SourceRecord:
        records = [source.record() for source in self._sources]
        return SourceRecord(
            name=self.name,
            text_field=next((r.text_field for r in records if r.text_field is not None), None),
            pair_fields=next((r.pair_fields for r in records if r.pair_fields is not None), None),
            files=tuple(file for record in records for file in record.files),
        )

    def documents(self) -> Iterator[Document]:
        for source in self._sources:
            yield from source.documents()
