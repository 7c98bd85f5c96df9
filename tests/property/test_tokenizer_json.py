"""tokenizer.json on texts that nobody would think of: written by us, read by the library, and read by us again."""

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pellucid.tokenizers import CharTokenizer, HuggingFaceTokenizer, Tokenizer, build
from pellucid.tokenizers.ranks import CL100K_FILE, O200K_FILE
from pellucid.tokenizers.tokenizer_json import to_tokenizer_json
from pellucid.tokenizers.training import train_bpe

MARKS = [
    "<|endoftext|>",
    "<pad>",
    "<|endof",
    "text|>",
    "<pad",
    "  ",
    "\n\n",
    " \n ",
    "'ll",
    "'LL",
    "hello",
    "123",
]
texts = st.lists(st.text() | st.sampled_from(MARKS)).map("".join)
quickly = settings(max_examples=60, deadline=None)

RANKS = {"cl100k_base": CL100K_FILE, "o200k_base": O200K_FILE}
CORPUS = [
    "hello, hello; the end of the text is not the end: don't, we'll, 123 123 日本 日本\n\n",
    "<pad>" * 9,
] * 3


@cache
def trained(pattern: str) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(train_bpe(CORPUS, 330, pattern=pattern, special_tokens=["<pad>"]))


@cache
def built(name: str) -> Tokenizer:
    if name.startswith("trained "):
        return trained(name.removeprefix("trained "))
    if name.startswith("read "):
        tree = to_tokenizer_json(built(name.removeprefix("read ")))
        return HuggingFaceTokenizer(tree)
    return build({"kind": name, "special_tokens": ["<pad>"]})


@cache
def library(name: str, *, special_as_text: bool) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer.from_str(json.dumps(to_tokenizer_json(built(name))))
    made.encode_special_tokens = special_as_text
    return made


TRAINED = ["trained gpt2", "trained cl100k", "trained qwen2"]
READ = ["read byte", "read gpt2", "read p50k_base"]


@pytest.mark.parametrize("name", TRAINED + READ)
@quickly
@given(text=texts)
def test_decode_undoes_encode(name: str, text: str) -> None:
    tokenizer = built(name)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids, errors="strict") == text
    assert not set(ids.tolist()) & set(tokenizer.special_tokens.values())
    allowed = tokenizer.encode(text, allow_special=True)
    assert tokenizer.decode(allowed, errors="strict") == text
    for token, number in tokenizer.special_tokens.items():
        assert np.count_nonzero(allowed == number) == text.count(token)


@pytest.mark.parametrize("name", ["byte", "gpt2", "p50k_base", *TRAINED])
@quickly
@given(text=texts)
def test_the_library_gives_our_ids(name: str, text: str) -> None:
    tokenizer = built(name)
    assert library(name, special_as_text=True).encode(text).ids == tokenizer.encode(text).tolist()
    with_special = tokenizer.encode(text, allow_special=True).tolist()
    assert library(name, special_as_text=False).encode(text).ids == with_special


@pytest.mark.parametrize("name", READ)
@quickly
@given(text=texts)
def test_what_we_read_is_what_we_wrote(name: str, text: str) -> None:
    written = built(name.removeprefix("read "))
    assert np.array_equal(built(name).encode(text), written.encode(text))
    assert np.array_equal(
        built(name).encode(text, allow_special=True), written.encode(text, allow_special=True)
    )


@quickly
@given(alphabet=st.sets(st.characters(exclude_categories=["Cs"]), min_size=1), data=st.data())
def test_characters(alphabet: set[str], data: st.DataObject) -> None:
    tokenizer = CharTokenizer("".join(sorted(alphabet)))
    made = tokenizers.Tokenizer.from_str(json.dumps(to_tokenizer_json(tokenizer)))
    text = data.draw(st.text(st.sampled_from(sorted(alphabet))))
    assert made.encode(text).ids == tokenizer.encode(text).tolist()
    assert made.decode(made.encode(text).ids) == text


def with_ranks(kind: str) -> str:
    folder, file = os.environ.get("TIKTOKEN_CACHE_DIR"), RANKS[kind]
    if not folder or not (Path(folder) / file.cache_name).is_file():
        pytest.skip(f"TIKTOKEN_CACHE_DIR names no directory with tiktoken's files of {kind}")
    return kind


@pytest.mark.parametrize("name", ["byte", "gpt2", "p50k_base", *RANKS, *TRAINED])
@quickly
@given(parts=st.lists(texts, min_size=2, max_size=4))
@example(parts=["x ", "\n\n", "\tx"])
def test_a_text_can_be_cut_after_a_word(name: str, parts: list[str]) -> None:
    """`cuts_at_words`: a letter or a digit before, white space after."""
    tokenizer = built(with_ranks(name) if name in RANKS else name)
    assert tokenizer.cuts_at_words
    parts = [f"{space}{part}{end}" for part, space, end in zip(parts, " \n\t ", "é9aÉ", strict=False)]
    whole = tokenizer.encode("".join(parts))
    assert np.array_equal(whole, np.concatenate([tokenizer.encode(part) for part in parts]))


@quickly
@given(added=st.lists(st.text(min_size=1, max_size=3), min_size=1, unique=True), data=st.data())
def test_any_strings_can_be_special_tokens_but_those_of_the_vocabulary(
    added: list[str], data: st.DataObject
) -> None:
    assume(not any(len(token) == 1 and "!" <= token <= "\u0143" for token in added))
    text = "".join(data.draw(st.lists(st.sampled_from(added) | st.text())))
    tokenizer = build({"kind": "byte", "special_tokens": added})
    made = tokenizers.Tokenizer.from_str(json.dumps(to_tokenizer_json(tokenizer)))
    assert made.encode(text).ids == tokenizer.encode(text, allow_special=True).tolist()
