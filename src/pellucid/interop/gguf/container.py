"""The container: metadata by key and tensors by name, read strictly.

Every count and length of a file is held against the bytes that are there before anything is made of it: a truncated
or hostile file is refused, and none makes more than it has. (The gguf package's own reader trusts its counts.)
Layout: magic, version, numbers of tensors and of keys; the keys with their values; name, shape, type and offset of each
tensor; then, aligned, their data. Source: docs/gguf.md of github.com/ggml-org/ggml.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.errors import CheckpointError
from pellucid.runtime.extras import require

MAGIC, VERSIONS, ALIGNMENT = b"GGUF", (2, 3), 32
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies, and as what."""

    shape: tuple[int, ...]
    """[out, in], as torch has it; files say it the other way round."""
    number_format: int
    """ggml's number for it: F32 is 0, Q8_0 is 8."""
    data: memoryview

    def dequantized(self, name: str) -> Tensor:
        """Its numbers in float32. Raises CheckpointError for a format that the gguf package cannot compute back."""
        gguf = _gguf()
        kind = gguf.GGMLQuantizationType(self.number_format)
        rows = np.frombuffer(self.data, dtype=np.uint8).reshape(math.prod(self.shape[:-1]), -1)
        try:
            numbers = gguf.quants.dequantize(rows, kind)
        except NotImplementedError:
            raise CheckpointError(f"{name}: numbers in the format {kind.name} cannot be read here") from None
        return torch.from_numpy(numbers.astype(np.float32)).reshape(self.shape)


@dataclass(frozen=True)
class Container:
    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]


def read_container(path: Path) -> Container:
    """Raises CheckpointError for a file that is missing, truncated, altered or no GGUF file."""
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # a directory; an empty file
        raise CheckpointError(f"{path}: no GGUF file: {error}") from None
    try:
        return _parse(_Cursor(memoryview(content)))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _parse(cursor: _Cursor) -> Container:
    if bytes(cursor.take(4)) != MAGIC:
        raise CheckpointError("no GGUF file: it does not begin with 'GGUF'")
    version, num_tensors, num_keys = cursor.numbers("IQQ")
    if version not in VERSIONS:
        raise CheckpointError(
            f"GGUF of version {version}, where {' and '.join(map(str, VERSIONS))} can be read"
        )
    metadata: dict[str, Any] = {}
    for _ in range(num_keys):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.number("I"))
    places = [_tensor_info(cursor) for _ in range(num_tensors)]
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise CheckpointError(f"general.alignment: must be a whole number above 0, not {alignment!r}")
    cursor.at += -cursor.at % alignment
    start = cursor.at
    tensors: dict[str, StoredTensor] = {}
    for name, shape, number_format, offset in places:
        if name in tensors:
            raise CheckpointError(f"{name}: is there twice")
        cursor.at = start + offset
        data = cursor.take(_size(name, shape, number_format), what=name)
        tensors[name] = StoredTensor(shape, number_format, data)
    return Container(metadata, tensors)


def _tensor_info(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.string()
    num_dimensions = cursor.number("I")
    if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
        raise CheckpointError(
            f"{name}: {num_dimensions} dimensions, where 1 to {_MAX_DIMENSIONS} are possible"
        )
    shape = cursor.numbers("Q" * num_dimensions)
    number_format, offset = cursor.numbers("IQ")
    return name, shape[::-1], number_format, offset


def _size(name: str, shape: tuple[int, ...], number_format: int) -> int:
    """Bytes of a tensor."""
    known = {int(kind): size for kind, size in _gguf().GGML_QUANT_SIZES.items()}
    if number_format not in known:
        raise CheckpointError(f"{name}: its numbers are in format {number_format}, which is not known here")
    block, block_bytes = known[number_format]
    if min(shape) < 1 or shape[-1] % block:
        raise CheckpointError(f"{name}: shape {list(shape)} does not fit blocks of {block} numbers")
    return math.prod(shape) // block * block_bytes


def _gguf() -> Any:
    return require("gguf", extra="export", purpose="reading GGUF")


class _Cursor:
    """A place in the file that only moves over bytes that are there."""

    def __init__(self, content: memoryview) -> None:
        self.content, self.at = content, 0

    def take(self, size: int, *, what: str = "the header") -> memoryview:
        if size > len(self.content) - self.at:
            raise CheckpointError(
                f"truncated or altered: {what} needs {size:,} bytes at {self.at:,}, and the file ends at "
                f"{len(self.content):,}"
            )
        taken = self.content[self.at : self.at + size]
        self.at += size
        return taken

    def numbers(self, letters: str) -> tuple[Any, ...]:
        """Little-endian numbers, by the letters of `struct`."""
        form = "<" + letters
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def number(self, letter: str) -> Any:
        return self.numbers(letter)[0]

    def string(self) -> str:
        data = bytes(self.take(self.number("Q")))
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"altered: a text of the header is not UTF-8: {error}") from None

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            kind, count = self.numbers("IQ")
            if kind in _SCALARS:
                letter = _SCALARS[kind]
                data = self.take(count * struct.calcsize(letter))
                return list(struct.unpack(f"<{count}{letter}", data))
            if kind == _STRING:
                return [self.string() for _ in range(count)]
        raise CheckpointError(f"altered: a value of the header has the type {kind}, which is not known here")
