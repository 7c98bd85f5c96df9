"""A file as it is stored, wherever it lies: what a format reads from."""

from __future__ import annotations

import io
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from pellucid.errors import DataError
from pellucid.runtime.files import sha256_file


class StoredFile(Protocol):
    """A small value that can be pickled, and opened in any process."""

    @property
    def name(self) -> str:
        """For the record: relative to what was named, with forward slashes."""
        ...

    @property
    def where(self) -> str:
        """For messages: what the user knows it by."""
        ...

    @property
    def size_bytes(self) -> int:
        """Of its bytes as they are stored."""
        ...

    def open(self) -> BinaryIO:
        """Its bytes as they are stored, for reading from any position. May raise OSError."""
        ...

    def sha256(self) -> str:
        """Of its bytes as they are stored, as hex: computed, or taken from whoever vouches for it."""
        ...


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine."""

    path: Path
    name: str
    where: str
    size_bytes: int

    def open(self) -> BinaryIO:
        return self.path.open("rb")

    def sha256(self) -> str:
        with reading(self):
            return sha256_file(self.path)


@contextmanager
def reading(file: StoredFile) -> Generator[None]:
    """Turn the operating system's refusals to read into a DataError that names the file."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{file.where}: cannot be read: {error.strerror or error}") from error


def read_all(stream: BinaryIO, size: int) -> bytes:
    """The next `size` bytes; fewer only at the end, also from a stream that gives less than it is asked for."""
    data = stream.read(size)
    if not data or len(data) == size:
        return data
    parts = io.BytesIO()
    while data:
        parts.write(data)
        data = stream.read(size - parts.tell()) if parts.tell() < size else b""
    return parts.getvalue()
