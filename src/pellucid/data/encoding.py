"""A block of documents → the ids of both sides of the split: what preparing does anywhere, in any process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pellucid.data.sources.base import Block, Document, Errors, Faults, Place
from pellucid.data.sources.text import WORD_END
from pellucid.errors import TokenizerError
from pellucid.tokenizers import Tokenizer, special

EncodeBatch = Callable[[Sequence[str]], tuple[NDArray[np.uint32], NDArray[np.int64]]]
"""Such as `Tokenizer.encode_batch`: texts → ids in one flat array, and the offset of each text's ids in it."""

DIGEST_BYTES = 16
"""How much of a document's SHA-256 tells it from others: two of 10^12 documents collide with odds of 10^-15."""

_BATCH_CHARACTERS = 1 << 22
_PIECE_CHARACTERS = 1 << 18


def pieces(text: str, start: int, stop: int, size: int = _PIECE_CHARACTERS) -> Iterator[str]:
    """Cut text[start:stop] at ends of words into pieces of about `size` characters.

    The ids of the pieces, joined, are the ids of the whole for a tokenizer that `cuts_at_words`; where the text
    has no such place it is not cut.
    """
    while stop - start > size:
        border = WORD_END.search(text, start + size, stop)
        if border is None:
            break
        yield text[start : border.start()]
        start = border.start()
    if start < stop:
        yield text[start:stop]


def encode_with_special(
    tokenizer: Tokenizer, encode: EncodeBatch, texts: Sequence[str]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """As `encode(texts)`, but of ids that `tokenizer.encode(texts[i], allow_special=True)` gives.

    For pairs: generation parses special tokens in the source that it is given, so learning must too.
    """
    pattern = special.pattern(tokenizer.special_tokens)
    divided = [list(special.split(text, pattern)) for text in texts]
    parts = [part for of_text in divided for part in of_text]
    ids, offsets = encode([ordinary for _, ordinary, _ in parts])
    is_marked = np.array([bool(token) for _, _, token in parts], dtype=np.bool_)
    marks = [tokenizer.special_tokens[token] for _, _, token in parts if token]
    ids = np.insert(ids, offsets[1:][is_marked], np.array(marks, dtype=ids.dtype))
    ends = offsets[1:] + np.cumsum(is_marked)
    last_parts = np.cumsum([len(of_text) for of_text in divided], dtype=np.int64) - 1
    return ids, np.concatenate([offsets[:1], ends[last_parts]])


def digest(texts: Sequence[bytes]) -> bytes:
    """SHA-256 of a document's text in UTF-8; a NUL stands between the source and the target of a pair."""
    return hashlib.sha256(texts[0] if len(texts) == 1 else b"\0".join(texts)).digest()


def content_hash(digest: bytes) -> int:
    """What decides a document's side: the first 8 bytes of its digest as a little-endian integer."""
    return int.from_bytes(digest[:8], "little")


@dataclass(frozen=True)
class Division:
    """Where the border between training and validation lies: see `manifest.SplitRule`."""

    rule: Literal["tail", "content-hash"]
    limit: int
    """`tail`: characters of the text that are for training. `content-hash`: hashes below it are for validation."""


@dataclass(frozen=True)
class Encoding:
    """All that decides the ids of a block, besides the tokenizer."""

    dtype: str
    vocab_size: int
    end_of_text_id: int | None
    """Written after every document, where there is one."""
    division: Division
    parses_special: bool
    errors: Errors


@dataclass(frozen=True, eq=False)
class EncodedSide:
    """What one side of the split gets from a block."""

    ids: NDArray[np.unsignedinteger[Any]]
    starts: NDArray[np.int64]
    """Where in `ids` documents begin."""
    text_bytes: int
    digests: NDArray[np.void]
    """One for each document, or pair; none for a running text."""
    document_bytes: NDArray[np.int64]
    """The UTF-8 bytes of each document, or pair; none for a running text."""


@dataclass(frozen=True, eq=False)
class EncodedBlock:
    """A block's ids, and where the source goes on after it."""

    end: Place
    source_bytes: int
    train: EncodedSide
    val: EncodedSide
    faults: Faults


@dataclass
class _Gathered:
    """Texts of one side, until they are encoded."""

    texts: list[str] = field(default_factory=list[str])
    begins: list[bool] = field(default_factory=list[bool])
    ends: list[bool] = field(default_factory=list[bool])
    digests: list[bytes] = field(default_factory=list[bytes])
    document_bytes: list[int] = field(default_factory=list[int])
    text_bytes: int = 0

    def add(self, text: str, *, begins: bool, size: int, cuts: bool) -> None:
        parts = [text] if not cuts or len(text) <= _PIECE_CHARACTERS else list(pieces(text, 0, len(text)))
        self.texts += parts
        self.begins += [begins] + [False] * (len(parts) - 1)
        self.ends += [False] * (len(parts) - 1) + [True]
        self.text_bytes += size


class BlockEncoder:
    """Encodes blocks, all in the same way. `encode`: the tokenizer's `encode_batch`, or a faster equal."""

    def __init__(self, tokenizer: Tokenizer, settings: Encoding, encode: EncodeBatch) -> None:
        self._settings = settings
        self._cuts = tokenizer.cuts_at_words
        self._encode = partial(encode_with_special, tokenizer, encode) if settings.parses_special else encode

    def __call__(self, block: Block) -> EncodedBlock:
        """Read and encode a block. Raises DataError for bad input, TokenizerError for text without ids."""
        faults = Faults(self._settings.errors)
        train, val = _Gathered(), _Gathered()
        divide = self._divide_tail if self._settings.division.rule == "tail" else self._divide_by_hash
        for document in block.documents(faults):
            divide(document, train, val)
        return EncodedBlock(block.end, block.source_bytes, self._side(train), self._side(val), faults)

    def _divide_tail(self, document: Document, train: _Gathered, val: _Gathered) -> None:
        text, first = document.text, document.first_character
        border = min(max(self._settings.division.limit - first, 0), len(text))
        for side, part, begins in (
            (train, text[:border], first == 0),
            (val, text[border:], first <= self._settings.division.limit),
        ):
            if part:
                side.add(part, begins=begins, size=len(part.encode()), cuts=self._cuts)

    def _divide_by_hash(self, document: Document, train: _Gathered, val: _Gathered) -> None:
        encoded = [text.encode() for text in document.texts]
        whole = digest(encoded)
        side = val if content_hash(whole) < self._settings.division.limit else train
        for text, data in zip(document.texts, encoded, strict=True):
            side.add(text, begins=True, size=len(data), cuts=self._cuts)
        side.digests.append(whole[:DIGEST_BYTES])
        side.document_bytes.append(sum(map(len, encoded)))

    def _side(self, gathered: _Gathered) -> EncodedSide:
        ids, offsets = self._encode_in_batches(gathered.texts)
        if len(ids) and int(ids.max()) >= self._settings.vocab_size:
            raise TokenizerError(
                f"the tokenizer gave id {int(ids.max()):,}, its vocabulary has {self._settings.vocab_size:,} entries"
            )
        begins, ends = np.array(gathered.begins, dtype=np.bool_), np.array(gathered.ends, dtype=np.bool_)
        starts = offsets[:-1]
        if self._settings.end_of_text_id is not None:
            ids = np.insert(ids, offsets[1:][ends], self._settings.end_of_text_id)
            starts = starts + np.cumsum(ends) - ends  # moved by the marks before each text
        return EncodedSide(
            ids=ids.astype(np.dtype(self._settings.dtype).newbyteorder("<")),
            starts=starts[begins],
            text_bytes=gathered.text_bytes,
            digests=np.frombuffer(b"".join(gathered.digests), dtype=f"V{DIGEST_BYTES}"),
            document_bytes=np.array(gathered.document_bytes, dtype=np.int64),
        )

    def _encode_in_batches(self, texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """As `encode(texts)`, some millions of characters at a time, so that memory does not grow with them."""
        parts: list[NDArray[np.uint32]] = []
        offsets = [np.zeros(1, dtype=np.int64)]
        first = count = 0
        for index, text in enumerate(texts):
            count += len(text)
            if count >= _BATCH_CHARACTERS or index == len(texts) - 1:
                ids, ends = self._encode(texts[first : index + 1])
                parts.append(ids)
                offsets.append(ends[1:] + offsets[-1][-1])
                first, count = index + 1, 0
        return np.concatenate(parts or [np.empty(0, dtype=np.uint32)]), np.concatenate(offsets)
