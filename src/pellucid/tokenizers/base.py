"""What every tokenizer is (`Tokenizer`), and the part they all share (`BaseTokenizer`)."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import TokenizerError
from pellucid.tokenizers import special, stored

Ids = Sequence[int] | NDArray[np.integer[Any]]
"""A flat sequence of token ids: a list, a tuple, or an integer array [length]."""

Corpus = Callable[[], Iterable[str]]
"""Gives the texts a tokenizer is made from, afresh at each call."""


class Tokenizer(Protocol):
    """str ⇄ ids. Ids are whole numbers in [0, vocab_size); some of that range may name no token."""

    kind: str
    """The name of its config in the union: byte, char, gpt2, …"""
    vocab_size: int
    """The largest id plus one: the number of rows a model's embedding needs."""
    special_tokens: Mapping[str, int]
    """Its own special tokens and the added ones, with their ids."""
    end_of_text_id: int | None
    """The id that separates documents, if there is one."""
    fingerprint: str
    """SHA-256, in hex, of everything that can change which ids a text becomes."""
    cuts_at_words: bool
    """Whether a text may be cut where a letter or a digit stands before white space, and the ids of the parts,
    joined, are those of the whole."""

    def encode(self, text: str, *, allow_special: bool = False) -> NDArray[np.uint32]:
        """The ids of a text, [length]. Special tokens in it are ordinary text unless `allow_special`.

        Raises TokenizerError for half a surrogate pair, and for what this tokenizer has no ids for.
        """
        ...

    def encode_batch(
        self, texts: Sequence[str], *, num_threads: int = 1
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The ids of many texts in one flat array, and offsets [len(texts) + 1] into it.

        The ids of `texts[i]` are `flat[offsets[i] : offsets[i + 1]]`, equal to `encode(texts[i])`.
        `num_threads` threads share the work where that helps; they never change the result.
        """
        ...

    def decode(self, ids: Ids, *, errors: str = "replace") -> str:
        """The text of ids. Bytes that are not UTF-8 are handled as `bytes.decode` does by `errors`.

        Raises TokenizerError for an id out of range, and with errors="strict" for bytes that are not UTF-8.
        """
        ...

    def decode_bytes(self, ids: Ids) -> bytes:
        """The bytes of ids, for streams: a token may end inside a character. Unused ids give no bytes."""
        ...

    def tokenizer_json(self) -> dict[str, Any]:
        """The content of its `tokenizer.json`; see `pellucid.tokenizers.tokenizer_json`.

        Raises TokenizerError for special tokens that the format cannot tell from ordinary ones.
        """
        ...

    def save(self, directory: Path) -> None:
        """Write all that `pellucid.tokenizers.load(directory)` needs to make an equal tokenizer.

        `tokenizer.json` is written beside it for other programs, where the format can say what this
        tokenizer does.
        """
        ...


class BaseTokenizer(ABC):
    """A tokenizer around a table of bytes, one entry an id. A subclass says how text becomes ids.

    `pieces[i]` is the bytes of id i, empty where an id is unused. `own_special` gives the tokenizer's own
    special tokens and their ids; `special_tokens` are added after the last id. `algorithm` describes the
    rule that cuts text, so that the fingerprint covers it: equal fingerprints mean equal ids for any text.
    """

    cuts_at_words: bool = True

    def __init__(
        self,
        kind: str,
        pieces: Sequence[bytes],
        own_special: Mapping[str, int],
        special_tokens: Sequence[str] = (),
        *,
        algorithm: str,
    ) -> None:
        own_size = max([len(pieces), *(number + 1 for number in own_special.values())])
        ids = special.number(own_special, special_tokens, first_id=own_size)
        table = [*pieces, *[b""] * (own_size + len(special_tokens) - len(pieces))]
        for token, number in ids.items():
            table[number] = token.encode()

        self.kind: str = kind
        self.vocab_size: int = len(table)
        self.special_tokens: Mapping[str, int] = ids
        self.end_of_text_id: int | None = ids.get(special.END_OF_TEXT)
        self._added_special = tuple(special_tokens)
        self._special_pattern = special.pattern(ids)
        self._bytes = np.frombuffer(b"".join(table), dtype=np.uint8)
        self._lengths = np.fromiter(map(len, table), dtype=np.int64, count=len(table))
        self._starts = np.cumsum(self._lengths) - self._lengths
        self.fingerprint: str = self._hash(algorithm)

    def __repr__(self) -> str:
        return f"<{self.kind} tokenizer: {self.vocab_size:,} ids, fingerprint {self.fingerprint[:12]}>"

    # What a subclass gives

    @abstractmethod
    def tokenizer_json(self) -> dict[str, Any]: ...

    @abstractmethod
    def _encode_text(self, text: str, at: int) -> NDArray[np.uint32]:
        """The ids of ordinary text. `at` is where it stands in the user's text, for messages.

        May raise UnicodeEncodeError for half a surrogate pair, and TokenizerError for anything else.
        """

    @abstractmethod
    def _encode_texts(
        self, texts: Sequence[str], num_threads: int
    ) -> tuple[NDArray[np.uint32], Iterable[int]]:
        """The ids of many texts in one flat array, and how many belong to each."""

    def _settings(self) -> dict[str, Any]:
        """The keys of its config besides `kind` and `special_tokens`, as JSON values."""
        return {}

    # What they share

    def encode(self, text: str, *, allow_special: bool = False) -> NDArray[np.uint32]:
        if not allow_special:
            return self._encode_part(text, 0)
        parts: list[NDArray[np.uint32]] = []
        for start, part, token in special.split(text, self._special_pattern):
            parts.append(self._encode_part(part, start))
            if token:
                parts.append(np.array([self.special_tokens[token]], dtype=np.uint32))
        return np.concatenate(parts)

    def encode_batch(
        self, texts: Sequence[str], *, num_threads: int = 1
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        if isinstance(texts, str):
            raise TokenizerError(
                "encode_batch wants a list of texts, not one text; write encode_batch([text])"
            )
        try:
            flat, lengths = self._encode_texts(texts, num_threads)
        except (UnicodeEncodeError, TokenizerError):
            for index, text in enumerate(texts):  # the fast path does not know which text it was
                try:
                    self._encode_part(text, 0)
                except TokenizerError as error:
                    raise TokenizerError(f"texts[{index}]: {error}") from None
            raise
        offsets = np.zeros(len(texts) + 1, dtype=np.int64)
        offsets[1:] = np.cumsum(np.fromiter(lengths, dtype=np.int64, count=len(texts)))
        return flat, offsets

    def decode(self, ids: Ids, *, errors: str = "replace") -> str:
        data = self.decode_bytes(ids)
        try:
            return data.decode("utf-8", errors)
        except UnicodeDecodeError as error:
            raise TokenizerError(
                f"{self.kind}: the ids do not spell UTF-8 text: byte {data[error.start]:#04x} at "
                f"{error.start}: {error.reason}; use decode_bytes, or errors='replace'"
            ) from None

    def decode_bytes(self, ids: Ids) -> bytes:
        checked = self._checked(ids)
        lengths = self._lengths[checked]
        ends = np.cumsum(lengths)
        # Output byte j of a token is table byte start + (j - where the token begins in the output).
        shifts = np.repeat(self._starts[checked] - (ends - lengths), lengths)
        return self._bytes[shifts + np.arange(len(shifts))].tobytes()

    def save(self, directory: Path) -> None:
        config = {"kind": self.kind, "special_tokens": list(self._added_special), **self._settings()}
        stored.write(Path(directory), stored.Stored(config, self.fingerprint), self._tokenizer_json_text)

    @cached_property
    def _tokenizer_json_text(self) -> str | None:
        """Made once: a run saves its tokenizer with every checkpoint."""
        try:
            return json.dumps(self.tokenizer_json(), ensure_ascii=False, separators=(",", ":"))
        except TokenizerError:
            return None

    def _encode_part(self, text: str, at: int) -> NDArray[np.uint32]:
        try:
            return self._encode_text(text, at)
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"{self.kind}: character {at + error.start} of the text is U+{ord(text[error.start]):04X}, "
                "half of a surrogate pair, which is no character and has no bytes; clean the text first, for "
                "example by text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
            ) from None

    def _checked(self, ids: Ids) -> NDArray[np.integer[Any]]:
        try:
            array = np.asarray(ids)
        except ValueError as error:  # lists of unequal length
            raise TokenizerError(f"{self.kind}: decode wants a flat sequence of ids: {error}") from None
        if array.size == 0:
            return np.empty(0, dtype=np.int64)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise TokenizerError(
                f"{self.kind}: decode wants a flat sequence of whole numbers, not {array.dtype} values of "
                f"shape {list(array.shape)}"
            )
        outside = (array < 0) | (array >= self.vocab_size)
        if outside.any():
            index = int(outside.argmax())
            raise TokenizerError(
                f"{self.kind}: id {array[index]} (at {index}) is outside its vocabulary of {self.vocab_size} "
                f"ids, 0 to {self.vocab_size - 1}; the ids come from another tokenizer or a larger model"
            )
        return array

    def _hash(self, algorithm: str) -> str:
        header = json.dumps({"algorithm": algorithm, "special_tokens": self.special_tokens}, sort_keys=True)
        digest = hashlib.sha256(header.encode())
        digest.update(self._lengths.astype("<u4").tobytes())
        digest.update(self._bytes.tobytes())
        return digest.hexdigest()
