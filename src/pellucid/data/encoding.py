"""Texts → ids in shards, in batches: what happens to one side of the split."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pellucid.data.manifest import SplitRecord
from pellucid.data.shards import ShardWriter
from pellucid.tokenizers import Tokenizer, special

EncodeBatch = Callable[[Sequence[str]], tuple[NDArray[np.uint32], NDArray[np.int64]]]
"""Such as `Tokenizer.encode_batch`: texts → ids in one flat array, and the offset of each text's ids in it."""

_BATCH_CHARACTERS = 1 << 22
_PIECE_CHARACTERS = 1 << 18
# Where a letter or digit stands before white space, every tokenizer that splits text into words before it
# merges (GPT-2, cl100k, o200k, …) has a border, as byte and character tokenizers have everywhere.
_WORD_END = re.compile(r"(?<=[^\W_])(?=\s)")


def pieces(text: str, start: int, stop: int, size: int = _PIECE_CHARACTERS) -> Iterator[str]:
    """Cut text[start:stop] at ends of words into pieces of about `size` characters.

    The ids of the pieces, joined, are the ids of the whole; where the text has no such place it is not cut.
    """
    while stop - start > size:
        border = _WORD_END.search(text, start + size, stop)
        if border is None:
            break
        yield text[start : border.start()]
        start = border.start()
    if start < stop:
        yield text[start:stop]


def encode_with_special(
    tokenizer: Tokenizer, texts: Sequence[str], *, num_threads: int = 1
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """As `tokenizer.encode_batch(texts)`, but of ids that `encode(texts[i], allow_special=True)` gives.

    For pairs: generation parses special tokens in the source that it is given, so learning must too.
    """
    pattern = special.pattern(tokenizer.special_tokens)
    divided = [list(special.split(text, pattern)) for text in texts]
    parts = [part for of_text in divided for part in of_text]
    ids, offsets = tokenizer.encode_batch([ordinary for _, ordinary, _ in parts], num_threads=num_threads)
    is_marked = np.array([bool(token) for _, _, token in parts], dtype=np.bool_)
    marks = [tokenizer.special_tokens[token] for _, _, token in parts if token]
    ids = np.insert(ids, offsets[1:][is_marked], np.array(marks, dtype=ids.dtype))
    ends = offsets[1:] + np.cumsum(is_marked)
    last_parts = np.cumsum([len(of_text) for of_text in divided], dtype=np.int64) - 1
    return ids, np.concatenate([offsets[:1], ends[last_parts]])


class SplitEncoder:
    """Gathers texts, encodes them in batches, and hands the ids to the writer.

    end_of_text_id: written after every document, where there is one. encoded: called after every batch with
    the bytes of the source that it took. Call `flush` after the last document.
    """

    def __init__(
        self,
        writer: ShardWriter,
        encode: EncodeBatch,
        *,
        end_of_text_id: int | None,
        encoded: Callable[[int], None],
    ) -> None:
        self.documents = 0
        self.bytes = 0
        self._writer, self._encode = writer, encode
        self._end_of_text_id, self._encoded = end_of_text_id, encoded
        self._clear()

    def _clear(self) -> None:
        self._texts: list[str] = []
        self._begins: list[bool] = []
        self._ends: list[bool] = []
        self._characters = self._source_bytes = 0

    def add(self, text: str, start: int, stop: int, *, source_bytes: int) -> None:
        """Add the document text[start:stop], which is not empty."""
        begins = True
        for piece in pieces(text, start, stop):
            if self._characters >= _BATCH_CHARACTERS:
                self.flush()
            self._texts.append(piece)
            self._begins.append(begins)
            self._ends.append(False)
            self._characters += len(piece)
            self._source_bytes += source_bytes * len(piece) // (stop - start)
            self.bytes += len(piece) if piece.isascii() else len(piece.encode())
            begins = False
        self._ends[-1] = True
        self.documents += 1

    def flush(self) -> None:
        """Encode and write what was gathered."""
        if not self._texts:
            return
        ids, offsets = self._encode(self._texts)
        begins, ends = np.array(self._begins), np.array(self._ends)
        starts = offsets[:-1]
        if self._end_of_text_id is not None:
            ids = np.insert(ids, offsets[1:][ends], self._end_of_text_id)
            starts = starts + np.cumsum(ends) - ends  # moved by the marks before each text
        self._writer.write(ids, starts[begins])
        self._encoded(self._source_bytes)
        self._clear()

    def record(self) -> SplitRecord:
        """What was written, once the writer is closed."""
        shards = tuple(self._writer.records)
        tokens = sum(shard.tokens for shard in shards)
        return SplitRecord(documents=self.documents, tokens=tokens, bytes=self.bytes, shards=shards)
