"""The paths that a user writes → files: one file, a folder, a pattern, or standard input."""

from __future__ import annotations

import glob
import json
import logging
import os
import shutil
import sys
import tempfile
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, NamedTuple

from pellucid.config import nearest
from pellucid.data.sources.compression import COMPRESSIONS
from pellucid.data.sources.content import empty
from pellucid.data.sources.formats import Kind, kind_of
from pellucid.data.sources.stored import LocalFile, StoredFile
from pellucid.errors import DataError
from pellucid.runtime.files import storage_errors

STANDARD_INPUT = "-"

READABLE = (
    "a .txt or .md file (one document), a .jsonl file (one JSON object with the text a line), or .json, .csv, .tsv "
    "or .parquet"
)


_log = logging.getLogger(__name__)


class Found(NamedTuple):
    """Files of one path, in the order in which they are read."""

    name: str
    """The last part of the path."""
    files: tuple[tuple[StoredFile, Kind], ...]
    holder: object = None
    """What keeps the files alive."""


def find(path: str, file_format: str | None = None) -> Found:
    """The files behind a path. Passed over are files that no format reads, those that are hidden or in a hidden
    folder, and folders below it that `pellucid prepare` made or is making.

    Raises DataError when there is none, when one cannot be read or has a name that is not UTF-8, and when one is
    empty of a kind that cannot be.
    """
    if path == STANDARD_INPUT:
        return _standard_input(file_format)
    _require_utf8(path)
    root = Path(path).expanduser()
    reads_unknown = file_format
    try:
        if root.is_dir():
            base, there, reads_unknown = root, root.rglob("*"), None
        elif not root.exists() and glob.has_magic(str(root)):
            base = _fixed_part(root)
            pattern = root.relative_to(base).as_posix()
            there = base.glob(f"{pattern}/*" if pattern.endswith("**") else pattern)
        else:
            base, there = root.parent, iter([_one(root, file_format)])
        is_one = not root.is_dir() and root.exists()
        names = {file.relative_to(base).as_posix(): file for file in there if file.is_file()}
        made = _prepared(names)
        visible = sorted(name for name in names if is_one or not (_is_hidden(name) or made & _folders(name)))
        kinds = [(name, kind) for name in visible if (kind := kind_of(name, reads_unknown)) is not None]
        if not kinds:
            raise _nothing(root, visible)
        files = tuple((_local(names[name], name, kind), kind) for name, kind in kinds)
    except OSError as error:
        raise DataError(f"{error.filename or root}: cannot be read: {error.strerror}") from error
    return Found(root.absolute().name, files)


def _one(path: Path, file_format: str | None) -> Path:
    """A path that was named and is no folder. Raises DataError when it cannot be read."""
    if not path.exists():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{path}: no such file or folder{nearest(path.name, beside)}")
    if not path.is_file():
        raise DataError(f"{path}: neither a file nor a folder; name {READABLE}, or a folder of them")
    if kind_of(path.name, file_format) is None:
        suffixes = "".join(path.suffixes[-2:]) if path.suffix.lower() in COMPRESSIONS else path.suffix
        came = f"a {suffixes} file" if suffixes else "a file without a suffix"
        raise DataError(
            f"{path}: {came} cannot be read; convert it to {READABLE}, or name the format that it has with --format"
        )
    return path


def _local(path: Path, name: str, kind: Kind) -> LocalFile:
    _require_utf8(str(path))
    file = LocalFile(path, name, str(path), path.stat().st_size)
    if file.size_bytes == 0 and not (kind.may_be_empty and kind.compression is None):
        raise empty(file)
    return file


def _require_utf8(path: str) -> None:
    """Raise DataError where a name has bytes that are no text, which no record could hold."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise DataError(f"{path!a}: the name is not UTF-8; rename it") from None


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _folders(name: str) -> set[str]:
    """The folders above a file, as far as its name says."""
    return {folder.as_posix() for folder in PurePosixPath(name).parents} - {"."}


def _prepared(names: Mapping[str, Path]) -> set[str]:
    """The folders that `pellucid prepare` made or is making, by the file in them that says so."""
    from pellucid.data.manifest import JOURNAL, MANIFEST, Recipe  # which imports the package of this file

    needed = {name for name, field in Recipe.model_fields.items() if field.is_required()}
    found: set[str] = set()
    for name, file in names.items():
        folder = PurePosixPath(name).parent.as_posix()
        if file.name not in (MANIFEST, JOURNAL) or folder in {".", *found}:
            continue
        try:
            tree: Any = json.loads(file.read_bytes())
        except (OSError, ValueError):
            continue
        recipe: Any = tree.get("recipe", tree) if isinstance(tree, dict) else None
        if isinstance(recipe, dict) and needed <= recipe.keys():
            found.add(folder)
            _log.info("%s: made by `pellucid prepare`; passed over", file.parent)
    return found


def _fixed_part(pattern: Path) -> Path:
    """The folder above the first part of a pattern that can stand for several names."""
    while glob.has_magic(str(pattern)):
        pattern = pattern.parent
    return pattern


def _nothing(root: Path, names: Sequence[str]) -> DataError:
    where = "in this folder" if root.is_dir() else "fits this pattern"
    kinds = Counter(PurePath(name).suffix or "without a suffix" for name in names)
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)) or "nothing"
    return DataError(
        f"{root}: no .txt or .jsonl file {where} (found: {found}), and none of another kind that can be read; convert "
        f"to {READABLE}"
    )


def _standard_input(file_format: str | None) -> Found:
    """Standard input as a temporary file, which goes when nothing holds it any more."""
    kind = kind_of("-", file_format or "txt")
    assert kind is not None
    spool = _Spool()
    path = spool.folder / "stdin"
    with storage_errors(path), path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
    size = path.stat().st_size
    if size == 0:
        raise DataError("standard input: is empty; pipe text into it")
    return Found("stdin", ((LocalFile(path, "stdin", "standard input", size), kind),), spool)


class _Spool:
    """A temporary folder that goes when nothing holds this any more, and at the end of the process."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pellucid-"))
        weakref.finalize(self, _remove, self.folder, os.getpid())


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # and not in a process that was forked from it
        shutil.rmtree(folder, ignore_errors=True)
