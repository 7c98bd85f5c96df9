"""Where text comes from. `open_source` turns the paths a user writes into a source of documents."""

from __future__ import annotations

import os

from pellucid.data.sources.base import (
    Document,
    JoinedSources,
    PairFields,
    Source,
    SourceFile,
    SourceRecord,
    texts,
)
from pellucid.data.sources.builtin import PREFIX, BuiltinSource
from pellucid.data.sources.files import PAIRS_WANTED, FileSource
from pellucid.errors import DataError

__all__ = ["Document", "PairFields", "Source", "SourceFile", "SourceRecord", "open_source", "texts"]


def open_source(
    *paths: str | os.PathLike[str], text_field: str = "text", pair_fields: PairFields | None = None
) -> Source:
    """The source behind one path or several: `builtin:NAME`, a .txt or .jsonl file, or a folder of them.

    text_field: the field of a .jsonl line that holds the text. pair_fields: the fields that hold source and
    target, for paired data, which is read from .jsonl files alone.
    Raises DataError when a path is missing, empty, or of a kind that cannot be read.
    """
    if not paths:
        raise DataError("no data: name a .txt or .jsonl file, a folder of them, or builtin:shakespeare")
    sources = [_open_one(os.fspath(path), text_field, pair_fields) for path in paths]
    return sources[0] if len(sources) == 1 else JoinedSources(sources)


def _open_one(path: str, text_field: str, pair_fields: PairFields | None) -> Source:
    if not path.startswith(PREFIX):
        return FileSource(path, text_field=text_field, pair_fields=pair_fields)
    if pair_fields is not None:
        raise DataError(f"{path}: is one running text and has no pairs; {PAIRS_WANTED}")
    return BuiltinSource(path.removeprefix(PREFIX))
