import lzma
from functools import lru_cache
from importlib import resources
from itertools import pairwise

import numpy as np
import pytest
import regex

from pellucid.errors import TokenizerError
from pellucid.tokenizers import GPT2Config, Tokenizer, build
from pellucid.tokenizers.ranks import gpt2_ranks
from pellucid.tokenizers.tiktoken import GPT2_PATTERN, TiktokenTokenizer

PROSE = """It was the best of times, it was the worst of times -- we'd all gone direct to Heaven, they're
going direct the other way;   in short,\tthe period was 1859 times (so far) LIKE the present period.

    def naïve(café):  return "Ünïcödé", '…', '日本語', '🙂🙃'\r\n\x00\x7f\u00a0\u200b
"""


@lru_cache
def merges_of_gpt2() -> dict[tuple[str, str], int]:
    """Pair of printable stand-ins → its place in the list of merges, read without Pellucid's code."""
    packed = resources.files("pellucid.tokenizers") / "vocabularies" / "gpt2_vocab.bpe.xz"
    lines = lzma.decompress(packed.read_bytes()).decode().split("\n")[1:-1]
    return {tuple(line.split(" ")): place for place, line in enumerate(lines)}  # pyright: ignore


@lru_cache
def stand_ins() -> dict[int, str]:
    """Byte → the character that stands for it in GPT-2's files (`bytes_to_unicode` of its release)."""
    names, extra = {}, 0
    for byte in range(256):
        if 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255:
            names[byte] = chr(byte)
        else:
            names[byte] = chr(256 + extra)
            extra += 1
    return names


def merged_by_hand(text: str, num_merges: int) -> list[bytes]:
    """Textbook BPE: cut by the pattern of the GPT-2 release, then join pairs in the order of the merges."""
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    byte_of = {character: byte for byte, character in stand_ins().items()}
    tokens: list[bytes] = []
    for piece in regex.findall(pattern, text):
        parts = [stand_ins()[byte] for byte in piece.encode()]
        while len(parts) > 1:
            places = [merges_of_gpt2().get(pair, num_merges) for pair in pairwise(parts)]
            if min(places) >= num_merges:
                break
            at = places.index(min(places))
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        tokens += [bytes(byte_of[character] for character in part) for part in parts]
    return tokens


def pieces(tokenizer: Tokenizer, text: str) -> list[bytes]:
    return [tokenizer.decode_bytes([number]) for number in tokenizer.encode(text).tolist()]


def test_known_ids_of_gpt2(gpt2: Tokenizer) -> None:
    assert gpt2.encode("hello world").tolist() == [31373, 995]
    assert (gpt2.vocab_size, gpt2.end_of_text_id) == (50257, 50256)


def test_known_ids_of_p50k(p50k: Tokenizer) -> None:
    assert p50k.encode("hello world").tolist() == [31373, 995]
    assert p50k.encode("def f():\n    return").tolist() == [4299, 277, 33529, 198, 50258, 1441]
    assert (p50k.vocab_size, p50k.end_of_text_id) == (50281, 50256)


def test_gpt2_and_one_padding_token_have_50258_ids() -> None:
    tokenizer = GPT2Config(special_tokens=("<|padding|>",)).build()
    assert (tokenizer.vocab_size, tokenizer.special_tokens["<|padding|>"]) == (50258, 50257)


@pytest.mark.parametrize("max_ranks", [256, 257, 300, 5000, 21503, 50256])
def test_fewer_ranks_give_the_tokenizer_at_that_point_of_its_training(max_ranks: int) -> None:
    tokenizer = GPT2Config(max_ranks=max_ranks).build()
    ids = tokenizer.encode(PROSE)
    assert (tokenizer.vocab_size, tokenizer.end_of_text_id) == (max_ranks + 1, max_ranks)
    assert ids.max() < max_ranks
    assert tokenizer.decode(ids) == PROSE
    assert pieces(tokenizer, PROSE) == merged_by_hand(PROSE, max_ranks - 256)


def test_the_vocabulary_of_the_small_preset() -> None:
    assert build({"kind": "gpt2", "max_ranks": 21503}).vocab_size == 21504


def test_every_token_is_reached_by_merges_of_lower_rank_alone() -> None:
    """What makes `max_ranks` exact: a token that is kept never needs one that is not."""
    place_of = {first + second: place for (first, second), place in merges_of_gpt2().items()}
    for token, own_place in list(place_of.items())[::25]:
        parts = list(token)
        while len(parts) > 1:
            places = [merges_of_gpt2().get(pair, 10**9) for pair in pairwise(parts)]
            assert min(places) <= own_place
            at = places.index(min(places))
            parts[at : at + 2] = [parts[at] + parts[at + 1]]


def test_all_ranks_named_or_not_are_one_tokenizer(gpt2: Tokenizer) -> None:
    assert GPT2Config(max_ranks=50256).build().fingerprint == gpt2.fingerprint


def test_ids_in_a_hole_decode_to_nothing() -> None:
    tokenizer = TiktokenTokenizer(
        "holey", gpt2_ranks(256), GPT2_PATTERN, {"<|endoftext|>": 258, "<|end|>": 260}, ["<pad>"]
    )
    assert tokenizer.vocab_size == 262
    assert tokenizer.decode([256, 0, 257, 258, 259, 260, 261]) == "!<|endoftext|><|end|><pad>"


def test_a_run_of_blanks_too_long_for_tiktoken_is_explained(gpt2: Tokenizer) -> None:
    text = "ab" + " " * 1_200_000 + "c"
    with pytest.raises(
        TokenizerError, match=r"gpt2: tiktoken cannot cut .*longest here: 1,200,000 characters at 2"
    ):
        gpt2.encode(text)
    with pytest.raises(TokenizerError, match=r"characters at 15\."):
        gpt2.encode("<|endoftext|>" + text, allow_special=True)
    with pytest.raises(TokenizerError, match=r"^texts\[1\]: gpt2: tiktoken cannot cut"):
        gpt2.encode_batch(["fine", text])


@pytest.mark.parametrize("num_threads", [1, 2, 3, 64])
def test_threads_do_not_change_the_result(gpt2: Tokenizer, num_threads: int) -> None:
    texts = [PROSE[start : start + 7] for start in range(0, len(PROSE), 7)]
    flat, offsets = gpt2.encode_batch(texts, num_threads=num_threads)
    expected = [gpt2.encode(text) for text in texts]
    assert np.array_equal(flat, np.concatenate(expected))
    assert np.array_equal(np.diff(offsets), [len(ids) for ids in expected])
