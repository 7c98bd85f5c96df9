import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers

from pellucid.errors import TokenizerError
from pellucid.tokenizers import HuggingFaceTokenizer
from pellucid.tokenizers.training import PATTERNS, train_bpe

TEXTS = [
    f"It's the {number}th of {number * 7} words, isn't it?\n\nWords of words: ünïcödé 语言!  "
    for number in range(60)
]


@pytest.fixture(scope="module")
def plays(corpus: Path) -> str:
    return corpus.read_text(encoding="utf-8")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_ids_are_bytes_merges_and_special_tokens_in_this_order(pattern: str, plays: str) -> None:
    tokenizer = HuggingFaceTokenizer(train_bpe([plays], 400, pattern=pattern, special_tokens=["<pad>"]))
    assert tokenizer.vocab_size == 400
    assert dict(tokenizer.special_tokens) == {"<|endoftext|>": 398, "<pad>": 399}
    assert tokenizer.end_of_text_id == 398
    assert {len(tokenizer.decode_bytes([number])) for number in range(256)} == {1}
    assert min(len(tokenizer.decode_bytes([number])) for number in range(256, 398)) > 1
    assert tokenizer.decode(tokenizer.encode(plays)) == plays
    assert len(plays) / len(tokenizer.encode(plays)) > 1.5


def test_the_first_merge_is_the_commonest_pair() -> None:
    tree = train_bpe(["ab ab ab ab", "xyz xyz xyz"], 258)
    assert tree["model"]["merges"] == ["a b"]


def test_the_ids_are_those_of_the_library_itself(plays: str) -> None:
    """Ids are numbered otherwise, and nothing else: each piece is cut as the library's own tokenizer cuts it."""
    theirs = tokenizers.ByteLevelBPETokenizer()
    theirs.train_from_iterator([plays], vocab_size=600, min_frequency=2, show_progress=False)
    ours = HuggingFaceTokenizer(train_bpe([plays], 601))
    for text in (plays, "unseen words: Zürich, 12345!"):
        pieces = [ours.decode_bytes([number]) for number in ours.encode(text)]
        assert [piece.decode(errors="replace") for piece in pieces] == [
            theirs.decode([number]) for number in theirs.encode(text).ids
        ]


def test_neither_order_nor_threads_nor_process_change_the_ids() -> None:
    shuffled = random.Random(3).sample(TEXTS, len(TEXTS))
    expected = json.dumps(train_bpe(TEXTS, 420))
    assert json.dumps(train_bpe(shuffled, 420)) == expected
    program = (
        "import sys, json; from pellucid.tokenizers.training import train_bpe\n"
        "print(json.dumps(train_bpe(json.load(sys.stdin), 420)))"
    )
    for threads in ("1", "4"):
        ended = subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps(TEXTS),
            env=os.environ | {"RAYON_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ended.stdout.strip() == expected


def test_the_patterns_differ_in_digits() -> None:
    text = ["12345 12345 12345"] * 3
    longest = {}
    for pattern in PATTERNS:
        tokenizer = HuggingFaceTokenizer(train_bpe(text, 300, pattern=pattern))
        pieces = [tokenizer.decode([number]) for number in tokenizer.encode("12345")]
        longest[pattern] = max(map(len, pieces))
    assert longest == {"gpt2": 5, "cl100k": 3, "qwen2": 1}


def test_a_text_too_small_gives_a_smaller_vocabulary() -> None:
    tokenizer = HuggingFaceTokenizer(train_bpe(["aa aa"], 9000))
    assert tokenizer.vocab_size == 258
    assert tokenizer.decode_bytes([256]) == b"aa"


def test_special_tokens_in_the_text_are_no_part_of_the_vocabulary() -> None:
    tokenizer = HuggingFaceTokenizer(train_bpe(["<|endoftext|>"] * 50, 300))
    ids = tokenizer.encode("<|endoftext|>")
    assert tokenizer.end_of_text_id not in ids
    assert tokenizer.decode(ids) == "<|endoftext|>"


@pytest.mark.parametrize(
    ("texts", "vocab_size", "settings", "message"),
    [
        ([], 300, {}, "the texts are empty"),
        (["", ""], 300, {}, "the texts are empty"),
        (["a"], 256, {}, r"a vocabulary of 256 is too small: .* are 257"),
        (["a"], 258, {"special_tokens": ["<a>", "<b>"]}, r"too small: .* 2 more special tokens are 259"),
        (["a"], 300, {"special_tokens": ["<a>", "<a>"]}, "named twice"),
        (["a"], 300, {"special_tokens": ["<|endoftext|>"]}, "tokenizer's own"),
        (["a"], 300, {"pattern": "gpt5"}, r"no pattern 'gpt5' \(patterns: gpt2, cl100k, qwen2\)"),
        (["a", "\ud83d"], 300, {}, r"half of a surrogate pair"),
    ],
)
def test_what_cannot_be_learned(texts: list[str], vocab_size: int, settings: dict, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        train_bpe(texts, vocab_size, **settings)
