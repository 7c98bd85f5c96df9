"""The contents of a file that is stored plain or compressed: .gz, .zst and .xz."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from pellucid.data.sources.stored import StoredFile, read_all
from pellucid.errors import DataError
from pellucid.runtime.extras import require

COMPRESSIONS = (".gz", ".zst", ".xz")

_STORED_BYTES = 1 << 12  # at once: what is stored so small can be thousands of times as much
_SKIPPED_BYTES = 1 << 20


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


@dataclass(frozen=True)
class _Codec:
    new: Callable[[], _Decompressor]
    faults: tuple[type[Exception], ...]


def require_codec(compression: str | None) -> None:
    """Raise MissingLibraryError where the compression needs a library that is not installed."""
    if compression is not None:
        _codec(compression)


def _codec(compression: str) -> _Codec:
    if compression == ".gz":
        return _Codec(lambda: zlib.decompressobj(wbits=31), (zlib.error,))
    if compression == ".xz":
        return _Codec(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ), (lzma.LZMAError,))
    zstandard: Any = require("zstandard", extra="data", purpose="reading a .zst file")
    return _Codec(
        lambda: zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj(), (zstandard.ZstdError,)
    )


class Contents:
    """What a file holds once it is decompressed, from its beginning on; a context manager.

    A file may be several compressed streams, one after the other, with zeros behind. Raises DataError that
    says after which byte a file is broken or ends too early: libraries pass over an early end in silence.
    """

    def __init__(self, file: StoredFile, compression: str | None) -> None:
        self._file, self._compression = file, compression
        self._codec = None if compression is None else _codec(compression)
        self._raw: BinaryIO = file.open()
        self._stream: _Decompressor | None = None
        self._waiting = b""
        self._ready = bytearray()
        self.position = 0

    def __enter__(self) -> Contents:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    @property
    def stored_position(self) -> int:
        """How many of the stored bytes were taken so far."""
        return self._raw.tell()

    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer only at the end."""
        if self._codec is None:
            data = read_all(self._raw, size)
        else:
            while len(self._ready) < size and self._fill(self._codec):
                pass
            data = bytes(memoryview(self._ready)[:size])
            del self._ready[:size]
        self.position += len(data)
        return data

    def skip_to(self, position: int) -> None:
        """Go forward to a byte; plain files are not read for it."""
        if self._codec is None:
            self._raw.seek(position)
            self.position = position
        while self.position < position and self.read(min(_SKIPPED_BYTES, position - self.position)):
            pass

    def _fill(self, codec: _Codec) -> bool:
        """Decompress some more; False at the end."""
        data = self._waiting or read_all(self._raw, _STORED_BYTES)
        self._waiting = b""
        if not data:
            if self._stream is not None:
                raise self._broken("ends too early")
            return False
        if self._stream is None:
            data = data if self.position == 0 and not self._ready else data.lstrip(b"\0")
            if not data:
                return True
            self._stream = codec.new()
        try:
            self._ready += self._stream.decompress(data)
        except codec.faults as error:
            raise self._broken(f"is broken ({error})") from None
        if self._stream.eof:
            self._waiting = self._stream.unused_data
            self._stream = None
        return True

    def _broken(self, how: str) -> DataError:
        done = self.position + len(self._ready)
        return DataError(
            f"{self._file.where}: the {self._compression} file {how}, after {done:,} decompressed bytes; fetch or "
            "write it again"
        )
