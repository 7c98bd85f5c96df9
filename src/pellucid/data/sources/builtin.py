"""The corpora that come with the package, so that a first run needs no download."""

from __future__ import annotations

import hashlib
import io
import lzma
from dataclasses import dataclass
from importlib import resources
from typing import BinaryIO

from pellucid.config import nearest
from pellucid.data.sources.base import Reading
from pellucid.data.sources.files import PAIRS_WANTED, FileSource
from pellucid.data.sources.formats import Kind
from pellucid.errors import DataError

PREFIX = "builtin:"


@dataclass(frozen=True)
class _Corpus:
    """A packaged text, as a stored file that is not compressed."""

    corpus: str
    name: str
    size_bytes: int
    known_sha256: str

    @property
    def where(self) -> str:
        return PREFIX + self.corpus

    def sha256(self) -> str:
        return self.known_sha256

    def open(self) -> BinaryIO:
        packed = resources.files("pellucid.data.sources") / "corpora" / f"{self.name}.xz"
        try:
            data = lzma.decompress(packed.read_bytes())
        except (OSError, lzma.LZMAError, EOFError) as error:
            raise DataError(
                f"{packed}: the built-in corpus cannot be read ({error}); reinstall pellucid"
            ) from None
        if hashlib.sha256(data).hexdigest() != self.known_sha256:
            raise DataError(f"{packed}: the built-in corpus was altered; reinstall pellucid")
        return io.BytesIO(data)


CORPORA = {
    "shakespeare": _Corpus(
        corpus="shakespeare",
        name="shakespeare9.txt",
        size_bytes=1_188_790,
        known_sha256="e733a2aeeab0dd6a27c155d9fea3e2090130f7620825dac7fd69e725dee6249b",
    ),
}


class BuiltinSource(FileSource):
    """A corpus shipped with the package, as one running text: `builtin:shakespeare` is nine plays.

    Raises DataError for an unknown name, and when the packaged file is damaged.
    """

    def __init__(self, name: str, reading: Reading | None = None, *, one_of_several: bool = False) -> None:
        reading = reading or Reading()
        if name not in CORPORA:
            known = ", ".join(PREFIX + corpus for corpus in sorted(CORPORA))
            raise DataError(
                f"{PREFIX}{name}: no such built-in corpus{nearest(name, CORPORA)} (there are: {known})"
            )
        if reading.pair_fields is not None:
            raise DataError(f"{PREFIX}{name}: is one running text and has no pairs; {PAIRS_WANTED}")
        super().__init__(name, [(CORPORA[name], Kind(".txt"))], reading, one_of_several=one_of_several)
