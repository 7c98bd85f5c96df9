"""The texts that a user names for scoring → documents, each with the part of the text that it belongs to. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pellucid.data.manifest import is_prepared
from pellucid.data.sources import open_source
from pellucid.data.sources.base import Faults
from pellucid.data.sources.folders import find
from pellucid.errors import DataError
from pellucid.evaluate.documents import Passage

MOST_FILES = 20
"""Files of a folder without sub-folders are its parts, unless there are more of them."""
_NAMED = re.compile(r"([^=/\\:]*)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class TextFormat:
    """How files become documents: see `open_source`."""

    text_field: str = "text"
    document_marker: str | None = None


class Part(NamedTuple):
    """One --data of the user's."""

    name: str
    """Empty where none was given."""
    path: str


def parts(words: Sequence[str]) -> list[Part]:
    """PATH or NAME=PATH, each. A path that exists is one, whatever characters it has. Raises DataError for others."""
    found = [_part(word) for word in words]
    names = [part.name or part.path for part in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise DataError(f"--data: {min(twice)!r} is named twice; give each part its own name, NAME=PATH")
    if len(found) > 1 and (prepared := [part.path for part in found if is_prepared(Path(part.path))]):
        raise DataError(
            f"{prepared[0]}: was prepared, and is scored alone; name raw texts where there are several --data"
        )
    return found


def title(words: Sequence[str]) -> str:
    """The text for people."""
    return " + ".join(part.name or part.path for part in parts(words))


def open_passages(words: Sequence[str], form: TextFormat) -> Iterator[Passage]:
    """All documents, in order. Of several paths each is a part; of one folder its sub-folders are, or its files.

    Raises DataError for what cannot be read, before the first document where that can be known.
    """
    named = parts(words)
    opened = [
        open_source(part.path, text_field=form.text_field, document_marker=form.document_marker)
        for part in named
    ]
    of_files = _folder_parts(named[0].path) if len(named) == 1 else {}

    def read() -> Iterator[Passage]:
        for part, source in zip(named, opened, strict=True):
            whole, faults = "" if len(named) == 1 else part.name or part.path, Faults(source.reading.errors)
            for block in source.blocks(whole=True):
                domain = of_files.get(block.begin.file, whole)
                for document in block.documents(faults):
                    yield from (Passage(text, domain, document.where) for text in document.texts)

    return read()


def _folder_parts(path: str) -> dict[int, str]:
    """The part to which each file of a folder belongs, by its number; none where there is but one part."""
    if not Path(path).is_dir():
        return {}
    files = [file.name for file, _ in find(path).files]
    has_folders = any("/" in name for name in files)
    if len({name.split("/")[0] for name in files}) < 2 or (not has_folders and len(files) > MOST_FILES):
        return {}
    return {number: name.split("/")[0] for number, name in enumerate(files)}


def _part(word: str) -> Part:
    named = None if Path(word).exists() else _NAMED.fullmatch(word)
    if named is None:
        return Part("", word)
    name, path = (text.strip() for text in named.groups())
    if not name or not path:
        raise DataError(
            f"--data {word}: wanted PATH, or NAME=PATH for a part with a name, e.g. code=data/code.jsonl"
        )
    return Part(name, path)
