import numpy as np
import pytest

from pellucid.errors import TokenizerError
from pellucid.tokenizers import ByteConfig, ByteTokenizer


def test_ids_are_the_bytes_of_utf8() -> None:
    assert ByteTokenizer().encode("aé€😀\x00").tolist() == list("aé€😀\x00".encode())


def test_end_of_text_comes_after_the_bytes() -> None:
    tokenizer = ByteConfig().build()
    assert (tokenizer.vocab_size, tokenizer.end_of_text_id) == (257, 256)
    assert tokenizer.encode("a<|endoftext|>", allow_special=True).tolist() == [97, 256]


def test_every_byte_decodes_to_itself() -> None:
    assert ByteTokenizer().decode_bytes(np.arange(256)) == bytes(range(256))


def test_bytes_that_are_not_utf8_are_replaced_or_refused() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode([0x61, 0xFF, 0x62]) == "a\ufffdb"
    assert tokenizer.decode([0x61, 0xFF, 0x62], errors="ignore") == "ab"
    with pytest.raises(TokenizerError, match=r"0xff at 1.*use decode_bytes"):
        tokenizer.decode([0x61, 0xFF, 0x62], errors="strict")
