"""Equal to tiktoken's own encodings, which need its files."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tiktoken

from pellucid.tokenizers import build, ranks

TEXTS = [
    "hello world",
    "It's WE'LL they'd I'M  two   three\t\n\n\r\n mixed \n ends with spaces   ",
    "    def f(x):\n\t\treturn {'a': 1234567.89e-10}  # ok\n" + " " * 30 + "x",
    "naïve Ünïcödé ΑΒΓ абв 日本語 한국어 العربية हिन्दी ไทย 🙂🏳️‍🌈 \u200b\ufeff\x00\x7f",
    "DZDzdz ﬁ Ⅷ ½ ² ٣ \u2028\u2029\u0085\u00a0x",
    "a<|endoftext|>b<|endofprompt|><|fim_prefix|>",
    "",
    "^" * 1000 + "A" * 1000 + " " * 1000,
]
KNOWN = {
    "gpt2": ([31373, 995], 50257),
    "p50k_base": ([31373, 995], 50281),
    "cl100k_base": ([15339, 1917], 100277),
    "o200k_base": ([24912, 2375], 200019),
}


@pytest.mark.parametrize("kind", KNOWN)
def test_equal_to_tiktoken(kind: str, cache_with: Callable[[str], Path]) -> None:
    cache_with(kind)
    ours, theirs = build(kind), tiktoken.get_encoding(kind)
    assert ours.encode("hello world").tolist() == KNOWN[kind][0]
    assert ours.vocab_size == theirs.n_vocab == KNOWN[kind][1]
    assert ours.end_of_text_id == theirs.eot_token
    assert dict(ours.special_tokens) == theirs._special_tokens
    for text in TEXTS:
        assert ours.encode(text).tolist() == theirs.encode_ordinary(text)
        assert ours.encode(text, allow_special=True).tolist() == theirs.encode(text, allowed_special="all")
        assert ours.decode(theirs.encode_ordinary(text)) == text


def test_all_ranks_are_those_of_tiktoken(cache_with: Callable[[str], Path]) -> None:
    cache_with("gpt2")
    assert ranks.gpt2_ranks() == tiktoken.get_encoding("gpt2")._mergeable_ranks
    cache_with("p50k_base")
    assert ranks.p50k_ranks() == tiktoken.get_encoding("p50k_base")._mergeable_ranks


def test_saved_ranks_are_the_file_they_came_from(cache_with: Callable[[str], Path], tmp_path: Path) -> None:
    original = cache_with("cl100k_base") / ranks.CL100K_FILE.cache_name
    build({"kind": "cl100k_base", "ranks_file": original}).save(tmp_path)
    assert (tmp_path / "cl100k_base.tiktoken").read_bytes() == original.read_bytes()
