"""Where text comes from. `open_source` turns the paths a user writes into a source of documents."""

from __future__ import annotations

import os
from collections.abc import Collection

from pellucid.data.sources.base import (
    Block,
    Document,
    Errors,
    Faults,
    JoinedSources,
    PairFields,
    Place,
    Portion,
    Reading,
    Source,
    SourceFile,
    SourceRecord,
    characters,
    documents,
    texts,
)
from pellucid.data.sources.builtin import PREFIX, BuiltinSource
from pellucid.data.sources.content import empty
from pellucid.data.sources.files import FileSource
from pellucid.data.sources.folders import Found, find
from pellucid.data.sources.formats import kind_of
from pellucid.data.sources.hub import PREFIX as HUB
from pellucid.data.sources.hub import HubSource
from pellucid.errors import ConfigError, DataError

__all__ = [
    "Block",
    "Document",
    "Errors",
    "Faults",
    "PairFields",
    "Place",
    "Portion",
    "Reading",
    "Source",
    "SourceFile",
    "SourceRecord",
    "characters",
    "documents",
    "open_source",
    "texts",
]


def open_source(
    *paths: str | os.PathLike[str],
    text_field: str = "text",
    pair_fields: PairFields | None = None,
    document_marker: str | None = None,
    errors: Errors = "strict",
    file_format: str | None = None,
) -> Source:
    """The source behind one path or several.

    A path is a file, a folder (all files below it that can be read), a pattern such as `data/**/*.jsonl`, `-` for
    standard input, a data set `hub:OWNER/NAME[:CONFIG][@REVISION]`, or `builtin:NAME`. Files are .txt, .md,
    .jsonl, .ndjson, .json, .csv, .tsv, plain or with .gz, .zst or .xz behind, and .parquet.

    text_field: the field of a record that holds the text. pair_fields: the fields that hold source and target,
    for paired data, which is read from records alone. document_marker: what stands between two documents of a
    text file; None: a text file is one. errors: see `Errors`. file_format: such as jsonl or csv.gz, of standard
    input and of files whose suffix names no format.

    Raises DataError when a path is missing or of a kind that cannot be read, and when all files are empty;
    ConfigError for options that do not fit; HubError; MissingLibraryError.
    """
    if not paths:
        raise DataError("no data: name a .txt or .jsonl file, a folder of them, or builtin:shakespeare")
    if document_marker == "":
        raise ConfigError("data.document_marker: wanted what stands between documents, not an empty string")
    reading = Reading(text_field, pair_fields, document_marker, errors)
    words = [os.fspath(path) for path in paths]
    found = {word: find(word, file_format) for word in words if not word.startswith((PREFIX, HUB))}
    if file_format is not None:
        _require_use(file_format, found.values())
    files = [file for one in found.values() for file, _ in one.files]
    if found.keys() == set(words) and not any(file.size_bytes for file in files):
        raise empty(files[0])

    def open_one(word: str) -> Source:
        if word.startswith(HUB):
            return HubSource(word, reading)
        if word not in found:
            return BuiltinSource(word.removeprefix(PREFIX), reading, one_of_several=len(words) > 1)
        name, files, holder = found[word]
        return FileSource(name, files, reading, one_of_several=len(words) > 1, holder=holder)

    sources = [open_one(word) for word in words]
    source = JoinedSources(sources, reading) if len(words) > 1 else sources[0]
    if source.is_single_text and errors == "skip":
        raise ConfigError(
            f"data.errors=skip: {source.name} is one running text, of which nothing can be left out but all of it; "
            "choose strict or replace"
        )
    return source


def _require_use(file_format: str, found: Collection[Found]) -> None:
    """Raise ConfigError where every file has a format by its own name."""
    named = [file.where for one in found for file, _ in one.files if kind_of(file.name) is not None]
    if len(named) == sum(len(one.files) for one in found):
        raise ConfigError(
            f"--format {file_format}: names the format of standard input and of files whose suffix names none, "
            f"and there is none of them{f' ({named[0]})' if named else ''}; leave it out, or rename the file"
        )
