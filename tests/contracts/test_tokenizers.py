"""What every kind of tokenizer must do. A new member of the union is tested here without a word."""

import os
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pellucid.config import members
from pellucid.errors import TokenizerError
from pellucid.tokenizers import Tokenizer, TokenizerConfig, build, load
from pellucid.tokenizers.ranks import CL100K_FILE, O200K_FILE

FILES = {"cl100k_base": CL100K_FILE, "o200k_base": O200K_FILE}
TEXTS = [
    "hello world",
    "",
    "  It's   the <|endoftext|> of\n\n\tÜnïcödé, 日本語 and 🙂🏳️‍🌈 -- isn't it?  \r\n",
    "<|endoftext|><pad>\x00<|endoftext|>",
    "x",
]
FINGERPRINTS = {
    "byte": "34b6ccd5280b7df83dd62ae74923ea985a8663c6234aa5604f6fb3f4b330810e",
    "char": "d748fcf4fc6bac34e5e0c392381a11316ae63164346e46d1d70bd2df14d60662",
    "gpt2": "8157f1f175701c0f69a107c645dd1d0cc27776803c39f95c750c5dae846e0e3f",
    "p50k_base": "66861ec0d1f9fd16fdd4069a701f617c397fa15a38d2b33de51f7fd8807fbbe1",
    "cl100k_base": "748f095fa1d9e9b67da2e30d9b66cac48310e3e00da6a31acde0c11041c60b86",
    "o200k_base": "b8624068c9337a4dfa1bbfb7c2fa4e57e5a695b7209b331a18155cdc605b9e4c",
    "huggingface": "d0fbeeddcd32c0df6356a498550d268e24bce68fe3925363227448236fb62e79",
}
"""Data and checkpoints of earlier versions carry these: a change here makes them unusable."""


NEEDED = {"huggingface": {"path": str(Path(__file__).with_name("tokenizer.json"))}}
"""What a kind cannot be built without: 288 ids that `tokenizer train --pattern cl100k` learned from Shakespeare."""


def config(kind: str, *special_tokens: str) -> dict[str, Any]:
    return {"kind": kind, "special_tokens": special_tokens, **NEEDED.get(kind, {})}


@cache
def built(kind: str, *special_tokens: str) -> Tokenizer:
    return build(config(kind, *special_tokens), corpus=lambda: TEXTS)


def can_be_built(kind: str) -> bool:
    folder = os.environ.get("TIKTOKEN_CACHE_DIR")
    return kind not in FILES or bool(folder and (Path(folder) / FILES[kind].cache_name).is_file())


@pytest.fixture(params=filter(can_be_built, members(TokenizerConfig)))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def tokenizer(kind: str) -> Tokenizer:
    return built(kind)


@pytest.mark.parametrize("name", FILES)
def test_every_kind_is_tested(name: str) -> None:
    if not can_be_built(name):
        pytest.skip(f"TIKTOKEN_CACHE_DIR names no directory with the ranks of {name}: it is not tested here")
    assert built(name).kind == name


def test_describes_itself(kind: str, tokenizer: Tokenizer) -> None:
    assert tokenizer.kind == kind
    assert tokenizer.end_of_text_id == tokenizer.special_tokens["<|endoftext|>"]
    assert max(tokenizer.special_tokens.values()) < tokenizer.vocab_size
    assert len(bytes.fromhex(tokenizer.fingerprint)) == 32
    assert kind in repr(tokenizer)


@pytest.mark.parametrize("text", TEXTS)
def test_decode_undoes_encode(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert (ids.dtype, ids.ndim) == (np.uint32, 1)
    assert ids.flags.writeable
    assert all(ids < tokenizer.vocab_size)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids.tolist(), errors="strict") == text
    assert tokenizer.decode_bytes(ids) == text.encode()


@pytest.mark.parametrize("text", TEXTS)
def test_special_tokens_in_text_are_text(kind: str, text: str) -> None:
    tokenizer = built(kind, "<pad>")
    ids = tokenizer.encode(text)
    assert not set(ids.tolist()) & set(tokenizer.special_tokens.values())
    assert np.array_equal(ids, built(kind).encode(text))


def test_special_tokens_are_ids_when_asked_for(kind: str) -> None:
    tokenizer = built(kind, "<pad>")
    ids = tokenizer.encode("hello<|endoftext|><pad> world", allow_special=True)
    own, added = tokenizer.end_of_text_id, tokenizer.special_tokens["<pad>"]
    assert ids.tolist() == [*tokenizer.encode("hello"), own, added, *tokenizer.encode(" world")]
    assert tokenizer.decode(ids) == "hello<|endoftext|><pad> world"
    assert ids.dtype == np.uint32


def test_every_own_special_token_is_found_and_decoded(tokenizer: Tokenizer) -> None:
    for token, number in tokenizer.special_tokens.items():
        assert tokenizer.encode(token, allow_special=True).tolist() == [number]
        assert tokenizer.decode([number]) == token


def test_added_special_tokens_come_after_the_own_ids(kind: str, tokenizer: Tokenizer) -> None:
    more = built(kind, "<pad>", "<mask>")
    size = tokenizer.vocab_size
    assert dict(more.special_tokens) == {**tokenizer.special_tokens, "<pad>": size, "<mask>": size + 1}
    assert more.vocab_size == size + 2


@pytest.mark.parametrize("special_tokens", [("",), ("<pad>", "<pad>"), ("<|endoftext|>",)])
def test_empty_and_repeated_special_tokens_are_refused(kind: str, special_tokens: tuple[str, ...]) -> None:
    with pytest.raises(TokenizerError, match="special token"):
        build(config(kind, *special_tokens), corpus=lambda: TEXTS)


def test_the_fingerprint_changes_with_the_ids_and_only_then(kind: str, tokenizer: Tokenizer) -> None:
    again = build(config(kind), corpus=lambda: reversed(TEXTS))
    assert again.fingerprint == tokenizer.fingerprint
    assert all(np.array_equal(again.encode(text), tokenizer.encode(text)) for text in TEXTS)
    others = [built(kind, *added) for added in [(), ("<pad>",), ("<pad>", "<mask>"), ("<mask>", "<pad>")]]
    assert len({other.fingerprint for other in others}) == len(others)


def test_the_fingerprint_is_the_one_of_earlier_versions(kind: str) -> None:
    assert built(kind).fingerprint == FINGERPRINTS[kind]


def test_load_undoes_save(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = built(kind, "<pad>", "<空>")
    tokenizer.save(tmp_path / "tokenizer")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))  # what was saved stands alone
    loaded = load((tmp_path / "tokenizer").rename(tmp_path / "moved"))
    assert (
        loaded.kind,
        loaded.vocab_size,
        loaded.end_of_text_id,
        loaded.special_tokens,
        loaded.fingerprint,
    ) == (
        tokenizer.kind,
        tokenizer.vocab_size,
        tokenizer.end_of_text_id,
        tokenizer.special_tokens,
        tokenizer.fingerprint,
    )
    for text in TEXTS:
        assert np.array_equal(
            loaded.encode(text, allow_special=True), tokenizer.encode(text, allow_special=True)
        )


def test_a_pickled_tokenizer_is_equal(tokenizer: Tokenizer) -> None:
    """Worker processes receive tokenizers."""
    received: Tokenizer = pickle.loads(pickle.dumps(tokenizer))
    assert received.fingerprint == tokenizer.fingerprint
    assert all(np.array_equal(received.encode(text), tokenizer.encode(text)) for text in TEXTS)


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[::-1], [""], ["", "", "x", ""], []])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_batch_is_the_texts_one_after_the_other(
    tokenizer: Tokenizer, texts: list[str], num_threads: int
) -> None:
    flat, offsets = tokenizer.encode_batch(texts, num_threads=num_threads)
    assert (flat.dtype, offsets.dtype) == (np.uint32, np.int64)
    assert len(offsets) == len(texts) + 1
    assert (offsets[0], offsets[-1]) == (0, len(flat))
    for index, text in enumerate(texts):
        assert np.array_equal(flat[offsets[index] : offsets[index + 1]], tokenizer.encode(text))


def test_one_text_is_not_a_batch(tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match=r"encode_batch\(\[text\]\)"):
        tokenizer.encode_batch("hello")


def test_bytes_of_ids_join_to_the_bytes_of_all(tokenizer: Tokenizer) -> None:
    """So text can be streamed. Every id has bytes, perhaps none."""
    ids = np.arange(tokenizer.vocab_size)[:: max(1, tokenizer.vocab_size // 1000)]
    assert tokenizer.decode_bytes(ids) == b"".join(tokenizer.decode_bytes([number]) for number in ids)
    assert isinstance(tokenizer.decode(np.arange(tokenizer.vocab_size)), str)
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.uint32])
def test_ids_of_any_integer_type_can_be_decoded(tokenizer: Tokenizer, dtype: type) -> None:
    small = [number for number in tokenizer.encode("hello world").tolist() if number < 65536]
    assert tokenizer.decode(np.array(small, dtype=dtype)) == tokenizer.decode(small)


@pytest.mark.parametrize("offset", [0, 5])
def test_an_id_beyond_the_vocabulary_is_named(tokenizer: Tokenizer, offset: int) -> None:
    number = tokenizer.vocab_size + offset
    with pytest.raises(
        TokenizerError, match=rf"id {number} \(at 1\).* vocabulary of {tokenizer.vocab_size} ids"
    ):
        tokenizer.decode([0, number])
    with pytest.raises(TokenizerError, match=r"id -1 \(at 0\)"):
        tokenizer.decode_bytes([-1])


@pytest.mark.parametrize("ids", [[[0, 1]], [0.5], ["a"], [[0], [1, 2]], 0, [True], [2**70]])
def test_what_is_no_sequence_of_ids_is_refused(tokenizer: Tokenizer, ids: list[int]) -> None:
    with pytest.raises(TokenizerError, match="flat sequence"):
        tokenizer.decode(ids)


@pytest.mark.parametrize("code_point", [0xD83D, 0xDE42])
def test_half_a_surrogate_pair_is_refused_with_its_place(tokenizer: Tokenizer, code_point: int) -> None:
    half = chr(code_point)
    with pytest.raises(
        TokenizerError, match=rf"character 5 .* U\+{code_point:04X}, half of a surrogate pair"
    ):
        tokenizer.encode("hello" + half)
    with pytest.raises(TokenizerError, match="character 18 "):
        tokenizer.encode("hello<|endoftext|>" + half, allow_special=True)
    with pytest.raises(TokenizerError, match=r"^texts\[1\]: .* character 0 "):
        tokenizer.encode_batch(["hello", half, "hello"])
