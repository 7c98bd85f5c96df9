"""Files as a source of documents, wherever they are stored."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import cast

from pellucid.data.sources.base import START, Block, Place, Portion, Reading, SourceFile, SourceRecord
from pellucid.data.sources.content import Entry, Nothing
from pellucid.data.sources.formats import CutFormat, Format, Kind
from pellucid.data.sources.stored import StoredFile
from pellucid.data.sources.text import USUAL_MARKER, holds_usual_marker
from pellucid.errors import DataError

PAIRS_WANTED = (
    "data.objective.kind 'paired' reads .jsonl files, or .json, .csv, .tsv or .parquet, with a source and a target a "
    "record; name such a file, or a folder of them, in data.path"
)

_log = logging.getLogger(__name__)


class FileSource:
    """Files in the order in which they are given, each with its kind.

    Exactly one text file, where no marker separates documents, is a single running text, unless the source is
    `one_of_several`; of other text files each is one document. With pair fields, no text file is read.

    Text is UTF-8, with or without a byte-order mark, and is kept as it is: line ends are not translated,
    Unicode is not normalised. Documents without a character are counted, blank lines passed over. In memory
    at a time: a block, or the longest document.

    holder: whatever must live as long as the files.
    Raises DataError for pairs where no file has records; MissingLibraryError where a kind needs a library.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[tuple[StoredFile, Kind]],
        reading: Reading,
        *,
        one_of_several: bool = False,
        holder: object = None,
    ) -> None:
        self.name, self.reading = name, reading
        if reading.pair_fields is not None:
            records = [(file, kind) for file, kind in files if not kind.is_text]
            if not records:
                raise DataError(f"{files[0][0].where}: holds text and no pairs; {PAIRS_WANTED}")
            files = records
        self._files = [file for file, _ in files]
        self._kinds = [kind for _, kind in files]
        for kind in set(self._kinds):
            kind.require_libraries()
        self.is_single_text = (
            [kind.is_text for kind in self._kinds] == [True]
            and reading.document_marker is None
            and not one_of_several
        )
        self._is_alone = len(self._files) == 1 and not one_of_several
        self._holder = holder
        self._has_warned = False

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self._files)

    def record(self) -> SourceRecord:
        return self._record

    @cached_property
    def _record(self) -> SourceRecord:
        has_text = any(kind.is_text for kind in self._kinds)
        has_records = any(not kind.is_text for kind in self._kinds)
        is_paired = self.reading.pair_fields is not None
        return SourceRecord(
            name=self.name,
            text_field=self.reading.text_field if has_records and not is_paired else None,
            pair_fields=self.reading.pair_fields,
            document_marker=self.reading.document_marker if has_text else None,
            errors=self.reading.errors,
            files=tuple(
                SourceFile(name=file.name, size_bytes=file.size_bytes, sha256=file.sha256())
                for file in self._files
            ),
        )

    def blocks(self, start: Place = START, *, whole: bool = False) -> Iterator[Block]:
        for number in range(start.file, len(self._files)):
            form, entry = self._opened(number, whole=whole)
            yield from form.blocks(entry, start.position if number == start.file else 0)

    def portions(self, portion_bytes: int) -> Sequence[Portion]:
        counts = [self._parts(number, portion_bytes) for number in range(len(self._files))]
        return [Portion(file, part, parts) for file, parts in enumerate(counts) for part in range(parts)]

    def portion_blocks(self, portion: Portion) -> Iterator[Block]:
        form, entry = self._opened(portion.file)
        if portion.parts == 1:
            return form.blocks(entry)
        return cast(CutFormat, form).part_blocks(entry, portion.part, portion.parts)

    def _parts(self, number: int, portion_bytes: int) -> int:
        """How many parts a file has, by its name and size alone."""
        kind = self._kinds[number]
        if kind.compression is not None or not self._format(kind).parts_are_known:
            return 1
        return max(1, -(-self._files[number].size_bytes // portion_bytes))

    def _format(self, kind: Kind, *, whole: bool = False) -> Format:
        return kind.format(self.reading, is_single_text=self.is_single_text, whole=whole)

    def _opened(self, number: int, *, whole: bool = False) -> tuple[Format, Entry]:
        kind = self._kinds[number]
        may_be_empty = kind.may_be_empty and not self._is_alone
        entry = Entry(self._files[number], number, kind.compression, may_be_empty)
        if may_be_empty and kind.compression is None and entry.file.size_bytes == 0:
            return Nothing(), entry
        if kind.is_text and self.reading.document_marker is None:
            self._warn_of_marker(entry)
        return self._format(kind, whole=whole), entry

    def _warn_of_marker(self, entry: Entry) -> None:
        if not self._has_warned and holds_usual_marker(entry):
            self._has_warned = True
            _log.warning(
                "%s: %s is read as text; to read what stands between as documents, set data.document_marker to it "
                "(--document-marker)",
                entry.file.where,
                USUAL_MARKER,
            )
