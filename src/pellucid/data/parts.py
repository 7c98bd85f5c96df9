"""A part: the encoded blocks of one portion of a source, in a file that another machine reads.

A line of JSON (`_Head`), then for each block a line of JSON (`_BlockHead`) and its arrays, one behind the other:
of train and then val the ids, starts, digests and document bytes, little-endian. Last a line of JSON (`_Tail`).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pellucid.config import Config, from_tree
from pellucid.data.encoding import DIGEST_BYTES, EncodedBlock, EncodedSide
from pellucid.data.manifest import FORMAT_VERSION
from pellucid.data.sources.base import Errors, Faults, Place
from pellucid.errors import ConfigError, DataError
from pellucid.runtime.files import file_written_aside

_STARTS = np.dtype("<i8")
_DIGESTS = np.dtype(f"V{DIGEST_BYTES}")


@dataclass(frozen=True)
class Part:
    """One part of a job."""

    path: Path
    job: str
    """What determines every part of the job: parts of another one are not taken for its own."""
    number: int
    dtype: str
    """Of the ids."""
    errors: Errors

    def is_there(self) -> bool:
        """Whether it was written to its end, for this job."""
        try:
            with self.path.open("rb") as file:
                return file.readline() == self._head
        except FileNotFoundError:
            return False

    def write(self, blocks: Iterable[tuple[Place, EncodedBlock]]) -> None:
        """Write (where it begins, block) after block; the file appears when it is whole."""
        count = 0
        with file_written_aside(self.path) as file:
            file.write(self._head)
            for begin, block in blocks:
                _write_block(file, begin, block)
                count += 1
            file.write(_line(_Tail(blocks=count)))

    def read(self) -> Generator[tuple[Place, EncodedBlock]]:
        """(where it begins, block) in order, one in memory at a time. Raises DataError for a damaged part."""
        if not self.is_there():
            raise DataError(f"{self.path}: missing, or of another preparation; run the encoding again")
        with self.path.open("rb") as file:
            file.readline()
            count = 0
            while True:
                try:
                    line: dict[str, Any] = json.loads(file.readline())
                    if "blocks" in line:
                        if from_tree(_Tail, line).blocks != count:
                            raise ValueError("a block is missing")
                        return
                    head = from_tree(_BlockHead, line)
                    block = _read_block(file, head, self)
                except (ValueError, ConfigError) as error:
                    raise DataError(
                        f"{self.path}: damaged in or behind block {count} ({error}); remove the file and run the "
                        "encoding again"
                    ) from None
                yield Place(*head.begin), block
                count += 1

    @property
    def _head(self) -> bytes:
        return _line(_Head(job=self.job, part=self.number))


class _Head(Config):
    format_version: int = FORMAT_VERSION
    job: str
    """`Part.job`."""
    part: int


class _SideHead(Config):
    """How long the arrays of one side are."""

    ids: int
    starts: int
    documents: int
    text_bytes: int


class _BlockHead(Config):
    begin: tuple[int, int]
    end: tuple[int, int]
    source_bytes: int
    train: _SideHead
    val: _SideHead
    left_out: dict[str, int] = Field(default_factory=dict[str, int])
    first_left_out: dict[str, str] = Field(default_factory=dict[str, str])
    crc32: int
    """Of the bytes of the arrays."""


class _Tail(Config):
    blocks: int


def _line(value: Config) -> bytes:
    return value.model_dump_json().encode() + b"\n"


def _write_block(part: IO[bytes], begin: Place, block: EncodedBlock) -> None:
    arrays = [array.tobytes() for side in (block.train, block.val) for array in _arrays(side)]
    crc32 = 0
    for array in arrays:
        crc32 = zlib.crc32(array, crc32)
    head = _BlockHead(
        begin=begin,
        end=block.end,
        source_bytes=block.source_bytes,
        train=_lengths(block.train),
        val=_lengths(block.val),
        left_out=dict(block.faults.counts),
        first_left_out=block.faults.first,
        crc32=crc32,
    )
    part.write(_line(head))
    part.writelines(arrays)


def _arrays(side: EncodedSide) -> tuple[NDArray[Any], ...]:
    return side.ids, side.starts.astype(_STARTS), side.digests, side.document_bytes.astype(_STARTS)


def _lengths(side: EncodedSide) -> _SideHead:
    return _SideHead(
        ids=len(side.ids), starts=len(side.starts), documents=len(side.digests), text_bytes=side.text_bytes
    )


def _read_block(file: IO[bytes], head: _BlockHead, part: Part) -> EncodedBlock:
    ids_dtype = np.dtype(part.dtype).newbyteorder("<")
    crc32 = 0

    def array(length: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        nonlocal crc32
        data = file.read(length * dtype.itemsize)
        crc32 = zlib.crc32(data, crc32)
        return np.frombuffer(data, dtype)

    train, val = (
        EncodedSide(
            ids=array(side.ids, ids_dtype),
            starts=array(side.starts, _STARTS),
            text_bytes=side.text_bytes,
            digests=array(side.documents, _DIGESTS),
            document_bytes=array(side.documents, _STARTS),
        )
        for side in (head.train, head.val)
    )
    if crc32 != head.crc32:
        raise ValueError("its checksum differs")
    faults = Faults(part.errors)
    faults.counts.update(head.left_out)
    faults.first |= head.first_left_out
    return EncodedBlock(Place(*head.end), head.source_bytes, train, val, faults)
