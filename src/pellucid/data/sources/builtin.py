"""The corpora that come with the package, so that a first run needs no download."""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import resources

from pellucid.config import nearest
from pellucid.data.sources.base import Document, SourceFile, SourceRecord
from pellucid.errors import DataError

PREFIX = "builtin:"


@dataclass(frozen=True)
class _Corpus:
    file: str
    size_bytes: int
    sha256: str


CORPORA = {
    "shakespeare": _Corpus(
        file="shakespeare9.txt",
        size_bytes=1_188_790,
        sha256="e733a2aeeab0dd6a27c155d9fea3e2090130f7620825dac7fd69e725dee6249b",
    ),
}


class BuiltinSource:
    """A corpus shipped with the package, as one running text: `builtin:shakespeare` is nine plays.

    Raises DataError for an unknown name, and when the packaged file is damaged.
    """

    is_single_text = True

    def __init__(self, name: str) -> None:
        if name not in CORPORA:
            known = ", ".join(PREFIX + corpus for corpus in sorted(CORPORA))
            raise DataError(
                f"{PREFIX}{name}: no such built-in corpus{nearest(name, CORPORA)} (there are: {known})"
            )
        self.name = name
        self._corpus = CORPORA[name]

    @property
    def size_bytes(self) -> int:
        return self._corpus.size_bytes

    def record(self) -> SourceRecord:
        file = SourceFile(name=self._corpus.file, size_bytes=self.size_bytes, sha256=self._corpus.sha256)
        return SourceRecord(name=self.name, files=(file,))

    def documents(self) -> Iterator[Document]:
        yield Document(self._text, where=PREFIX + self.name, source_bytes=self.size_bytes)

    @cached_property
    def _text(self) -> str:
        packed = resources.files("pellucid.data.sources") / "corpora" / f"{self._corpus.file}.xz"
        try:
            data = lzma.decompress(packed.read_bytes())
        except (OSError, lzma.LZMAError, EOFError) as error:
            raise DataError(
                f"{packed}: the built-in corpus cannot be read ({error}); reinstall pellucid"
            ) from None
        if hashlib.sha256(data).hexdigest() != self._corpus.sha256:
            raise DataError(f"{packed}: the built-in corpus was altered; reinstall pellucid")
        return data.decode("utf-8")
