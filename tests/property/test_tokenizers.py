"""Laws of tokenizers, on texts that nobody would think of."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pellucid.tokenizers import ByteTokenizer, CharTokenizer, Tokenizer, build
from pellucid.tokenizers.ranks import gpt2_ranks
from pellucid.tokenizers.tiktoken import GPT2_PATTERN, TiktokenTokenizer

KINDS = ["byte", "gpt2", "p50k_base"]
MARKS = ["<|endoftext|>", "<pad>", "<|endof", "text|>"]
texts = st.lists(st.text() | st.sampled_from([*MARKS, "  ", "\n\n", "'ll", "hello"])).map("".join)
quickly = settings(max_examples=60, deadline=None)


@cache
def built(kind: str) -> Tokenizer:
    return build({"kind": kind, "special_tokens": ["<pad>"]})


@pytest.mark.parametrize("kind", KINDS)
@quickly
@given(text=texts)
def test_decode_undoes_encode(kind: str, text: str) -> None:
    tokenizer = built(kind)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids, errors="strict") == text
    assert not set(ids.tolist()) & set(tokenizer.special_tokens.values())


@pytest.mark.parametrize("kind", KINDS)
@quickly
@given(text=texts)
def test_allowed_special_tokens_change_ids_but_not_the_text(kind: str, text: str) -> None:
    tokenizer = built(kind)
    ids = tokenizer.encode(text, allow_special=True)
    assert tokenizer.decode(ids, errors="strict") == text
    for token in ("<|endoftext|>", "<pad>"):
        assert np.count_nonzero(ids == tokenizer.special_tokens[token]) == text.count(token)


@pytest.mark.parametrize("kind", KINDS)
@quickly
@given(batch=st.lists(texts, max_size=5), num_threads=st.integers(1, 3))
def test_a_batch_equals_its_texts(kind: str, batch: list[str], num_threads: int) -> None:
    flat, offsets = built(kind).encode_batch(batch, num_threads=num_threads)
    parts = [flat[start:end].tolist() for start, end in pairwise(offsets)]
    assert parts == [built(kind).encode(text).tolist() for text in batch]


@pytest.mark.parametrize("kind", KINDS)
@quickly
@given(data=st.data())
def test_any_ids_decode_and_can_be_streamed(kind: str, data: st.DataObject) -> None:
    tokenizer = built(kind)
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1)))
    whole = tokenizer.decode_bytes(ids)
    assert whole == b"".join(tokenizer.decode_bytes([number]) for number in ids)
    assert tokenizer.decode(ids) == whole.decode("utf-8", "replace")


@quickly
@given(content=st.binary())
def test_any_bytes_are_ids_of_the_byte_tokenizer(content: bytes) -> None:
    assert ByteTokenizer().decode_bytes(np.frombuffer(content, dtype=np.uint8)) == content


@quickly
@given(alphabet=st.sets(st.characters(exclude_categories=["Cs"]), min_size=1), data=st.data())
def test_a_char_tokenizer_knows_its_alphabet(alphabet: set[str], data: st.DataObject) -> None:
    tokenizer = CharTokenizer("".join(sorted(alphabet)))
    text = data.draw(st.text(st.sampled_from(sorted(alphabet))))
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids, errors="strict") == text
    assert len(ids) == len(text)


@quickly
@given(data=st.data(), added=st.lists(st.text(min_size=1, max_size=3), min_size=1, unique=True))
def test_any_strings_can_be_special_tokens(data: st.DataObject, added: list[str]) -> None:
    """The ids of a text made of special tokens spell that text, whatever the tokens hold or share."""
    assume("<|endoftext|>" not in added)
    text = "".join(data.draw(st.lists(st.sampled_from(added) | st.text())))
    byte = ByteTokenizer(added)
    bpe = TiktokenTokenizer("tiny", gpt2_ranks(256), GPT2_PATTERN, {"<|endoftext|>": 256}, added)
    for tokenizer in (byte, bpe):
        assert tokenizer.decode(tokenizer.encode(text, allow_special=True), errors="strict") == text
        assert all(tokenizer.encode(text) < 256)
        for token in added:
            assert tokenizer.encode(token, allow_special=True).tolist() == [tokenizer.special_tokens[token]]
