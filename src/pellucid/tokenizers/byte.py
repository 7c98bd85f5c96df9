"""The byte tokenizer: no vocabulary to learn or to ship, and every text can be encoded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pellucid.config import Config
from pellucid.tokenizers.base import BaseTokenizer, Corpus
from pellucid.tokenizers.special import END_OF_TEXT, AddedSpecialTokens
from pellucid.tokenizers.tokenizer_json import byte_level


class ByteConfig(Config):
    """Ids 0 to 255 are the bytes of UTF-8; 256 is `<|endoftext|>`."""

    kind: Literal["byte"] = "byte"
    special_tokens: AddedSpecialTokens = ()

    def build(self, corpus: Corpus | None = None) -> ByteTokenizer:
        return ByteTokenizer(self.special_tokens)


class ByteTokenizer(BaseTokenizer):
    """One id a byte of the text's UTF-8: id = byte. `<|endoftext|>` is 256, added tokens follow."""

    def __init__(self, special_tokens: Sequence[str] = ()) -> None:
        super().__init__(
            "byte",
            [bytes([byte]) for byte in range(256)],
            {END_OF_TEXT: 256},
            special_tokens,
            algorithm="byte",
        )

    def tokenizer_json(self) -> dict[str, Any]:
        singles = {bytes([byte]): byte for byte in range(256)}
        return byte_level(singles, {END_OF_TEXT: 256}, self._added_special)

    def _encode_text(self, text: str, at: int) -> NDArray[np.uint32]:
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint32)

    def _encode_texts(
        self, texts: Sequence[str], num_threads: int
    ) -> tuple[NDArray[np.uint32], Iterable[int]]:
        encoded = [text.encode() for text in texts]
        return np.frombuffer(b"".join(encoded), dtype=np.uint8).astype(np.uint32), map(len, encoded)
