"""The character tokenizer: one id a character of the corpus it was made from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pellucid.config import Config
from pellucid.errors import TokenizerError
from pellucid.tokenizers.base import BaseTokenizer, Corpus
from pellucid.tokenizers.special import END_OF_TEXT, AddedSpecialTokens
from pellucid.tokenizers.tokenizer_json import character_level

_NONE = np.uint32(0xFFFF_FFFF)
"""Marks a code point that has no id; no alphabet can be this long."""
_SHOWN = 8
"""How many unknown characters a message lists."""


class CharConfig(Config):
    """One id a character, `<|endoftext|>` after the last. Without an alphabet it is made from the corpus."""

    kind: Literal["char"] = "char"
    alphabet: str | None = None
    """The characters it knows, in the order of their ids; none: the sorted characters of the corpus."""
    special_tokens: AddedSpecialTokens = ()

    def build(self, corpus: Corpus | None = None) -> CharTokenizer:
        """Raises TokenizerError when there is neither an alphabet nor a corpus."""
        if self.alphabet is not None:
            return CharTokenizer(self.alphabet, self.special_tokens)
        if corpus is None:
            raise TokenizerError(
                "char: needs the text it will be used on, to find its characters; give it a corpus, or an "
                "alphabet"
            )
        return CharTokenizer(alphabet_of(corpus()), self.special_tokens)


def alphabet_of(texts: Iterable[str]) -> str:
    """The sorted distinct characters of the texts."""
    characters: set[str] = set()
    for text in texts:
        characters.update(text)
    return "".join(sorted(characters))


class CharTokenizer(BaseTokenizer):
    """Character `alphabet[i]` has id i; `<|endoftext|>` is len(alphabet), added tokens follow.

    Raises TokenizerError for an alphabet that is empty, repeats a character or holds half a surrogate pair.
    """

    def __init__(self, alphabet: str, special_tokens: Sequence[str] = ()) -> None:
        if not alphabet:
            raise TokenizerError("char: the alphabet is empty; the corpus it was made from has no text")
        if len(set(alphabet)) < len(alphabet):
            twice = next(character for character in alphabet if alphabet.count(character) > 1)
            raise TokenizerError(f"char: the alphabet has {twice!r} twice; each character needs one id")
        try:
            codes = _code_points(alphabet)
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"char: the alphabet has {alphabet[error.start]!r}, half of a surrogate pair, which is no "
                "character; clean the corpus"
            ) from None
        super().__init__(
            "char",
            [character.encode() for character in alphabet],
            {END_OF_TEXT: len(alphabet)},
            special_tokens,
            algorithm="char",
        )
        self.alphabet = alphabet
        # One entry a code point up to the largest known one, and a last one for all beyond.
        self._id_of = np.full(int(codes.max()) + 2, _NONE, dtype=np.uint32)
        self._id_of[codes] = np.arange(len(codes), dtype=np.uint32)

    def tokenizer_json(self) -> dict[str, Any]:
        """Where ours refuses a character outside the alphabet, readers of the file leave it out."""
        return character_level(self.alphabet, {END_OF_TEXT: len(self.alphabet)}, self._added_special)

    def _settings(self) -> dict[str, Any]:
        return {"alphabet": self.alphabet}

    def _encode_text(self, text: str, at: int) -> NDArray[np.uint32]:
        ids = self._id_of.take(_code_points(text), mode="clip")
        unknown = np.flatnonzero(ids == _NONE)
        if unknown.size:
            raise TokenizerError(self._refusal(text, at, unknown))
        return ids

    def _encode_texts(
        self, texts: Sequence[str], num_threads: int
    ) -> tuple[NDArray[np.uint32], Iterable[int]]:
        return self._encode_text("".join(texts), 0), map(len, texts)

    def _refusal(self, text: str, at: int, unknown: NDArray[np.intp]) -> str:
        first: dict[str, int] = {}
        for index in unknown:
            first.setdefault(text[index], at + int(index))
        shown = [f"{c!r} (U+{ord(c):04X}) at {position}" for c, position in list(first.items())[:_SHOWN]]
        more = f" and {len(first) - _SHOWN} more" if len(first) > _SHOWN else ""
        return (
            f"char: {len(first)} unknown character{'s' if len(first) > 1 else ''}: {', '.join(shown)}{more}; "
            f"it knows only the {len(self.alphabet)} characters of its corpus. Use the byte tokenizer, which "
            "encodes any text"
        )


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
